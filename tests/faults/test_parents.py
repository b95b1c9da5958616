"""Facts about chains with missing, damaged or wrong files, and failing work on them."""

import gc
import hashlib
import os
import resource
import shutil
import signal
import struct
import zlib
from pathlib import Path

import pytest

import snapmig
from tests.support import digests, kinds, processes, program, ram
from tests.support.processes import stopped_midway

PACKET = 64 << 10
SIZE = 16 * PACKET
OLD = ram.text(SIZE // ram.PAGE).tobytes()
root = pytest.mark.root


def changed(content, *packets):
    """Return contents with a page of each of some packets rewritten, and a few bytes more."""
    made = bytearray(content)
    for packet in packets:
        at = packet * PACKET
        made[at + 100 : at + 200] = b"x" * 100
        made[at + ram.PAGE : at + 2 * ram.PAGE] = ram.noise(1, packet).tobytes()
    return bytes(made)


NEW = changed(OLD, 2, 5)
NEWEST = changed(NEW, 5, 9)


@pytest.fixture(scope="module")
def week(shared_shm):
    """Make a chain of three: sunday, monday, tuesday."""
    parent = None
    for name, content in (("sunday", OLD), ("monday", NEW), ("tuesday", NEWEST)):
        image = ram.write(shared_shm / f"{name}.ram", content)
        snapshot = shared_shm / f"{name}.snap"
        snapmig.save(image, snapshot, parent=parent, packet_size=PACKET, jobs=1)
        parent = snapshot
    return shared_shm


@pytest.fixture
def place(shm, week, monkeypatch):
    """Work in a directory with that chain."""
    monkeypatch.chdir(shm)
    for path in week.iterdir():
        shutil.copy(path, shm)
    return shm


def whole(path):
    """Return all RAM of a snapshot."""
    with snapmig.open(path) as snapshot:
        return snapshot.read(0, len(snapshot))


def damage(path, packet):
    """Change a byte of a packet's stored bytes."""
    raw = bytearray(path.read_bytes())
    raw[kinds.read(path)[packet].offset + 20] ^= 0xFF
    path.write_bytes(raw)


NEEDS_PARENTS = [
    "restore tuesday.snap new",
    "verify tuesday.snap",
    "chain tuesday.snap",
    "merge tuesday.snap new",
    "repack tuesday.snap new",
    "rebase tuesday.snap --parent sunday.snap",
    "diff tuesday.snap sunday.snap",
    "save tuesday.ram new --parent tuesday.snap",
]


@pytest.mark.parametrize("words", NEEDS_PARENTS)
def test_a_parent_that_is_missing_is_named(place, cli, words):
    """Every verb in need of it names the child, the parent's old name, and the places searched."""
    (place / "monday.snap").unlink()
    outcome = cli(*words.split())

    outcome.fails(
        1,
        "snapmig: tuesday.snap: needs its parent ",
        f", which was 'monday.snap' when it was saved; it is neither there nor in {place}",
    )
    assert not (place / "new").exists()


def test_damage_is_told_beside_a_parent_that_is_missing(place, cli):
    """Damage found before a verification needed the parent is not lost: exit code 3, and both."""
    (place / "monday.snap").unlink()
    with (place / "tuesday.snap").open("r+b") as file:
        file.seek(8192 + 60)  # in the index: a page's kind, so that only its digest tells
        file.write(b"\xff")
    outcome = cli("verify", "-j1", "tuesday.snap")

    outcome.fails(3)
    assert outcome.err.index("index") < outcome.err.index("needs its parent ")


def test_what_needs_no_parent_is_told_without_it(place, cli):
    """Info and a quick verification read the one file only."""
    (place / "monday.snap").unlink()

    cli("info", "tuesday.snap").ok()
    cli("verify", "--quick", "tuesday.snap").ok()


def test_a_grandparent_that_is_missing_is_the_parents_affair(place, cli):
    """The error names the file whose parent is missing."""
    (place / "sunday.snap").unlink()
    outcome = cli("restore", "tuesday.snap", "new")

    outcome.fails(1, "/monday.snap: needs its parent ")


def test_parents_that_were_renamed_are_found(place):
    """In the same folder a parent is found by its id, whatever its name is now."""
    (place / "sunday.snap").rename(place / "s")
    (place / "monday.snap").rename(place / "m")

    assert [link.snapshot for link in snapmig.chain("tuesday.snap")] == [
        "tuesday.snap",
        str(place / "m"),
        str(place / "s"),
    ]
    assert whole("tuesday.snap") == NEWEST


def test_a_folder_with_odd_things_in_it_is_searched(place):
    """Links to themselves, pipes, folders and unreadable files are passed over."""
    (place / "loop").symlink_to("loop")
    (place / "gone").symlink_to("nowhere")
    os.mkfifo(place / "fifo")
    (place / "folder").mkdir()
    (place / "short").write_bytes(b"\x93SNAPMIG")
    (place / "monday.snap").rename(place / "zz")

    assert whole("tuesday.snap") == NEWEST


def test_a_snapshot_behind_a_link_finds_its_parent(place):
    """The parent is searched beside the link, and beside the link's target."""
    (place / "links").mkdir()
    (place / "links" / "latest").symlink_to("../tuesday.snap")

    assert whole(place / "links" / "latest") == NEWEST


def test_an_open_snapshot_without_a_name_finds_its_parent(place):
    """/proc/PID/fd/N leads to the file's folder."""
    with (place / "tuesday.snap").open("rb") as file:
        assert whole(f"/proc/{os.getpid()}/fd/{file.fileno()}") == NEWEST


def test_a_chain_is_moved_as_a_whole(place):
    """Names are relative to the folder: all of it may go elsewhere."""
    (place / "new").mkdir()
    for path in place.glob("*.snap"):
        path.rename(place / "new" / path.name)

    assert whole("new/tuesday.snap") == NEWEST


def test_a_parent_in_another_folder(place, monkeypatch):
    """A parent elsewhere is found by its absolute name, from anywhere."""
    (place / "old").mkdir()
    for name in ("sunday", "monday"):
        (place / f"{name}.snap").rename(place / "old" / f"{name}.snap")
    snapmig.save("tuesday.ram", "other.snap", parent="old/monday.snap", jobs=1)
    monkeypatch.chdir("/")

    assert whole(place / "other.snap") == NEWEST


def test_a_parent_that_moved_to_another_folder_is_missed(place, cli):
    """Only its own folder and the old name are searched."""
    (place / "old").mkdir()
    (place / "monday.snap").rename(place / "old" / "monday.snap")

    cli("restore", "tuesday.snap", "new").fails(1)


@pytest.mark.usefixtures("place")
def test_another_snapshot_under_the_parents_name_is_not_taken(cli):
    """The same guest saved again to the parent's name is another snapshot."""
    snapmig.save("monday.ram", "monday.snap", force=True, jobs=1, packet_size=PACKET)
    outcome = cli("restore", "tuesday.snap", "new")

    outcome.fails(1, "needs its parent ")


def test_a_name_that_plays_tricks_is_shown_harmlessly(place, cli):
    """The old name of a parent comes from a file: its control characters are not printed."""
    (place / "\x1b[2Jx").write_bytes((place / "monday.snap").read_bytes())
    snapmig.save("tuesday.ram", "other.snap", parent="\x1b[2Jx", jobs=1)
    (place / "\x1b[2Jx").unlink()
    (place / "monday.snap").unlink()
    outcome = cli("restore", "other.snap", "new")

    outcome.fails(1, "which was '\\x1b[2Jx' when")
    assert "\x1b" not in outcome.err


@pytest.mark.parametrize(
    ("name", "packet"), [("sunday", 2), ("sunday", 0), ("monday", 2), ("tuesday", 9)]
)
def test_damage_that_a_restore_meets_is_named_with_its_file(place, cli, name, packet):
    """A damaged packet with needed pages anywhere in the chain ends a restore."""
    damage(place / f"{name}.snap", packet)
    outcome = cli("restore", "tuesday.snap", "new")

    outcome.fails(3, f"{name}.snap: packet {packet}: offset 0x", "checksum of the stored bytes")
    assert not (place / "new").exists()


def store_other_pages(path, packet):
    """Give a packet a valid stream of other pages with correct checksums, like a bad compressor."""
    raw = bytearray(path.read_bytes())
    record = memoryview(raw)[8192 + packet * 104 : 8192 + (packet + 1) * 104]
    offset, size = struct.unpack_from("<QI", record, 8)
    plain = bytearray(zlib.decompress(raw[offset : offset + size], -15))
    plain[9000] ^= 1
    stored = zlib.compress(plain, wbits=-15)
    raw[offset : offset + len(stored)] = stored
    struct.pack_into("<I", record, 16, len(stored))
    struct.pack_into("<II", record, 24, zlib.crc32(stored), 0)
    struct.pack_into("<I", record, 28, zlib.crc32(record))
    del record
    path.write_bytes(raw)


@pytest.mark.parametrize("packet", [0, 5])
def test_wrong_contents_are_told_of_the_file_that_has_them(place, cli, packet):
    """If only a digest is wrong the right file is named, for changed and unchanged packets."""
    store_other_pages(place / "sunday.snap", packet)
    outcome = cli("restore", "tuesday.snap", "new")

    outcome.fails(3, f"sunday.snap: packet {packet}: digest of the page contents is ")
    assert not (place / "new").exists()


def test_damage_that_nobody_needs_is_no_harm(place):
    """A packet of the parent with all its pages changed since is not read."""
    content = bytearray(NEWEST)
    content[9 * PACKET : 10 * PACKET] = ram.noise(16, 3).tobytes()
    ram.write(place / "a", bytes(content))
    snapmig.save("a", "wednesday.snap", parent="tuesday.snap", jobs=1)
    for name in ("sunday", "tuesday"):
        damage(place / f"{name}.snap", 9)

    assert whole("wednesday.snap") == bytes(content)


@pytest.mark.parametrize("jobs", [1, 2])
def test_verify_lists_all_damaged_packets_of_a_chain(place, cli, jobs):
    """Each unreadable packet is reported with the damaged file, and counted."""
    damage(place / "sunday.snap", 0)
    damage(place / "sunday.snap", 5)
    damage(place / "monday.snap", 2)
    damage(place / "tuesday.snap", 9)
    outcome = cli("verify", "tuesday.snap", "-j", jobs)
    lines = [line.split(": ")[1:3] for line in outcome.err.splitlines()]

    assert [(path.split("/")[-1], packet) for path, packet in lines] == [
        ("sunday.snap", "packet 0"),
        ("monday.snap", "packet 2"),
        ("sunday.snap", "packet 5"),
        ("tuesday.snap", "packet 9"),
    ]
    outcome.fails(3)
    assert outcome.lines[0] == "tuesday.snap: damaged, 4 of 16 packets"


@pytest.mark.parametrize("packet", [2, 3])
def test_damaged_page_digests_of_a_parent_are_refused(place, cli, packet):
    """A save that would compare or copy them names file and packet, and makes no snapshot."""
    snapmig.save("sunday.ram", "old.snap", page_digests=True, packet_size=PACKET, jobs=1)
    digests.damage("old.snap", packet)
    outcome = cli("save", "monday.ram", "new.snap", "--parent", "old.snap")
    (line,) = outcome.err.splitlines()

    outcome.fails(3)
    assert not (place / "new.snap").exists()
    assert line.startswith(f"snapmig: old.snap: packet {packet}: offset 0x")
    assert "checksum of the page digests is 0x" in line


@pytest.mark.usefixtures("place")
def test_damaged_page_digests_of_a_parent_that_nobody_needs_are_no_harm():
    """A save without page digests ignores those of unchanged packets."""
    snapmig.save("sunday.ram", "old.snap", page_digests=True, packet_size=PACKET, jobs=1)
    digests.damage("old.snap", 3)
    snapmig.save("monday.ram", "new.snap", parent="old.snap", page_digests=False, jobs=1)

    assert whole("new.snap") == NEW


@pytest.mark.usefixtures("place")
def test_damaged_page_digests_are_their_own_snapshots_affair(cli):
    """No child takes any: it is sound, and so is what is saved on it."""
    digests.damage("sunday.snap", 2)
    cli("verify", "tuesday.snap").ok()
    cli("save", "sunday.ram", "new.snap", "--parent", "tuesday.snap").ok()
    cli("verify", "new.snap").ok()

    assert whole("new.snap") == OLD


@pytest.mark.usefixtures("place")
def test_damaged_page_digests_are_found_in_their_own_snapshot(cli):
    """A verification of the parent names the packet."""
    digests.damage("sunday.snap", 2)

    cli("verify", "sunday.snap").fails(3, "packet 2: ", "checksum of the page digests is 0x")


@pytest.mark.usefixtures("place")
def test_a_parent_with_page_digests_is_not_decoded():
    """A save does not meet damage in its stored bytes; with differences it does."""
    snapmig.save("sunday.ram", "old.snap", page_digests=True, packet_size=PACKET, jobs=1)
    damage(Path("old.snap"), 2)
    snapmig.save("monday.ram", "new.snap", parent="old.snap", jobs=1)
    with pytest.raises(snapmig.CorruptSnapshotError, match=r"old\.snap: packet 2: offset"):
        snapmig.save("monday.ram", "other.snap", parent="old.snap", deltas=True, jobs=1)


@pytest.mark.usefixtures("place")
def test_a_diff_by_page_digests_decodes_nothing():
    """A comparison does not meet damaged stored bytes; damaged digests are refused."""
    for name in ("sunday", "monday"):
        way = {"page_digests": True, "packet_size": PACKET, "jobs": 1}
        snapmig.save(f"{name}.ram", f"{name}.d", **way)
    damage(Path("sunday.d"), 2)

    assert snapmig.diff("sunday.d", "monday.d", jobs=1).changed_pages == 4
    digests.damage("monday.d", 5)
    with pytest.raises(snapmig.CorruptSnapshotError, match=r"monday\.d: packet 5: .*page digests"):
        snapmig.diff("sunday.d", "monday.d", jobs=1)


def test_a_damaged_record_of_a_parent_is_told(place, cli):
    """A parent's record is checked when a page of it is needed; verify also checks the index."""
    raw = bytearray((place / "sunday.snap").read_bytes())
    raw[8192 + 7 * 104 + 40] ^= 1
    (place / "sunday.snap").write_bytes(raw)
    outcome = cli("verify", "tuesday.snap")

    outcome.fails(
        3,
        "/sunday.snap: packet 7: index record's checksum is",
        "/sunday.snap: index digest is",
        out="tuesday.snap: damaged, 1 of 16 packets\n  ram at 0x70000, 64.0 KiB\n",
    )
    cli("restore", "tuesday.snap", "new").fails(3)


def test_a_damaged_record_is_no_harm_to_other_packets(place):
    """Records are checked together, but their neighbours can still be read."""
    raw = bytearray((place / "sunday.snap").read_bytes())
    raw[8192 + 5 * 104 + 40] ^= 1
    (place / "sunday.snap").write_bytes(raw)
    with snapmig.open("tuesday.snap") as snapshot:
        found = snapshot.read(0, 5 * PACKET) + snapshot.read(6 * PACKET, SIZE)
        with pytest.raises(snapmig.CorruptSnapshotError, match=r"sunday\.snap: packet 5: index"):
            snapshot.read(5 * PACKET, 1)

    assert found == NEWEST[: 5 * PACKET] + NEWEST[6 * PACKET :]


def test_a_truncated_parent_is_named(place, cli):
    """A truncated parent is corrupt, and the error is about that file."""
    os.truncate(place / "sunday.snap", 3 * PACKET)
    outcome = cli("restore", "tuesday.snap", "new")

    outcome.fails(3, "/sunday.snap: file has 196608 bytes")


def test_reading_goes_on_beside_damage_in_a_parent(place):
    """Random access returns sound data and refuses damaged data."""
    damage(place / "sunday.snap", 5)
    with snapmig.open("tuesday.snap") as snapshot:
        found = snapshot.read(0, 5 * PACKET) + snapshot.read(6 * PACKET, SIZE)
        with pytest.raises(snapmig.CorruptSnapshotError) as caught:
            snapshot.read(5 * PACKET, 1)

    assert (found, caught.value.packet) == (NEWEST[: 5 * PACKET] + NEWEST[6 * PACKET :], 5)


@pytest.mark.parametrize("verb", ["merge", "repack", "rebase"])
def test_a_damaged_record_does_not_become_zeros(place, cli, verb):
    """A record without its kinds looks like a packet of zeros: nothing is made from it."""
    raw = bytearray((place / "tuesday.snap").read_bytes())
    raw[8192 + 3 * 104 + 96 : 8192 + 4 * 104] = bytes(8)
    (place / "tuesday.snap").write_bytes(raw)
    more = {"rebase": ["--parent", "sunday.snap"]}.get(verb, ["new"])
    outcome = cli(verb, "tuesday.snap", *more)

    outcome.fails(3)
    assert not (place / "new").exists()
    assert (place / "tuesday.snap").read_bytes() == bytes(raw)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("big.ram", "new", "--parent", "sunday.snap"), 2, "RAM blocks are 'ram' of"),
        (
            ("monday.ram", "new", "--parent", "sunday.snap", "--packet-size", "1M"),
            2,
            "packets have 1048576 bytes, the parent's 65536",
        ),
        (
            ("monday.ram", "monday.snap", "-f", "--parent", "monday.snap"),
            2,
            "monday.snap: parent and snapshot are the same file",
        ),
        (("monday.ram", "new", "--parent", "sunday.ram"), 3, "sunday.ram: not a snapshot"),
        (("monday.ram", "new", "--parent", "none"), 1, "none: No such file"),
        (("monday.ram", "new", "--parent", "."), 1, ".: not a regular file but a directory"),
    ],
    ids=range(6),
)
def test_a_save_with_a_parent_that_can_not_be(place, cli, arguments, code, words):
    """A file that can't be this image's parent is refused, and nothing is made or replaced."""
    ram.write(place / "big.ram", OLD + bytes(ram.PAGE))
    before = {path.name: path.stat().st_mtime_ns for path in place.iterdir()}
    outcome = cli("save", *arguments)

    outcome.fails(code, words)
    assert before == {path.name: path.stat().st_mtime_ns for path in place.iterdir()}


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("name", ["monday.snap", "sunday.snap"])
@pytest.mark.parametrize("verb", ["merge", "repack"])
def test_what_a_snapshot_builds_on_is_not_replaced(cli, verb, name):
    """Merge and repack refuse a parent as their output, even by force."""
    outcome = cli(verb, "tuesday.snap", name, "-f")

    outcome.fails(2)
    assert whole("tuesday.snap") == NEWEST


@pytest.mark.parametrize("name", ["tuesday.snap", "monday.snap"])
def test_a_rebase_onto_a_descendant_is_refused(place, cli, name):
    """A snapshot can't build on its own descendant, or on itself."""
    before = (place / "monday.snap").read_bytes()
    outcome = cli("rebase", "monday.snap", "--parent", name)

    outcome.fails(2, err=f"snapmig: {name}: builds on monday.snap, or is it\n")
    assert (place / "monday.snap").read_bytes() == before


@pytest.mark.usefixtures("place")
def test_a_rebased_snapshot_is_no_parent_any_more(cli):
    """The child of a rebased snapshot reports its parent as missing."""
    snapmig.merge("sunday.snap", "other.snap", jobs=1)
    snapmig.rebase("monday.snap", parent="other.snap", jobs=1)
    outcome = cli("restore", "tuesday.snap", "new")

    outcome.fails(1, "needs its parent")


@root
@pytest.mark.parametrize(
    "arguments", [("merge", "tuesday.snap"), ("repack", "sunday.snap", "--compression", "none")]
)
def test_a_full_filesystem(place, cli, small_tmpfs, arguments):
    """On a full filesystem, merge and repack fail with path and space, and leave nothing."""
    out = small_tmpfs("64k") / "out"
    outcome = cli(arguments[0], place / arguments[1], out, *arguments[2:])

    outcome.fails(1, start=f"snapmig: {out}: no space left on the filesystem, up to 1.")
    assert list(out.parent.iterdir()) == []


@root
def test_a_rebase_on_a_full_filesystem_keeps_the_old_file(place, cli, small_tmpfs):
    """A rebase that finds no space leaves the snapshot as it was."""
    folder = small_tmpfs("8M")
    for name in ("sunday.snap", "monday.snap"):
        shutil.copy(place / name, folder)
    with (folder / "filler").open("wb") as file:
        free = os.statvfs(folder).f_bavail * 4096
        os.posix_fallocate(file.fileno(), 0, free - 8192)
    before = (folder / "monday.snap").read_bytes()
    ram.write(place / "noise", ram.noise(SIZE // ram.PAGE))
    snapmig.save(place / "noise", place / "noise.snap", packet_size=PACKET, jobs=1)
    outcome = cli("rebase", folder / "monday.snap", "--parent", place / "noise.snap")

    outcome.fails(1, "no space left")
    assert (folder / "monday.snap").read_bytes() == before
    assert {path.name for path in folder.iterdir()} == {"filler", "monday.snap", "sunday.snap"}
    gc.collect()  # an index that is still mapped keeps its filesystem busy


@pytest.mark.parametrize("verb", ["merge", "rebase"])
def test_a_killed_worker_leaves_the_old_file(shm, big, big_snapshot, verb):
    """Exit code 5, and the snapshot is unchanged, with nothing beside it."""
    snapmig.save(big, shm / "s", parent=big_snapshot)
    before = (shm / "s").read_bytes()
    arguments = {
        "merge": ("merge", "-f", shm / "s", shm / "s", "--follow-remote-parents"),
        "rebase": ("rebase", shm / "s", "--parent", shm / "other", "--follow-remote-parents"),
    }
    snapmig.save(big, shm / "other", level=0)
    with stopped_midway(*arguments[verb]) as (process, workers):
        processes.send(signal.SIGKILL, workers[:1])
        outcome = program.end(process, timeout=30)

    outcome.fails(5, "worker 0 was ended by SIGKILL")
    assert (shm / "s").read_bytes() == before
    assert sorted(path.name for path in shm.iterdir()) == ["other", "s"]


def test_a_chain_restored_in_place(place):
    """An image with older contents becomes that of the youngest snapshot."""
    ram.write(place / "r", b"?" * SIZE)
    snapmig.restore("tuesday.snap", "r", in_place=True)

    assert (place / "r").read_bytes() == NEWEST


def test_one_ram_block_of_a_chain(place):
    """A RAM block alone comes from the chain as well."""
    blocks = [(snapmig.RamBlock(name, SIZE), f"{name}.ram") for name in ("sunday", "monday")]
    snapmig.save(blocks, "1", jobs=1)
    other = [(block, "tuesday.ram") for block, _ in blocks]
    snapmig.save(other, "2", parent="1", jobs=1)
    snapmig.restore("2", "r", block="monday", jobs=1)

    assert (place / "r").read_bytes() == NEWEST


def test_a_long_chain(place):
    """Fifteen snapshots on top of each other are read like one."""
    content = bytearray(OLD)
    for day in range(15):
        content[day * 60_000] ^= 1
        ram.write(place / "a", bytes(content))
        parent = f"{day - 1}" if day else "sunday.snap"
        snapmig.save("a", f"{day}", parent=parent, jobs=1)

    assert (whole("14"), len(snapmig.chain("14"))) == (bytes(content), 16)


@pytest.mark.usefixtures("place")
def test_a_chain_that_is_too_long_is_refused(monkeypatch, cli):
    """Each snapshot of a chain is an open file: there is a limit, with a sentence."""
    monkeypatch.setattr("snapmig.chains.lookup.MAX_CHAIN", 2)
    outcome = cli("restore", "tuesday.snap", "new")

    outcome.fails(1, err="snapmig: tuesday.snap: builds on 2 snapshots or more\n")


@pytest.fixture
def file_limit():
    """Give a function to limit the number of open files, up to the process's hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda count: resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("place")
def test_a_chain_has_as_many_files_open_as_it_needs(file_limit):
    """A process raises its limit of open files if it may."""
    limit = len(list(Path("/proc/self/fd").iterdir())) + 20  # tests before may have left some open
    file_limit(limit)

    assert whole("tuesday.snap") == NEWEST
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > limit


def test_a_chain_with_more_files_than_there_may_be(place):
    """If a process may not open so many files, the sentence says so."""
    path = place / "tuesday.snap"
    result = program.run(
        "restore",
        path,
        place / "new",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)),
        cwd=Path(snapmig.__file__).parents[1],
    )

    result.fails(
        1, err=f"snapmig: {path}: builds on 1 snapshots or more, too many for 200 open files\n"
    )


@pytest.mark.parametrize("words", NEEDS_PARENTS)
def test_a_parent_whose_index_was_exchanged_is_refused(place, cli, words):
    """A parent with the right id and another root is not the one the child was made from."""
    raw = bytearray((place / "monday.snap").read_bytes())
    other = bytearray((place / "sunday.snap").read_bytes())
    other[32:48] = raw[32:48]
    struct.pack_into("<I", other, 12, 0)
    struct.pack_into("<I", other, 12, zlib.crc32(other[:4096]))
    (place / "monday.snap").write_bytes(other)
    root = hashlib.sha256(other[:4096]).hexdigest()
    outcome = cli(*words.split())

    outcome.fails(
        3,
        "/monday.snap: is not the parent that tuesday.snap was made of",
        f"its root is {root}, expected ",
    )
    assert not (place / "new").exists()
