"""Facts about Cloud Hypervisor's snapshot directories."""

import json
import os
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapmig.errors import ImageChangedError, SnapmigError, UsageError
from snapmig.geometry import RamBlock
from snapmig.images.formats import cloud_hypervisor, find_format, open_image
from snapmig.images.plan import Content
from tests.support.cloud_hypervisor import TABLE, make, nest, state

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def contents(image) -> bytes:
    """Return all RAM of an image."""
    size = sum(block.size for block in image.blocks)
    found = bytearray(size)
    reader = image.opener()()
    for start, stop in reader.extents(0, size):
        found[start:stop] = bytes(reader.view(start, stop))
    return bytes(found)


@pytest.fixture
def snapshot(tmp_path):
    """Give a snapshot directory of two zones."""
    return make(tmp_path / "snapshot", state(TABLE), config=b'{"cpus": {"boot_vcpus": 1}}')


def test_a_directory_is_recognised(snapshot):
    """The two JSON files identify it."""
    image = open_image(str(snapshot))

    assert image.format == "cloud-hypervisor"
    image.close()


def test_the_memory_file_stands_for_its_directory(snapshot):
    """Given the file with the ranges, the whole snapshot is opened."""
    image = open_image(str(snapshot / "memory-ranges"))

    assert image.format == "cloud-hypervisor"
    image.close()


def test_ranges_are_blocks_in_the_order_of_the_table(snapshot):
    """File offsets are running sums, addresses are kept."""
    image = open_image(str(snapshot))

    assert image.blocks == (
        RamBlock.at(4 * GIB, 64 * KIB),
        RamBlock.at(0, 128 * KIB),
    )
    assert contents(image) == (snapshot / "memory-ranges").read_bytes()
    image.close()


def test_config_and_state_are_kept_as_they_are(snapshot):
    """Both are attachments, byte for byte."""
    image = open_image(str(snapshot))

    assert image.attachments == {
        name: (snapshot / name).read_bytes() for name in ("config.json", "state.json")
    }
    image.close()


def test_ranges_that_follow_each_other_are_one_block(tmp_path):
    """Plugged memory comes in many small ranges."""
    table = [(at * 64 * KIB, 64 * KIB) for at in (7, 8, 9, 2, 3, 5)]
    image = open_image(str(make(tmp_path / "s", state(table), 384 * KIB)))

    assert [(block.pieces[0].gpa, block.size // KIB) for block in image.blocks] == [
        (7 * 64 * KIB, 192), (2 * 64 * KIB, 128), (5 * 64 * KIB, 64),
    ]  # fmt: skip
    image.close()


def test_holes_are_zero_and_skipped(tmp_path):
    """Holes of a sparse file of ranges are found."""
    image = open_image(str(make(tmp_path / "s", state([(0, 8 * MIB)]), 8 * MIB)))

    assert image.next_data(128 * KIB) is None
    image.close()


def test_mappings_that_are_all_in_the_table_are_fine(tmp_path):
    """A mapping may span ranges, and unplugged parts of virtio-mem are in none."""
    mappings = [(0, 192 * KIB, False), (64 * GIB, GIB, True)]
    table = [(64 * KIB, 128 * KIB), (0, 64 * KIB)]

    image = open_image(str(make(tmp_path / "s", state(table, mappings))))
    assert len(image.blocks) == 2
    image.close()


@pytest.mark.parametrize(
    ("mappings", "missing"),
    [
        ([(0, 128 * KIB, False), (8 * GIB, GIB, False), (4 * GIB, 64 * KIB, False)], 8 * GIB),
        ([(0, 129 * KIB, False)], 128 * KIB),
        ([(4 * GIB - KIB, 65 * KIB, False)], 4 * GIB - KIB),
    ],
)
def test_ram_that_stays_in_its_own_file_is_said(tmp_path, mappings, missing):
    """A named shared file is not copied into a snapshot; RAM would be missing."""
    with pytest.raises(SnapmigError, match=f"RAM from {missing:#x} is not in the snapshot"):
        open_image(str(make(tmp_path / "s", state(TABLE, mappings))))


def test_a_snapshot_without_ranges_says_where_ram_is(snapshot):
    """When all zones stay in their files there is no memory-ranges."""
    (snapshot / "memory-ranges").unlink()

    with pytest.raises(SnapmigError, match="there is no memory-ranges: all of the guest's RAM"):
        open_image(str(snapshot))


@pytest.mark.parametrize("name", ["config.json", "state.json"])
def test_a_directory_without_its_json_is_refused(snapshot, name):
    """Opened by the format's name, the missing part is reported."""
    (snapshot / name).unlink()

    with pytest.raises(SnapmigError, match=f"there is no {name}"):
        open_image(str(snapshot), "cloud-hypervisor")
    with pytest.raises(SnapmigError, match="is a directory, and not an image of a known format"):
        open_image(str(snapshot))


def test_formats_of_files_refuse_a_directory(snapshot):
    """A raw image is a file."""
    with pytest.raises(SnapmigError, match="raw images are files, this is a directory"):
        open_image(str(snapshot), "raw")


@pytest.mark.parametrize("name", ["config.json", "state.json", "memory-ranges"])
def test_a_change_of_any_file_is_noticed(snapshot, name):
    """RAM, state and configuration are of one moment."""
    image = open_image(str(snapshot))
    os.utime(snapshot / name, (1, 1))

    with pytest.raises(ImageChangedError, match=name):
        image.check_unchanged()
    image.close()


def test_a_restore_makes_the_directory_again(snapshot):
    """The plan is a directory with the file of ranges and the two others unchanged."""
    image = open_image(str(snapshot))
    content = Content(image.blocks, dict(image.attachments), 128, lambda _: iter(()))

    plan = find_format("cloud-hypervisor").plan_image(content)

    assert (plan.member, plan.size, plan.block_offsets) == (
        "memory-ranges", 192 * KIB, (0, 64 * KIB),
    )  # fmt: skip
    assert plan.companions == image.attachments
    image.close()


@pytest.mark.parametrize("attachments", [{}, {"config.json": b""}, {"state.json": b""}])
def test_other_guests_can_not_become_cloud_hypervisor(attachments):
    """Without configuration and state there is nothing to resume."""
    content = Content((RamBlock("ram", MIB),), attachments, 128, lambda _: iter(()))

    with pytest.raises(UsageError, match=r"needs its config\.json and state\.json"):
        cloud_hypervisor.plan_image(content)


def one(gpa: Any, length: Any) -> dict[str, Any]:
    """Return a tree with one range of any values."""
    return nest(json.dumps({"memory_ranges": {"data": [{"gpa": gpa, "length": length}]}}))


BAD = {
    "not JSON": b"junk",
    "not text": b"\xff\xfe\x00",
    "cut short": json.dumps(state(TABLE)).encode()[:-20],
    "deep": b"[" * 100_000,
    "deep and closed": b"[" * 100_000 + b"]" * 100_000,
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "no components": b"{}",
    "components are a list": b'{"snapshots": []}',
    "no memory manager": b'{"snapshots": {}}',
    "no state": {"snapshots": {"memory-manager": {"snapshot_data": None}}},
    "state is not text": nest({"memory_ranges": {"data": []}}),
    "state is a number": nest(5),
    "state is junk": nest("junk"),
    "state is deep": nest("[" * 100_000),
    "state is a list": nest("[]"),
    "state is text": nest('"text"'),
    "no table": nest("{}"),
    "table is null": nest('{"memory_ranges": null}'),
    "table without data": nest('{"memory_ranges": {}}'),
    "ranges are text": nest('{"memory_ranges": {"data": "abc"}}'),
    "ranges are an object": nest('{"memory_ranges": {"data": {"gpa": 0, "length": 1}}}'),
    "a range is a number": nest('{"memory_ranges": {"data": [1]}}'),
    "a range is a list": nest('{"memory_ranges": {"data": [[0, 1]]}}'),
    "no ranges": state([]),
    "address is text": one("0", 192 * KIB),
    "address is a fraction": one(0.0, 192 * KIB),
    "address is true": one(True, 192 * KIB),
    "address is null": one(None, 192 * KIB),
    "length is infinite": one(0, float("inf")),
    "length is zero": state([(0, 0), (4096, 192 * KIB)]),
    "length is negative": state([(GIB, -4096), (0, 196 * KIB)]),
    "address is negative": one(-1, 192 * KIB),
    "range wraps": one((1 << 64) - 4096, 192 * KIB),
    "length is absurd": one(0, 1 << 62),
    "length is beyond 64 bits": one(0, 1 << 70),
    "length is thousands of digits": one(0, int("9" * 4000)),
    "ranges overlap": state([(0, 128 * KIB), (64 * KIB, 64 * KIB)]),
    "a range comes twice": state([(0, 96 * KIB), (0, 96 * KIB)]),
    "sum is less": state([(0, 191 * KIB)]),
    "sum is more": state([(0, 193 * KIB)]),
    "many ranges": state([(at * 8, 4) for at in range(48 * KIB)]),
    "mappings are a number": state(TABLE, guest_ram_mappings=5),
    "a mapping is a number": state(TABLE, guest_ram_mappings=[5]),
    "a mapping has no size": state(TABLE, guest_ram_mappings=[{"gpa": 0}]),
    "mappings overlap": state(TABLE, [(0, KIB, False), (0, KIB, False)]),
}


@pytest.mark.parametrize("tree", BAD.values(), ids=BAD.keys())
def test_a_bad_state_is_refused_in_one_sentence(tmp_path, tree):
    """Any fault is refused by an error of ours, soon and without much memory."""
    directory = make(tmp_path / "s", tree)
    tracemalloc.start()
    try:
        with pytest.raises(SnapmigError) as caught:
            open_image(str(directory))
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()
    assert caught.value.exit_code == 1
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["state.json", "config.json"])
def test_huge_json_is_not_read(snapshot, name):
    """A file larger than any guest's state is refused by its size."""
    with (snapshot / name).open("r+b") as file:
        file.truncate(cloud_hypervisor.MAX_JSON_SIZE + 1)

    with pytest.raises(SnapmigError, match=rf"{name}: file has 67108865 bytes, expected at most"):
        open_image(str(snapshot))


@pytest.mark.parametrize("name", ["state.json", "config.json", "memory-ranges"])
def test_an_empty_file_is_refused(snapshot, name):
    """Every part has contents."""
    (snapshot / name).write_bytes(b"")

    with pytest.raises(SnapmigError, match=name):
        open_image(str(snapshot))


@pytest.mark.parametrize("size", [1, 64 * KIB, 192 * KIB - 1, 192 * KIB + 1])
def test_a_file_of_ranges_with_another_size_is_refused(tmp_path, size):
    """Its size is the sum of the table."""
    directory = make(tmp_path / "s", state(TABLE))
    os.truncate(directory / "memory-ranges", size)

    with pytest.raises(SnapmigError, match=rf"file has {size} bytes, the ranges of state\.json"):
        open_image(str(directory))


VALID = json.dumps(state(TABLE, [(0, 128 * KIB, False)])).encode()


@settings(max_examples=300)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=4
    ),
    cut=st.integers(0, 3),
)
def test_any_change_of_a_state_is_read_or_refused(tmp_path_factory, changes, cut):
    """Only the project's own errors are raised."""
    content = bytearray(VALID)
    for at, value in changes:
        content[at] = value
    directory = make(tmp_path_factory.mktemp("ch") / "s", bytes(content[: len(content) - cut]))
    image, problem = None, None
    try:
        image = open_image(str(directory))
    except SnapmigError as error:
        problem = error
    if image is not None:
        assert sum(block.size for block in image.blocks) == 192 * KIB
        image.close()
    else:
        assert problem.exit_code == 1


@pytest.mark.parametrize("name", ["config.json", "state.json", "memory-ranges"])
@pytest.mark.parametrize("where", ["outside", "inside"])
def test_links_in_a_directory_are_not_followed(snapshot, tmp_path, cli, name, where):
    """A planted link could lead to any file of this host."""
    target = (tmp_path if where == "outside" else snapshot) / "target"
    (snapshot / name).rename(target)
    (snapshot / name).symlink_to(target)
    ways = [
        (snapshot,),
        *(
            (each, "--format", "cloud-hypervisor")
            for each in (snapshot, snapshot / "memory-ranges")
        ),
    ]
    for words in ways:
        cli("save", *words, tmp_path / "s").fails(1)
    outcome = cli("save", *ways[-1], tmp_path / "s")

    assert f"{snapshot / name}: not a regular file" in outcome.err


@pytest.mark.parametrize("name", ["config.json", "state.json", "memory-ranges"])
def test_a_fifo_in_a_directory_is_refused(snapshot, tmp_path, cli, name):
    """A file other than a regular one is examined without opening it."""
    (snapshot / name).unlink()
    os.mkfifo(snapshot / name)
    outcome = cli("save", "--format", "cloud-hypervisor", snapshot, tmp_path / "s")

    outcome.fails(1, "regular file")
