"""Facts about saves and restores that are gone on with after they ended early."""

import os
import signal
import stat

import pytest

import snapmig
from snapmig.container.format import SUPERBLOCK_SIZE, superblock_fields
from tests.support import processes, program, ram
from tests.support.processes import stopped_midway, wait_for
from tests.support.steady import STEADY

MIB = 1 << 20
PACKET = 64 << 10
RAM = ram.mixed(12 * MIB)
OWN = {"checksum", "snapshot_id", "created_ns"}
"""Fields of the superblock that differ between any two snapshots."""
EQUAL = {"packet_size": PACKET, **STEADY}
WAYS = {
    "fixed": EQUAL,
    "packed": {**EQUAL, "layout": "packed"},
    "digests": {**EQUAL, "page_digests": True},
    "packed-digests": {**EQUAL, "page_digests": True, "layout": "packed"},
    "zstd": {"packet_size": PACKET, "compression": "zstd"},
    "none": {"packet_size": PACKET, "compression": "none"},
}


class StopError(Exception):
    """The end of a run in its middle."""


def stop_at(size):
    """Return a progress callback that ends the run once so many bytes are done."""

    def progress(state):
        if state.done_bytes >= size:
            raise StopError

    return progress


def interrupted(image, snapshot, size=4 * MIB, **options):
    """Begin a save that ends early; return the file that it leaves."""
    with pytest.raises(StopError):
        snapmig.save(image, snapshot, resume=True, jobs=2, progress=stop_at(size), **options)
    (left,) = snapshot.parent.glob(f".{snapshot.name}.*.resume")
    return left


def resumed(image, snapshot, **options):
    """Go on with a save."""
    return snapmig.save(image, snapshot, resume=True, jobs=2, **options)


def common(path):
    """Return a snapshot's bytes without those that no two snapshots have in common."""
    data = bytearray(path.read_bytes())
    for offset, size, name in superblock_fields():
        if name in OWN:
            data[offset : offset + size] = bytes(size)
    return bytes(data)


@pytest.fixture
def image(shm):
    """Give an image."""
    return ram.write(shm / "a", RAM)


@pytest.mark.parametrize("way", WAYS)
def test_a_save_gone_on_with_equals_an_uninterrupted_one(shm, image, way):
    """The file is the same byte for byte, but for its id, its time and one checksum."""
    snapmig.save(image, shm / "whole", **WAYS[way])
    interrupted(image, shm / "s", **WAYS[way])

    result = resumed(image, shm / "s", **WAYS[way])

    assert result.kept_packets > 0
    assert common(shm / "s") == common(shm / "whole")


@pytest.mark.parametrize("deltas", [None, True])
@pytest.mark.parametrize("digests", [False, True])
def test_an_incremental_save_gone_on_with_equals_an_uninterrupted_one(shm, image, digests, deltas):
    """Pages of the parent, whole packets of it and differences from it are the same."""
    snapmig.save(image, shm / "parent", packet_size=PACKET, page_digests=digests)
    changed = bytearray(RAM)
    for at in range(0, len(RAM), 50_000):
        changed[at] ^= 1
    ram.write(image, bytes(changed))
    way = {"parent": shm / "parent", "deltas": deltas, **STEADY}
    snapmig.save(image, shm / "whole", **way)
    interrupted(image, shm / "s", **way)

    assert resumed(image, shm / "s", **way).kept_packets > 0
    assert common(shm / "s") == common(shm / "whole")


@pytest.mark.parametrize("layout", ["fixed", "packed"])
def test_a_killed_save_is_gone_on_with(shm, big, cli, layout):
    """What was saved before SIGKILL is kept."""
    arguments = ("save", big, shm / "s", "--level", 3, "--layout", layout, "--resume")
    with processes.running(*arguments, "-j", 2) as process:
        wait_for(lambda: any(ram.disk_bytes(path) > 4 * MIB for path in shm.glob(".s.*.resume")))
        process.kill()

    assert cli(*arguments, "-j", 2, "--json").ok().json["kept_packets"] > 0
    cli("verify", shm / "s").ok()
    assert [path.name for path in shm.iterdir()] == ["s"]


def test_an_interruption_says_what_to_do(shm, big):
    """The message ends with it."""
    with stopped_midway("save", big, shm / "s", "--resume") as (process, _):
        process.send_signal(signal.SIGINT)
        err = program.end(process, timeout=30).err

    assert err == (
        "snapmig: interrupted by SIGINT; what is done is kept, the same command goes on from here\n"
    )


@pytest.mark.parametrize("layout", ["fixed", "packed"])
def test_an_image_that_changed_is_saved_as_it_is_now(shm, image, layout):
    """Packets with other pages are saved again, also where pages became zero or random."""
    way = {**EQUAL, "layout": layout}
    interrupted(image, shm / "s", 8 * MIB, **way)
    changed = bytearray(RAM)
    changed[0:MIB] = bytes(MIB)
    changed[5 * MIB : 6 * MIB] = os.urandom(MIB)
    changed[7 * MIB : 8 * MIB] = b"\1" * MIB
    changed[9 * MIB] ^= 1
    ram.write(image, bytes(changed))
    snapmig.save(image, shm / "whole", **way)

    resumed(image, shm / "s", **way)

    assert common(shm / "s") == common(shm / "whole")


@pytest.mark.parametrize("way", ["fixed", "packed", "digests"])
@pytest.mark.parametrize("place", ["index", "digests", "data", "superblock", "tables"])
def test_nothing_in_a_partial_file_is_believed(shm, image, way, place):
    """Damage anywhere changes nothing of the result."""
    snapmig.save(image, shm / "whole", **WAYS[way])
    left = interrupted(image, shm / "s", 8 * MIB, **WAYS[way])
    facts = snapmig.info(shm / "whole")
    start = {
        "superblock": 0,
        "tables": SUPERBLOCK_SIZE,
        "index": 2 * SUPERBLOCK_SIZE,
        "digests": 4 * SUPERBLOCK_SIZE + facts.packet_size,
        "data": MIB,
    }[place]
    with left.open("r+b") as file:
        for at in range(start, start + 2 * MIB, 1001):
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 0x41]) if byte else b"")

    resumed(image, shm / "s", **WAYS[way])

    assert common(shm / "s") == common(shm / "whole")


@pytest.mark.parametrize("layout", ["fixed", "packed"])
@pytest.mark.parametrize("size", [1, 5000, 70_000, MIB])
def test_a_file_that_was_cut_off_is_made_whole(shm, image, layout, size):
    """A partial file of any length will do."""
    way = {**EQUAL, "layout": layout}
    snapmig.save(image, shm / "whole", **way)
    os.truncate(interrupted(image, shm / "s", **way), size)

    resumed(image, shm / "s", **way)

    assert common(shm / "s") == common(shm / "whole")


def test_other_settings_begin_anew(shm, image):
    """Nothing is kept then, and a warning says so."""
    interrupted(image, shm / "s")

    result = resumed(image, shm / "s", level=3)

    words = "nothing of an interrupted run is kept: it had other settings"
    assert (result.kept_packets, words in result.warnings[0]) == (0, True)
    assert sorted(path.name for path in shm.iterdir()) == ["a", "s"]


def test_a_complete_snapshot_without_its_name_is_not_saved_again(shm, image):
    """If only the name was taken, the same command with --force keeps all packets."""

    def taken(_state):
        (shm / "s").write_bytes(b"mine")

    with pytest.raises(snapmig.DestinationExistsError, match="goes on from here"):
        snapmig.save(image, shm / "s", resume=True, jobs=1, progress=taken)

    result = resumed(image, shm / "s", force=True)
    assert result.kept_packets == sum(result.packets.values()) - result.packets["empty"]


def test_a_save_without_resume_removes_what_one_left(shm, image):
    """A finished snapshot leaves nothing to go on with."""
    interrupted(image, shm / "s")

    snapmig.save(image, shm / "s")

    assert sorted(path.name for path in shm.iterdir()) == ["a", "s"]


def test_two_runs_never_write_one_file(shm, big, cli):
    """The second one ends with an error, and the first goes on."""
    with stopped_midway("save", big, shm / "s", "--resume") as (process, workers):
        cli("save", big, shm / "s", "--resume").fails(1, "another run is writing")
        processes.send(signal.SIGCONT, workers)
        program.end(process, timeout=60).ok()


def test_a_partial_file_is_for_its_owner_only(shm, image):
    """Mode 0600, also if somebody had changed it."""
    left = interrupted(image, shm / "s")
    left.chmod(0o666)

    with pytest.raises(StopError):
        snapmig.save(image, shm / "s", resume=True, jobs=1, progress=stop_at(0))

    assert stat.S_IMODE(left.stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["symlink", "directory", "fifo", "owner"])
def test_something_else_under_its_name_is_refused(shm, image, cli, kind):
    """Neither a link, nor a device, nor another user's file is written to."""
    left = interrupted(image, shm / "s")
    left.unlink()
    (shm / "precious").write_bytes(b"mine")
    if kind == "owner":
        left.write_bytes(b"theirs")
        os.chown(left, 1234, 1234)
    else:
        {
            "symlink": lambda: left.symlink_to("precious"),
            "directory": left.mkdir,
            "fifo": lambda: os.mkfifo(left),
        }[kind]()

    cli("save", image, shm / "s", "--resume").fails(1, "is not a file of this user's")
    assert (shm / "precious").read_bytes() == b"mine"


def test_a_second_name_of_a_finished_snapshot_is_not_written_to(shm, image):
    """A partial file with a hard link is a finished snapshot's: its name is removed."""
    left = interrupted(image, shm / "s")
    snapmig.save(image, shm / "done")
    before = (shm / "done").read_bytes()
    left.unlink()
    os.link(shm / "done", left)

    assert resumed(image, shm / "s").kept_packets == 0
    assert (shm / "done").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("qmp:/nowhere", "s"), "a running guest has other memory by now"),
        (("a", "s", "--share", "1/2"), "a share is saved from its start again"),
    ],
)
@pytest.mark.usefixtures("image")
def test_what_has_no_resume_says_so(shm, cli, monkeypatch, arguments, words):
    """One sentence, exit code 2."""
    monkeypatch.chdir(shm)
    cli("save", *arguments, "--resume").fails(2, words)


def restore_interrupted(snapshot, image, size=4 * MIB, **options):
    """Begin a restore that ends early; return the file that it leaves."""
    with pytest.raises(StopError):
        snapmig.restore(snapshot, image, resume=True, jobs=2, progress=stop_at(size), **options)
    (left,) = image.parent.glob(f".{image.name}.*.resume")
    return left


@pytest.fixture
def snapshot(shm, image):
    """Give a snapshot."""
    snapmig.save(image, shm / "s", packet_size=PACKET)
    return shm / "s"


@pytest.mark.parametrize("form", [{}, {"block": "ram"}], ids=["all", "block"])
def test_a_restore_is_gone_on_with(shm, snapshot, form):
    """Packets that are right are kept, and the image is the same as without the interruption."""
    snapmig.restore(snapshot, shm / "whole", **form)
    restore_interrupted(snapshot, shm / "r", **form)

    result = snapmig.restore(snapshot, shm / "r", **form, resume=True, jobs=2)

    assert result.kept_packets > 0
    assert (shm / "r").read_bytes() == (shm / "whole").read_bytes()


def test_wrong_pages_are_restored_again(shm, snapshot):
    """Bytes lost or damaged in a partial image are found by their digests."""
    left = restore_interrupted(snapshot, shm / "r", 8 * MIB)
    with left.open("r+b") as file:
        for at in range(0, 8 * MIB, 300_000):
            file.seek(at)
            file.write(b"wrong")

    snapmig.restore(snapshot, shm / "r", resume=True)

    assert (shm / "r").read_bytes() == RAM


def test_a_restore_of_another_snapshot_begins_anew(shm, image, snapshot):
    """The partial image of one snapshot is not gone on with for another."""
    restore_interrupted(snapshot, shm / "r")
    ram.write(image, RAM[::-1])
    snapmig.save(image, shm / "t")

    result = snapmig.restore(shm / "t", shm / "r", resume=True)

    assert (result.kept_packets, len(result.warnings)) == (0, 1)
    assert (shm / "r").read_bytes() == RAM[::-1]


def test_in_place_only_what_is_wrong_is_written(shm, snapshot):
    """An existing image with one wrong page has all other packets left alone."""
    wrong = bytearray(RAM)
    wrong[3 * MIB] ^= 1
    ram.write(shm / "r", bytes(wrong))

    result = snapmig.restore(snapshot, shm / "r", resume=True, in_place=True)

    assert (result.kept_packets > 50, (shm / "r").read_bytes()) == (True, RAM)


def test_an_image_without_fixed_places_is_not_resumed(shm, snapshot, cli):
    """One sentence, exit code 2."""
    cli(
        "restore",
        snapshot,
        shm / "r",
        "--format",
        "elf",
        "--address",
        "ram=0",
        "--arch",
        "x86_64",
        "--resume",
    ).fails(2, "an image of the format elf is restored from its start, not resumed")


def test_the_lines_of_both(shm, image, cli):
    """Save and restore tell what they kept."""
    interrupted(image, shm / "s")
    cli("save", image, shm / "s", "--resume").ok("packets of an interrupted run")
    restore_interrupted(shm / "s", shm / "r")
    cli("restore", shm / "s", shm / "r", "--resume").ok("packets that were right already")


def test_without_holes_a_save_begins_anew(shm, image, monkeypatch):
    """Where bytes beside the packets can't be freed, nothing of an earlier run is used."""
    interrupted(image, shm / "s")
    monkeypatch.setattr("snapmig.container.writer.punch_hole", lambda *_: False)

    result = resumed(image, shm / "s")

    assert (result.kept_packets, len(result.warnings)) == (0, 1)
    snapmig.verify(shm / "s")
