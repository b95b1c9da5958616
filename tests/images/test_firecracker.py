"""Facts about Firecracker's memory files and vmstates."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapmig.errors import ImageChangedError, SnapmigError, UsageError
from snapmig.geometry import RamBlock
from snapmig.images.file import ImageFile
from snapmig.images.formats import find_format, firecracker, open_image
from snapmig.images.plan import Content
from tests.support.firecracker import AARCH64, X86_64, crc64, memory, vmstate

MIB, GIB = 1 << 20, 1 << 30


def contents(image) -> bytes:
    """Return all RAM of an image."""
    size = sum(block.size for block in image.blocks)
    found = bytearray(size)
    reader = image.opener()()
    for start, stop in reader.extents(0, size):
        found[start:stop] = bytes(reader.view(start, stop))
    return bytes(found)


def opened(path: Path):
    """Open a memory file as this format, whatever it looks like."""
    return firecracker.open_image(ImageFile(str(path)))


@pytest.fixture
def pair(tmp_path):
    """Give a memory file of 4 MiB with a vmstate named after it."""
    (tmp_path / "guest.mem.vmstate").write_bytes(vmstate())
    return memory(tmp_path / "guest.mem")


def test_the_sum_is_that_of_firecracker():
    """A value from Firecracker's own documentation, and the published check value."""
    assert firecracker._crc64(bytes([123] * 16)) == 0x29D5_3572_1632_6566
    assert firecracker._crc64(b"123456789") == 0xE9C6_D914_C4B8_D9CA


def test_memory_is_what_the_file_has(pair):
    """RAM is the file's bytes in their order."""
    image = opened(pair)

    assert contents(image) == pair.read_bytes()
    assert image.blocks == (RamBlock.at(0, 4 * MIB),)
    image.close()


def test_the_vmstate_is_kept_as_it_is(pair):
    """The state is an attachment, byte for byte."""
    image = opened(pair)

    assert image.attachments == {"vmstate": vmstate()}
    image.close()


def test_holes_are_not_data(pair):
    """The parent skips holes."""
    image = opened(pair)

    assert image.next_data(4096) == MIB
    assert image.next_data(2 * MIB) is None
    image.close()


@pytest.mark.parametrize(
    ("size", "magic", "expected"),
    [
        (3 * GIB, X86_64, [(0, 3 * GIB)]),
        (3 * GIB + MIB, X86_64, [(0, 3 * GIB), (4 * GIB, MIB)]),
        (8 * GIB, X86_64, [(0, 3 * GIB), (4 * GIB, 5 * GIB)]),
        (255 * GIB, X86_64, [(0, 3 * GIB), (4 * GIB, 252 * GIB)]),
        (300 * GIB, X86_64, [(0, 3 * GIB), (4 * GIB, 252 * GIB), (512 * GIB, 45 * GIB)]),
        (8 * GIB, AARCH64, [(2 * GIB, 8 * GIB)]),
        (300 * GIB, AARCH64, [(2 * GIB, 254 * GIB), (512 * GIB, 46 * GIB)]),
    ],
)
def test_regions_skip_the_gaps_of_addresses(tmp_path, size, magic, expected):
    """RAM skips the addresses of devices in the guest, but not in the file."""
    (tmp_path / "mem.vmstate").write_bytes(vmstate(magic))
    image = opened(memory(tmp_path / "mem", size, {}))

    assert [(block.pieces[0].gpa, block.size) for block in image.blocks] == expected
    image.close()


def test_an_older_state_says_where_its_regions_are(tmp_path):
    """Before August 2025 the gap was 768 MiB, and states have address and size side by side."""
    size, low = 8 * GIB, 13 * GIB // 4
    body = b"x" + struct.pack("<QQQ", 0, low, 0) + struct.pack("<QQQ", 4 * GIB, size - low, low)
    (tmp_path / "mem.vmstate").write_bytes(vmstate(body=body))
    image = opened(memory(tmp_path / "mem", size, {}))

    assert [(block.pieces[0].gpa, block.size) for block in image.blocks] == [
        (0, low),
        (4 * GIB, size - low),
    ]
    image.close()


@pytest.mark.parametrize("magic", [X86_64, X86_64 + 5, AARCH64])
@pytest.mark.parametrize("before", [b"", b"\0", b"\1"])
def test_magics_of_all_versions_are_known(tmp_path, magic, before):
    """Old versions count in the lowest bits; new ones have a byte of packing before."""
    (tmp_path / "mem.vmstate").write_bytes(vmstate(magic, before=before))

    assert open_image(str(memory(tmp_path / "mem"))).format == "firecracker"


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("guest.mem", "guest.mem.vmstate"),
        ("guest.mem", "guest.vmstate"),
        ("guest.mem", "guest.snap"),
        ("anything", "anything.vmstate"),
        ("mem_file", "snapshot_file"),
        ("mem", "vmstate"),
        ("vm.mem", "vm.snap"),
        ("snapshot_mem", "snapshot_vmstate"),
        ("memory", "vmstate"),
    ],
)
def test_a_memory_file_is_recognised_by_its_vmstate(tmp_path, name, state):
    """Usual names of pairs are found without being told."""
    (tmp_path / state).write_bytes(vmstate())

    image = open_image(str(memory(tmp_path / name)))

    assert (image.format, image.attachments) == ("firecracker", {"vmstate": vmstate()})
    image.close()


@pytest.mark.parametrize(
    ("name", "state", "content"),
    [
        ("guest.mem", "other.vmstate", vmstate()),
        ("guest.ram", "vmstate", vmstate()),
        ("guest.mem", "guest.mem.vmstate", b"x" * 100),
        ("guest.mem", "guest.mem.vmstate", b""),
        ("guest.mem", "guest.mem.vmstate", vmstate()[:15]),
    ],
)
def test_other_files_are_not_taken_for_memory(tmp_path, name, state, content):
    """A raw image stays one, even with some vmstate near."""
    (tmp_path / state).write_bytes(content)

    assert open_image(str(memory(tmp_path / name))).format == "raw"


def test_a_file_that_is_not_whole_mib_is_raw(tmp_path):
    """No guest of Firecracker has such RAM."""
    (tmp_path / "mem.vmstate").write_bytes(vmstate())

    assert open_image(str(memory(tmp_path / "mem", MIB + 4096))).format == "raw"


def test_the_only_vmstate_is_taken_when_asked_for(tmp_path):
    """With the format given, any name will do if there is one vmstate."""
    (tmp_path / "whatever").write_bytes(vmstate())

    assert open_image(str(memory(tmp_path / "a")), "firecracker").attachments["vmstate"]


def test_a_vmstate_may_be_named(tmp_path):
    """Given a vmstate, nothing is searched."""
    (tmp_path / "one").write_bytes(vmstate(body=b"1" * 20))
    (tmp_path / "two").write_bytes(vmstate(body=b"2" * 20))
    path = str(memory(tmp_path / "mem"))

    image = firecracker.open_layers([path], str(tmp_path / "two"))

    assert image.attachments["vmstate"] == vmstate(body=b"2" * 20)
    image.close()


def test_a_directory_with_one_pair_is_a_snapshot(pair):
    """A directory stands for the memory file in it."""
    image = open_image(str(pair.parent))

    assert (image.format, contents(image)) == ("firecracker", pair.read_bytes())
    image.close()


@pytest.mark.parametrize("extra", ["memory", "vmstate"])
def test_a_directory_with_more_is_refused(pair, extra):
    """The pair must be unambiguous."""
    if extra == "memory":
        memory(pair.parent / "disk")
    else:
        (pair.parent / "second").write_bytes(vmstate())

    with pytest.raises(SnapmigError, match=r"directory has .* expected one of each"):
        open_image(str(pair.parent), "firecracker")


def test_layers_are_read_one_upon_the_other(tmp_path):
    """Base, then diffs: holes keep, written zeros make zero; the last vmstate is the guest's."""
    (tmp_path / "diff2.vmstate").write_bytes(vmstate(body=b"last" * 5))
    (tmp_path / "base.vmstate").write_bytes(vmstate())
    base = memory(tmp_path / "base", 2 * MIB, {0: b"a" * 8192, MIB: b"b" * 4096})
    one = memory(tmp_path / "diff1", 2 * MIB, {4096: b"c" * 4096})
    two = memory(tmp_path / "diff2", 2 * MIB, {MIB: bytes(4096)})

    image = firecracker.open_layers([str(base), str(one), str(two)])

    expected = np.zeros(2 * MIB, np.uint8)
    expected[:4096], expected[4096:8192] = ord("a"), ord("c")
    assert contents(image) == expected.tobytes()
    assert image.attachments["vmstate"] == vmstate(body=b"last" * 5)
    image.close()


def test_layers_of_other_sizes_are_refused(pair, tmp_path):
    """A diff is as long as its base."""
    diff = memory(tmp_path / "diff.mem", 5 * MIB)

    with pytest.raises(SnapmigError, match=r"file has 4194304 bytes, its base .* has "):
        firecracker.open_layers([str(diff), str(pair)])


def test_no_layers_are_refused():
    """There must be a memory file."""
    with pytest.raises(UsageError, match="expected a memory file"):
        firecracker.open_layers([])


def test_a_change_of_the_vmstate_is_noticed(pair):
    """RAM and state are of one moment."""
    image = opened(pair)
    state = pair.with_name("guest.mem.vmstate")
    os.utime(state, (1, 1))

    with pytest.raises(ImageChangedError, match="vmstate"):
        image.check_unchanged()
    image.close()


def content_of(image) -> Content:
    """Return a snapshot's content for an image."""
    return Content(image.blocks, dict(image.attachments), 128, lambda _: iter(()))


def test_a_restore_makes_memory_and_vmstate(pair):
    """The plan has the same size, the blocks end to end, and the state beside it."""
    image = opened(pair)
    plan = find_format("firecracker").plan_image(content_of(image))

    assert (plan.size, plan.block_offsets, plan.member) == (4 * MIB, (0,), None)
    assert plan.companions == {".vmstate": vmstate()}
    image.close()


def test_large_memory_is_restored_without_the_gap(tmp_path):
    """Two regions follow each other in the file."""
    (tmp_path / "mem.vmstate").write_bytes(vmstate())
    image = opened(memory(tmp_path / "mem", 5 * GIB, {}))

    plan = find_format("firecracker").plan_image(content_of(image))

    assert (plan.size, plan.block_offsets) == (5 * GIB, (0, 3 * GIB))
    image.close()


def test_other_guests_can_not_become_firecracker():
    """Without a vmstate there is nothing to resume."""
    content = Content((RamBlock("ram", MIB),), {}, 128, lambda _: iter(()))

    with pytest.raises(UsageError, match="needs a microVM's vmstate"):
        firecracker.plan_image(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (vmstate()[:-1], "cut short or damaged"),
        (vmstate()[:50], "cut short or damaged"),
        (vmstate() + b"\0" * 8 + b"x", "cut short or damaged"),
        (vmstate()[:40] + b"?" + vmstate()[41:], "cut short or damaged"),
    ],
)
def test_a_damaged_vmstate_is_refused(tmp_path, content, words):
    """Its own checksum finds missing or changed bytes."""
    (tmp_path / "mem.vmstate").write_bytes(content)

    with pytest.raises(SnapmigError, match=words) as caught:
        open_image(str(memory(tmp_path / "mem")))
    assert caught.value.exit_code == 1


def test_a_named_vmstate_that_is_none_is_refused(tmp_path):
    """A file without the magic is something else."""
    (tmp_path / "state").write_bytes(b"x" * 100)

    with pytest.raises(SnapmigError, match="its magic is missing"):
        firecracker.open_layers([str(memory(tmp_path / "mem"))], str(tmp_path / "state"))


def test_a_huge_vmstate_is_not_read(tmp_path):
    """A file above Firecracker's own limit is no vmstate."""
    memory(tmp_path / "state", firecracker.MAX_VMSTATE_SIZE + 1, {0: vmstate()})

    with pytest.raises(SnapmigError, match="expected at most 10000000"):
        firecracker.open_layers([str(memory(tmp_path / "mem"))], str(tmp_path / "state"))


@pytest.mark.parametrize("size", [1, 4096, MIB - 1, 3 * MIB + 4096])
def test_a_memory_file_that_was_cut_is_refused(tmp_path, size):
    """RAM is whole MiB."""
    (tmp_path / "mem.vmstate").write_bytes(vmstate())

    with pytest.raises(SnapmigError, match=r"expected whole MiB: is it cut short\?"):
        open_image(str(memory(tmp_path / "mem", size, {})), "firecracker")


@pytest.mark.parametrize(("states", "words"), [([], "no vmstate"), (["x", "y"], "2 vmstate files")])
def test_it_must_be_clear_which_vmstate_is_meant(tmp_path, states, words):
    """Without a vmstate, or with several of other names, a sentence names the expected one."""
    for name in states:
        (tmp_path / name).write_bytes(vmstate())

    with pytest.raises(SnapmigError, match=rf"there is {words}.*expected mem\.vmstate$"):
        open_image(str(memory(tmp_path / "mem")), "firecracker")


def test_a_file_without_a_name_has_nothing_beside_it(tmp_path):
    """A descriptor's directory is not a snapshot's."""
    fd = os.open(memory(tmp_path / "mem"), os.O_RDONLY)

    with pytest.raises(SnapmigError, match="memory file has no name"):
        open_image(f"/proc/self/fd/{fd}", "firecracker")
    os.close(fd)


def test_a_pipe_of_that_name_is_not_waited_for(tmp_path):
    """A file beside a memory file is opened only if it is regular."""
    os.mkfifo(tmp_path / "mem.vmstate")
    os.mkfifo(tmp_path / "vmstate")

    assert open_image(str(memory(tmp_path / "mem"))).format == "raw"


@settings(max_examples=150)
@given(
    changes=st.lists(st.tuples(st.integers(0, 107), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 116),
    sealed=st.booleans(),
)
def test_any_change_of_a_vmstate_is_read_or_refused(tmp_path_factory, changes, cut, sealed):
    """Only the project's own errors are raised."""
    content = bytearray(vmstate())
    for at, value in changes:
        content[at] = value
    data = bytes(content[: len(content) - cut])
    if sealed:
        data += struct.pack("<Q", crc64(data))
    directory = tmp_path_factory.mktemp("fc")
    (directory / "mem.vmstate").write_bytes(data)
    path = memory(directory / "mem")
    image, problem = None, None
    try:
        image = open_image(str(path), "firecracker")
    except SnapmigError as error:
        problem = error
    if image is not None:
        assert image.attachments["vmstate"] == data
        image.close()
    else:
        assert problem.exit_code == 1


@pytest.mark.parametrize("name", ["mem", "vmstate"])
def test_links_in_a_directory_are_not_followed(tmp_path, name):
    """A planted link could lead to any file of this host."""
    folder = tmp_path / "folder"
    folder.mkdir()
    memory(folder / "mem")
    (folder / "vmstate").write_bytes(vmstate())
    open_image(str(folder)).close()
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)

    with pytest.raises(SnapmigError, match="not an image of a known format"):
        open_image(str(folder))


def test_a_vmstate_behind_a_link_is_not_taken(tmp_path):
    """A vmstate found beside a memory file must not be a link; one given by name may be."""
    memory(tmp_path / "mem")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "s").write_bytes(vmstate())
    (tmp_path / "mem.vmstate").symlink_to(tmp_path / "elsewhere" / "s")
    with pytest.raises(SnapmigError, match="no vmstate beside"):
        open_image(str(tmp_path / "mem"), "firecracker")
    firecracker.open_layers([str(tmp_path / "mem")], str(tmp_path / "mem.vmstate")).close()


def test_odd_files_in_a_directory_are_only_looked_at(tmp_path):
    """A FIFO beside a memory file does not delay the search for a vmstate."""
    memory(tmp_path / "mem")
    os.mkfifo(tmp_path / "vmstate")

    with pytest.raises(SnapmigError, match="no vmstate beside"):
        open_image(str(tmp_path / "mem"), "firecracker")
