"""Facts about ELF cores of guests."""

import json
import sys
import tracemalloc
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapmig.architectures import Architecture
from snapmig.errors import CorruptSnapshotError, SnapmigError, UnsupportedError
from snapmig.geometry import PAGE_SIZE, Geometry, RamBlock, block_problem
from snapmig.images.elf.headers import MAX_SEGMENTS
from snapmig.images.formats import elf, open_image
from snapmig.images.plan import Content
from snapmig.images.source import read_pages
from snapmig.operations.restore import restore
from snapmig.operations.save import save
from tests.support.elf_cores import ABSENT, Core, Segment, noise

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def core(*segments: Segment, **more: Any) -> Core:
    """Return a core of some segments."""
    return Core(segments, **more)


def write(directory: Path, built: Core | bytes, name: str = "core") -> Path:
    """Write a core to a file."""
    path = directory / name
    path.write_bytes(built if isinstance(built, bytes) else built.build())
    return path


def ram(path: Path) -> dict[int, bytes]:
    """Return a core's RAM by address, read in packets as a save does."""
    image = open_image(str(path), "elf")
    geometry = Geometry(image.blocks, 64 * KIB)
    reader = image.opener()()
    found: dict[int, bytes] = {}
    for number, block in enumerate(image.blocks):
        pieces = []
        for packet in geometry.block_packets(number):
            place = geometry.place(packet)
            pages = read_pages(reader, place)
            pieces.append(bytes(place.length) if pages is None else pages.tobytes()[: place.length])
        found[block.pieces[0].gpa] = b"".join(pieces)
    image.close()
    return found


def again(path: Path, **options: Any) -> Path:
    """Save a core and restore it."""
    snapshot, target = path.with_suffix(".snap"), path.with_suffix(".again")
    save(path, snapshot, jobs=1, **options)
    restore(snapshot, target, jobs=1)
    return target


LOW = Segment(0, noise(5))
HIGH = Segment(4 * GIB, noise(3, 2))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("width", [32, 64])
def test_ram_is_what_segments_say_by_address(tmp_path, width, order):
    """Both widths and both byte orders are read, wherever the bytes are in the file."""
    upper = replace(HIGH, paddr=GIB)
    path = write(tmp_path, core(upper, LOW, width=width, order=order))

    assert open_image(str(path)).format == "elf"
    assert ram(path) == {0: LOW.data, GIB: upper.data}


def test_blocks_are_named_by_address_and_sorted(tmp_path):
    """The order of segments does not matter."""
    image = open_image(str(write(tmp_path, core(HIGH, LOW))))

    assert image.blocks == (
        RamBlock.at(0, 5 * PAGE_SIZE),
        RamBlock.at(4 * GIB, 3 * PAGE_SIZE),
    )
    image.close()


def test_adjacent_segments_are_one_block(tmp_path):
    """Ranges without a gap between them are one piece of RAM, even if far apart in the file."""
    first, second = noise(2, 1), noise(2, 2)
    path = write(tmp_path, core(Segment(2 * PAGE_SIZE, second), HIGH, Segment(0, first)))

    assert ram(path) == {0: first + second, 4 * GIB: HIGH.data}


def test_segments_over_the_same_bytes_are_counted_once(tmp_path):
    """With paging, several virtual ranges lead to the same RAM."""
    start = 64 + 4 * 56 + 23
    path = write(
        tmp_path,
        core(
            LOW,
            Segment(PAGE_SIZE, offset=start + PAGE_SIZE, filesz=2 * PAGE_SIZE, vaddr=1 << 46),
            Segment(0, offset=start, filesz=PAGE_SIZE, vaddr=1 << 47),
        ),
    )
    image = open_image(str(path))

    assert image.blocks == (RamBlock.at(0, 5 * PAGE_SIZE),)
    assert [part.stop - part.start for part in image.parts] == [5 * PAGE_SIZE]
    image.close()
    assert ram(path) == {0: LOW.data}


def test_the_part_of_a_segment_without_bytes_is_zero(tmp_path):
    """The file may have less than the memory of a segment."""
    path = write(tmp_path, core(replace(LOW, memsz=8 * PAGE_SIZE + 100), HIGH))

    assert ram(path)[0] == LOW.data + bytes(3 * PAGE_SIZE + 100)


def test_bytes_come_before_the_zeros_of_another_segment(tmp_path):
    """Where one segment has bytes and another says zero, the bytes are RAM."""
    path = write(tmp_path, core(Segment(0, memsz=16 * PAGE_SIZE), Segment(PAGE_SIZE, noise(2))))

    assert ram(path) == {0: bytes(PAGE_SIZE) + noise(2) + bytes(13 * PAGE_SIZE)}


@pytest.mark.parametrize("width", [32, 64])
def test_segments_that_were_left_out_are_not_ram(tmp_path, width):
    """A filtered dump names ranges without their bytes; they are not zero but unknown."""
    left_out = Segment(GIB, offset=ABSENT, filesz=0, memsz=MIB)

    assert list(ram(write(tmp_path, core(LOW, left_out, width=width)))) == [0]


def test_bytes_need_not_be_at_a_page_of_the_file(tmp_path):
    """QEMU writes memory right after the notes."""
    for length in (0, 1, 777, 4095):
        assert ram(write(tmp_path, core(LOW, notes=b"n" * length))) == {0: LOW.data}


def test_sizes_need_not_be_whole_pages(tmp_path):
    """A segment may end anywhere, and another start there."""
    data = noise(3)
    path = write(tmp_path, core(Segment(100, data[:5001]), Segment(5101, data[5001:])))

    assert ram(path) == {100: data}


def test_other_segments_and_empty_ones_are_no_ram(tmp_path):
    """Only PT_LOAD with memory counts."""
    others = [Segment(GIB, b"x" * 100, kind=kind) for kind in (0, 2, 4, 6, 0x6474E551)]
    path = write(tmp_path, core(*others, LOW, Segment(GIB, memsz=0, filesz=0)))

    assert ram(path) == {0: LOW.data}


def test_more_segments_than_the_header_can_count(tmp_path):
    """65,535 and more are counted by a section header."""
    segments = [
        Segment(PAGE_SIZE * number, offset=4_000_000 + PAGE_SIZE * (number % 4), filesz=PAGE_SIZE)
        for number in range(70_000)
    ]
    built = core(*segments, many=True).build()
    path = write(tmp_path, built.ljust(4_000_000, b"\0") + noise(4))

    assert ram(path) == {0: noise(4) * 17_500}


@pytest.mark.parametrize("width", [32, 64])
def test_the_count_in_a_section_header_is_read(tmp_path, width):
    """It is there whenever the header's own count says so."""
    assert ram(write(tmp_path, core(LOW, width=width, many=True))) == {0: LOW.data}


def test_holes_of_a_sparse_core_are_skipped(tmp_path):
    """The parent asks for data and finds it."""
    path = write(tmp_path, core(Segment(0, memsz=MIB, filesz=MIB)))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + MIB)
    image = open_image(str(path))

    assert image.next_data(8 * PAGE_SIZE) is None
    image.close()


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_another_elf_file_is_no_core(tmp_path, kind):
    """Objects, programs and libraries are refused by their kind."""
    with pytest.raises(UnsupportedError, match="an ELF file that is no core dump"):
        open_image(str(write(tmp_path, core(LOW, kind=kind))))


def test_a_core_is_recognised(tmp_path):
    """The type of an ELF file says so."""
    with closing(open_image(str(write(tmp_path, core(LOW, kind=4))))) as image:
        assert image.format == "elf"


def test_a_short_file_is_not_recognised(tmp_path):
    """Magic alone is not a core."""
    with pytest.raises(UnsupportedError, match="an ELF file that is no core dump"):
        open_image(str(write(tmp_path, b"\x7fELF\x02\x01\x01")))


SAME = {
    "64 bits": core(LOW, HIGH),
    "32 bits": core(LOW, replace(HIGH, paddr=GIB), width=32),
    "big-endian": core(LOW, HIGH, order=">"),
    "tail": core(LOW, tail=b"section names" * 1000),
    "unordered": core(HIGH, LOW, Segment(2 * GIB, noise(1, 3))),
    "zero pages": core(Segment(0, noise(1) + bytes(10 * PAGE_SIZE) + noise(1)), HIGH),
    "zeros at the end": core(LOW, Segment(GIB, bytes(40 * PAGE_SIZE))),
    "odd sizes": core(Segment(5, noise(2)[:5000]), Segment(8001, noise(3)[:12001])),
    "less than its memory": core(replace(LOW, memsz=MIB + 1), replace(HIGH, memsz=MIB)),
    "left out": core(LOW, Segment(GIB, offset=ABSENT, filesz=0, memsz=MIB)),
    "many segments": core(LOW, HIGH, many=True),
    "twice the same bytes": core(LOW, Segment(0, offset=64 + 3 * 56 + 23, filesz=PAGE_SIZE)),
    "the same RAM twice": core(LOW, HIGH, Segment(PAGE_SIZE, LOW.data[PAGE_SIZE : 3 * PAGE_SIZE])),
    "over the headers": core(
        Segment(0, offset=0, filesz=3 * PAGE_SIZE), HIGH, Segment(GIB, noise(1))
    ),
    "other segments": core(LOW, Segment(7, b"kept", kind=6), HIGH, Segment(0, b"too", kind=2)),
}


@pytest.mark.parametrize("built", SAME.values(), ids=SAME.keys())
def test_a_core_becomes_itself_again(tmp_path, built):
    """Restored from its snapshot, it is the same byte for byte."""
    path = write(tmp_path, built)

    assert again(path).read_bytes() == path.read_bytes()


def test_zero_pages_of_a_restored_core_are_holes(tmp_path):
    """A core takes no more disk space than its contents."""
    path = write(tmp_path, core(Segment(0, noise(1) + bytes(8 * MIB)), notes=b"x"))

    assert again(path).stat().st_blocks * 512 < MIB


def test_one_block_of_a_core_can_be_restored(tmp_path):
    """A range of RAM by its name is a raw file."""
    path = write(tmp_path, core(LOW, HIGH))
    save(path, tmp_path / "snap", jobs=1)
    restore(tmp_path / "snap", tmp_path / "raw", jobs=1, block="ram@0x100000000")

    assert (tmp_path / "raw").read_bytes() == HIGH.data


def test_any_number_of_jobs_makes_the_same_core(tmp_path):
    """Workers do not disturb each other."""
    path = write(tmp_path, core(*[Segment(at * MIB, noise(200, at)) for at in range(1, 12)]))
    save(path, tmp_path / "snap", jobs=3)
    for jobs in (1, 4):
        restore(tmp_path / "snap", tmp_path / str(jobs), jobs=jobs)
        assert (tmp_path / str(jobs)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("width", "order", "expected"),
    [
        (64, "<", Architecture(62, 64, little=True)),
        (64, ">", Architecture(62, 64, little=False)),
        (32, "<", Architecture(62, 32, little=True)),
    ],
)
def test_the_architecture_is_that_of_the_header(tmp_path, width, order, expected):
    """A guest's machine, width and byte order are known from its core."""
    path = write(tmp_path, core(LOW, width=width, order=order))
    image = open_image(str(path))
    assert image.architecture == expected
    image.close()


def test_a_header_without_a_machine_tells_no_architecture(tmp_path):
    """The number 0 stands for no machine."""
    built = bytearray(core(LOW).build())
    built[18:20] = bytes(2)
    image = open_image(str(write(tmp_path, bytes(built))))
    assert image.architecture is None
    image.close()


VALID = core(LOW, HIGH)

BAD = {
    "no bytes behind the magic": b"\x7fELF",
    "header cut": VALID.build()[:60],
    "header of 32 bits cut": core(LOW, width=32).build()[:40],
    "table cut": VALID.build()[:100],
    "memory cut": VALID.build()[:-1],
    "memory missing": VALID.build()[: 64 + 3 * 56],
    "width of 3": VALID.build()[:4] + b"\3" + VALID.build()[5:],
    "width of 0": VALID.build()[:4] + b"\0" + VALID.build()[5:],
    "byte order of 0": VALID.build()[:5] + b"\0" + VALID.build()[6:],
    "not ELF": b"\x7fELG" + VALID.build()[4:],
    "a program": replace(VALID, kind=2),
    "an unknown type": replace(VALID, kind=0xFF00),
    "no segments": replace(VALID, count=0),
    "only notes": core(),
    "only what was left out": core(Segment(0, offset=ABSENT, filesz=0, memsz=MIB)),
    "more segments than the file": replace(VALID, count=0xFFFE),
    "entries of 55 bytes": replace(VALID, entry_size=55),
    "entries of 0 bytes": replace(VALID, entry_size=0),
    "entries of 65535 bytes": replace(VALID, entry_size=65535),
    "table behind the end": replace(VALID, table_offset=1 << 40),
    "table at the last address": replace(VALID, table_offset=(1 << 64) - 1),
    "absurd count": replace(VALID, many=True, many_count=(1 << 32) - 1),
    "count just too large": replace(VALID, many=True, many_count=MAX_SEGMENTS + 1),
    "large count, small file": replace(VALID, many=True, many_count=MAX_SEGMENTS),
    "count is behind the end": replace(VALID, many=True, section_offset=1 << 40),
    "count is at the last address": replace(VALID, many=True, section_offset=(1 << 64) - 1),
    "offset behind the end": core(replace(LOW, offset=1 << 40)),
    "offset at the last address": core(replace(LOW, offset=ABSENT)),
    "segment ends behind the end": core(replace(LOW, filesz=1 << 50)),
    "sizes wrap": core(replace(LOW, filesz=(1 << 64) - 1)),
    "more bytes than memory": core(replace(LOW, memsz=PAGE_SIZE)),
    "addresses wrap": core(replace(LOW, paddr=(1 << 64) - PAGE_SIZE)),
    "absurd memory": core(replace(LOW, memsz=1 << 55)),
    "absurd memory without bytes": core(LOW, Segment(GIB, memsz=1 << 62)),
    "absurd memory of many": core(*[Segment(at << 44, b"x", 1 << 43) for at in range(100)]),
    "many ranges": core(*[Segment(at << 13, offset=64, filesz=64) for at in range(5000)]),
    "much that is no RAM": core(LOW, tail=bytes(elf.MAX_REST_SIZE)),
}


@pytest.mark.parametrize("built", BAD.values(), ids=BAD.keys())
def test_a_bad_core_is_refused_in_one_sentence(tmp_path, built):
    """Any fault is refused by an error of ours, soon and without much memory."""
    path = write(tmp_path, built)
    tracemalloc.start()
    try:
        with pytest.raises(SnapmigError) as caught:
            open_image(str(path), "elf")
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()
    assert caught.value.exit_code == 1
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_range_twice_in_a_huge_file_takes_no_memory(tmp_path):
    """Sizes are compared with the file's, however large it claims to be."""
    path = write(tmp_path, core(Segment(0, filesz=1 << 43)))
    with path.open("r+b") as file:
        file.truncate(1 << 43)
    tracemalloc.start()
    with pytest.raises(SnapmigError, match="is not all before"):
        open_image(str(path))
    assert tracemalloc.get_traced_memory()[1] < MIB
    tracemalloc.stop()


def test_without_pyelftools_a_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    """The package is an extra."""
    monkeypatch.setitem(sys.modules, "elftools.elf.structs", None)

    with pytest.raises(
        SnapmigError, match=r"ELF cores need pyelftools: pip install 'snapmig\[elf\]'"
    ):
        open_image(str(write(tmp_path, VALID)))


def content(attachments: dict[str, bytes], *blocks: RamBlock) -> Content:
    """Return a snapshot's content for a core."""
    return Content(blocks or (RamBlock.at(0, MIB),), attachments, 128, lambda _: iter(()))


BAD_PLACES = {
    "junk": b"junk",
    "deep": b"[" * 100_000,
    "a list": b"[]",
    "no size": b'{"places": []}',
    "no places": b'{"size": 5}',
    "size is negative": b'{"size": -5, "places": []}',
    "size is infinite": b'{"size": Infinity, "places": []}',
    "size is null": b'{"size": null, "places": []}',
    "places are numbers": b'{"size": 5, "places": [1]}',
    "places of two": b'{"size": 5, "places": [[0, 1]]}',
    "places of text": b'{"size": 5, "places": [["a", "b", "c"]]}',
    "beyond the RAM": b'{"size": 99999999, "places": [[0, 1048577, 0]]}',
    "beyond the file": b'{"size": 4096, "places": [[0, 4096, 1]]}',
    "before the file": b'{"size": 4096, "places": [[0, 4096, -1]]}',
    "empty place": b'{"size": 4096, "places": [[5, 5, 0]]}',
    "rest of another size": b'{"size": 4100, "places": [[0, 4096, 0]]}',
    "absurd size": b'{"size": 18446744073709551616, "places": []}',
}


@pytest.mark.parametrize("places", BAD_PLACES.values(), ids=BAD_PLACES.keys())
def test_a_snapshot_with_bad_places_is_corrupt(places):
    """Places kept by a save of a core are checked before use."""
    with pytest.raises(CorruptSnapshotError):
        elf.plan_image(content({elf.PLACES: places, elf.REST: b""}))


def test_a_snapshot_without_the_rest_is_corrupt():
    """Both attachments belong together."""
    with pytest.raises(CorruptSnapshotError, match="do not fit"):
        elf.plan_image(content({elf.PLACES: b'{"size": 10, "places": []}'}))


numbers = st.one_of(
    st.integers(-5, 1 << 21), st.integers(), st.floats(), st.none(), st.text(max_size=3)
)


@given(size=numbers, places=st.lists(st.lists(numbers, max_size=4), max_size=3))
def test_any_places_are_a_plan_or_corrupt(size, places):
    """Only the project's own errors are raised."""
    raw = json.dumps({"size": size, "places": places}).encode()
    plan = None
    try:
        plan = elf.plan_image(content({elf.PLACES: raw, elf.REST: b""}))
    except CorruptSnapshotError as error:
        problem = error
    assert plan is not None or problem.exit_code == 3


headers = st.sampled_from(
    [
        core(LOW, HIGH, Segment(GIB, noise(1), memsz=9 * PAGE_SIZE)),
        core(LOW, replace(HIGH, paddr=GIB), width=32),
        core(LOW, HIGH, order=">", many=True),
    ]
).map(Core.build)


@settings(max_examples=400)
@given(
    valid=headers,
    changes=st.lists(st.tuples(st.integers(0, 64 + 5 * 56), st.integers(0, 255)), max_size=5),
    cut=st.sampled_from([0, 0, 0, 1, 4096, 30_000]),
)
def test_any_change_of_a_header_is_read_or_refused(tmp_path_factory, valid, changes, cut):
    """Only the project's own errors are raised, and any core read is a possible guest."""
    data = bytearray(valid)
    for at, value in changes:
        data[at] = value
    path = write(tmp_path_factory.mktemp("elf"), bytes(data[: len(data) - cut]))
    image, problem = None, None
    try:
        image = open_image(str(path), "elf")
    except SnapmigError as error:
        problem = error
    if image is None:
        assert problem.exit_code == 1
        return
    assert block_problem(image.blocks) is None
    assert all(part.file_offset + part.stop - part.start <= len(data) for part in image.parts)
    reader = image.opener()()
    for start, stop in reader.extents(0, sum(block.size for block in image.blocks)):
        assert reader.view(start, stop).size == stop - start
    image.close()


def test_the_core_of_a_process_is_no_guest(tmp_path, cli):
    """Segments without physical addresses are a process's."""
    segments = tuple(Segment(0, b"x" * PAGE_SIZE, vaddr=at << 20) for at in (1, 2))
    (tmp_path / "core").write_bytes(Core(segments).build())
    outcome = cli("save", tmp_path / "core", tmp_path / "s")
    outcome.fails(4, "this is the core of a process: no segment has a physical address")
