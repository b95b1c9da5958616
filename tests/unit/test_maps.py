"""Facts about maps of a guest's memory: cells, places and drawings."""

import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

import snapmig
from snapmig.errors import SnapmigError, UsageError
from snapmig.maps.drawing import COLUMNS, SIDE, Rectangle, draw
from snapmig.maps.page import to_page
from snapmig.maps.palette import PAINTS
from snapmig.maps.places import on_curve, rows
from snapmig.maps.png import SCALE, to_png
from snapmig.maps.svg import to_svg
from snapmig.maps.tones import Tone, look_of
from tests.support import ram

PAGES = 16
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script>alert("1")</script>&\x1b[2J'
PACKETS = (ram.zeros(PAGES), ram.text(PAGES), ram.noise(PAGES), ram.zeros(8), ram.text(8))
IMAGE = b"".join(part.tobytes() for part in PACKETS)
BLOCKS = (snapmig.RamBlock.at(1 << 32, len(IMAGE), HOSTILE),)


@pytest.fixture(scope="module")
def made(shared_shm: Path) -> Path:
    """Give a snapshot with packets of zeros, text, noise, and half of zeros."""
    (shared_shm / "image").write_bytes(IMAGE)
    images = [(BLOCKS[0], shared_shm / "image")]
    snapmig.save(images, shared_shm / "made", packet_size="64K", jobs=1)
    return shared_shm / "made"


@pytest.fixture(scope="module")
def child(made: Path) -> Path:
    """Give a snapshot of the same with four changed pages in the packet of noise."""
    changed = bytearray(IMAGE)
    for page in range(4):
        changed[(2 * PAGES + page) * 4096] ^= 1
    made.with_name("changed").write_bytes(changed)
    images = [(BLOCKS[0], made.with_name("changed"))]
    path = made.with_name("child")
    snapmig.save(images, path, packet_size="64K", jobs=1, parent=made, deltas=True)
    return path


def tones(made: snapmig.MemoryMap) -> list[tuple[Tone, int]]:
    """Return tone and strength of each cell of the first block."""
    return [(look.tone, look.strength) for look in (look_of(cell) for cell in made.blocks[0].cells)]


def test_cells_are_packets_of_one_kind(made: Path) -> None:
    """Each packet is a cell of its own where there is room."""
    expected = [(Tone.ZERO, 4), (Tone.SMALL, 4), (Tone.RAW, 4), (Tone.SMALL, 2)]
    assert tones(snapmig.memory_map(made)) == expected


def test_cells_are_at_their_addresses(made: Path) -> None:
    """A cell has the guest physical address of its first byte."""
    (block,) = snapmig.memory_map(made).blocks
    assert [cell.gpa for cell in block.cells] == [(1 << 32) + (at << 16) for at in range(4)]


def test_cells_have_all_pages(made: Path, child: Path) -> None:
    """The counts of all cells together are those of info, for a child too."""
    for path in (made, child):
        facts = snapmig.info(path)
        cells = snapmig.memory_map(path, cells=3).blocks[0].cells
        assert len(cells) == 2
        assert sum(cell.in_use for cell in cells) == facts.data_pages
        assert sum(cell.same for cell in cells) == facts.same_pages
        assert sum(cell.stored_size for cell in cells) == facts.stored_size


def test_stored_pages_stand_out(child: Path) -> None:
    """A cell with pages of its own among the parent's has their look, paler."""
    same = (Tone.SAME, 4)
    expected = [(Tone.ZERO, 4), same, (Tone.DELTA, 1), (Tone.SAME, 2)]
    assert tones(snapmig.memory_map(child)) == expected


def test_a_map_against_another_has_the_changes(made: Path, child: Path) -> None:
    """Cells are those changed, unchanged and zero; totals are in bytes."""
    found = snapmig.memory_map(child, against=made, jobs=1)
    unchanged = (Tone.UNCHANGED, 4)
    assert tones(found) == [(Tone.ZERO, 4), unchanged, (Tone.CHANGED, 1), unchanged]
    sizes = {"zero, or a hole": 24 << 12, "unchanged": 36 << 12, "changed": 4 << 12}
    assert found.totals == sizes


def test_no_cells_are_refused(made: Path) -> None:
    """A map has at least one cell."""
    with pytest.raises(UsageError, match="cells is 0, expected 1 or more"):
        snapmig.memory_map(made, cells=0)


@pytest.mark.parametrize("count", [1, 5, 16, 64, 256, 1000])
def test_a_curve_goes_to_neighbours(count: int) -> None:
    """Items stand next to each other in order, each in one place."""
    lines = on_curve(range(count))
    places = {
        item: (x, y)
        for y, line in enumerate(lines)
        for x, item in enumerate(line)
        if item is not None
    }
    assert sorted(places) == list(range(count))
    ordered = [places[at] for at in range(count)]
    steps = pairwise(ordered)
    assert all(abs(x - u) + abs(y - v) == 1 for (x, y), (u, v) in steps)


def test_a_curve_stays_in_its_width() -> None:
    """Squares that do not fit beside each other follow below."""
    assert {len(line) for line in on_curve(range(1000), 20)} == {16}


def test_rows_are_filled_up() -> None:
    """The last row has None after its items."""
    assert rows([1, 2, 3], 2) == [[1, 2], [3, None]]


def test_svg_has_the_cells(made: Path) -> None:
    """A picture is sound XML, with a rectangle for cells of one look and their addresses."""
    drawn = draw(snapmig.memory_map(made))
    root = ET.fromstring(to_svg(drawn))
    titles = [each.text or "" for each in root.iter(f"{SVG}title")]
    assert [title.split(":")[0] for title in titles[1:]] == [
        "0x100000000-0x10000ffff",
        "0x100010000-0x10001ffff",
        "0x100020000-0x10002ffff",
        "0x100030000-0x10003ffff",
    ]
    assert {each.get("class") for each in root.iter(f"{SVG}rect")} >= {"zero", "small", "raw"}


@pytest.mark.parametrize("make", [lambda made: to_svg(draw(made)), to_page])
def test_names_are_only_text(made: Path, make: Callable[[snapmig.MemoryMap], str]) -> None:
    """A RAM block's name is neither markup nor control characters in a picture or page."""
    text = make(snapmig.memory_map(made))
    assert "<script" not in text
    assert "\x1b" not in text
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;" in text


def test_png_has_the_colours(made: Path) -> None:
    """Pillow reads a cell's colour at its place."""
    drawn = draw(snapmig.memory_map(made))
    image = Image.open(BytesIO(to_png(drawn)))
    cell = next(
        shape for shape in drawn.shapes
        if isinstance(shape, Rectangle) and shape.look.tone is Tone.RAW
    )  # fmt: skip
    colour = PAINTS[Tone.RAW].light
    expected = tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))
    assert image.getpixel(((cell.x + 2) * SCALE, (cell.y + 2) * SCALE)) == expected


def test_png_needs_pillow(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Pillow the sentence says how to install it."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(SnapmigError, match=r"Pillow: pip install 'snapmig\[png\]'"):
        to_png(draw(snapmig.memory_map(made)))


def test_drawings_have_whole_rows(shm: Path) -> None:
    """A block of one look fills its rows with one rectangle each."""
    (shm / "image").write_bytes(bytes(COLUMNS * 3 << 16))
    snapmig.save(shm / "image", shm / "snap", packet_size="64K", jobs=1)
    drawn = draw(snapmig.memory_map(shm / "snap"))
    cells = [each for each in drawn.shapes if isinstance(each, Rectangle) and each.about]
    assert [each.width for each in cells] == [COLUMNS * SIDE] * 3
