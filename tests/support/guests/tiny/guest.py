"""
The tiny guest: its boot sector, its configuration, and the expected contents of its memory.

boot.S describes the guest's work. This module sets its parameters, and computes independently the
contents of each page after some passes.
"""

import functools
import re
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.support.guests.qemu import Guest, GuestConfig, GuestError

SOURCE = Path(__file__).with_name("boot.S")
TOOLS = ("as", "ld")
ORIGIN = 0x7C00
SECTOR = 512
SIGNATURE = b"\x55\xaa"
PARAMETERS = struct.Struct("<12H10I")
STATE = 0xA000  # two words: the current pass, and the page reached in it
MIB = 1 << 20
PAGE = 4096
WORDS = PAGE // 4
LARGE_PAGE = 4 * MIB
LARGE_PRESENT = 0x83
PASS = re.compile(r"^pass ([0-9A-F]{8})$", re.MULTILINE)
BAD = re.compile(r"^BAD ([0-9A-F]{8})$", re.MULTILINE)
PASS_SECONDS = 60.0
POLL_SECONDS = 0.02
CHUNK = 1024
SHOWN = 4

Words = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]


class ImageError(Exception):
    """A memory image has contents the tiny guest did not write."""


@dataclass(frozen=True)
class Kind:
    """Contents of a stamped page after its address and count: v = v * factor + step."""

    words: int
    factor: int = 1
    step: int = 0


KINDS = (
    Kind(WORDS - 2, 25173, 13849),  # does not compress
    Kind(WORDS - 2, 1, 0x101),  # compresses to a part
    Kind(1),  # a stamp, and zeros
    Kind(WORDS // 2 - 2),  # one word over and over, and zeros
)


@dataclass(frozen=True)
class Layout:
    """
    The parts of a tiny guest's RAM and its work on each; all addresses are offsets in RAM.

    From 1 MiB pages are stamped; in the middle lies a stretch of pages that are always zero, one of
    pages that are zero in even passes, and one that is never touched. A page is hot, that is,
    written in every pass, if its number modulo `hot_mask` + 1 is below `hot_limit`; the others are
    written in the first pass and only checked from then on.
    """

    ram: int = 64 * MIB
    below_4g: int | None = None
    """How much RAM lies below 4 GiB where not all of it does: whole 4 MiB."""
    hot_mask: int = 0
    hot_limit: int = 1
    ticks: int = 2
    """Ticks of 55 ms to halt after each pass; with 0 the guest takes a whole processor."""
    kinds: Sequence[Kind] = KINDS

    first = MIB

    @property
    def zero_first(self) -> int:
        """The first page of the stretch that is always zero."""
        return self.ram // 4

    @property
    def blink_first(self) -> int:
        """The first page of the stretch that is zero in even passes."""
        return self.zero_first + self.ram // 32

    @property
    def hole_first(self) -> int:
        """The first page of the stretch never touched."""
        return self.blink_first + self.ram // 32

    @property
    def hole_end(self) -> int:
        """The end of the stretch never touched."""
        return self.hole_first + self.ram // 8

    def addresses(self) -> Words:
        """Return the addresses of all pages from `first` to the end, holes included."""
        return np.arange(self.first, self.ram, PAGE, dtype=np.uint32)

    def is_hot(self, addresses: Words) -> Mask:
        """Return a mask of the pages written in every pass, if they are touched at all."""
        hot: Mask = (addresses // PAGE & self.hot_mask) < self.hot_limit
        return hot

    def is_hole(self, addresses: Words) -> Mask:
        """Return a mask of the pages never touched."""
        return (addresses >= self.hole_first) & (addresses < self.hole_end)

    def is_zero(self, addresses: Words, counts: Words) -> Mask:
        """Return a mask of the pages that are zero after their last write."""
        never = (addresses >= self.zero_first) & (addresses < self.blink_first)
        blinks = (addresses >= self.blink_first) & (addresses < self.hole_first)
        zero: Mask = never | (blinks & (counts % 2 == 0)) | self.is_hole(addresses)
        return zero

    def changing(self) -> Words:
        """Return the addresses of the pages with new contents after each pass."""
        pages = self.addresses()
        zero = (pages >= self.zero_first) & (pages < self.blink_first)
        return pages[self.is_hot(pages) & ~zero & ~self.is_hole(pages)]


@dataclass(frozen=True)
class State:
    """A guest's position: the current pass, and the page reached in it."""

    number: int
    current: int


def build_sector(layout: Layout) -> bytes:
    """Return the boot sector of a guest: 512 bytes, started by a BIOS."""
    _check_layout(layout)
    parameters = _parameters(layout)
    code = _assemble()
    sector = code[: SECTOR - 2 - len(parameters)] + parameters + SIGNATURE
    if len(sector) != SECTOR:
        raise GuestError(f"the boot sector has {len(sector)} bytes, and {SECTOR} are needed")
    return sector


def write_sector(folder: Path, layout: Layout) -> Path:
    """Write the boot sector of a guest to a file of a folder."""
    path = folder / "tiny.sector"
    path.write_bytes(build_sector(layout))
    return path


def config(
    sector: Path,
    layout: Layout,
    *,
    memory: Path | None = None,
    machine: str = "q35",
    incoming: bool = False,
    extra: Sequence[str] = (),
) -> GuestConfig:
    """
    Return the configuration of a tiny guest.

    Its memory is shared through the file `memory`, or private without one. With `incoming` it waits
    for `migrate-incoming`.
    """
    if layout.below_4g is not None:
        machine += f",max-ram-below-4g={layout.below_4g}"
    # Read only, so that the saving and the loading guest can have it at once.
    drive = ("-drive", f"file={sector},format=raw,if=floppy,readonly=on")
    wait = ("-incoming", "defer") if incoming else ()
    return GuestConfig(layout.ram, memory, machine, cpus=1, extra=(*drive, *wait, *extra))


def passes(text: str) -> list[int]:
    """Return the passes reported in serial output; raise if it reports a wrong page."""
    bad = BAD.search(text)
    if bad:
        raise GuestError(f"the guest found a wrong word at offset 0x{bad[1]} of its RAM")
    return [int(number, 16) for number in PASS.findall(text)]


def wait_passes(
    guest: Guest, more: int, *, before: int | None = None, timeout: float = PASS_SECONDS
) -> list[int]:
    """
    Wait until a guest has ended some more passes than `before`, or than now; return these.

    Use `before=0` for a resumed guest, because it may run before this is called. Its first pass
    checks only the pages not yet reached when it was saved; the second one checks every page.
    """
    if before is None:
        before = len(passes(guest.read_serial()))
    deadline = time.monotonic() + timeout
    while len(found := passes(guest.read_serial())[before:]) < more:
        if not guest.is_running():
            raise GuestError("QEMU ended while the guest was to count")
        if time.monotonic() > deadline:
            raise GuestError(f"the guest ended {len(found)} of {more} passes in {timeout:g} s")
        time.sleep(POLL_SECONDS)
    return found


def goes_on(counted: Sequence[int], state: State, layout: Layout) -> bool:
    """Return True if the passes ended by a resumed guest follow the state it was saved in."""
    # A guest is often stopped while it prints, and then its next whole line is of the next pass.
    printing = state.current == layout.ram - PAGE
    first = {state.number, state.number + printing}
    return counted[0] in first and list(counted) == [*range(counted[0], counted[-1] + 1)]


def check_image(path: Path, layout: Layout) -> State:
    """Check each page of the raw RAM image of a stopped guest; return the guest's position."""
    if path.stat().st_size != layout.ram:
        raise ImageError(f"{path}: {path.stat().st_size} bytes, expected {layout.ram}")
    # Read, not mapped: looking at the holes of a tmpfs file through a map would fill them.
    image = np.fromfile(path, np.uint32).reshape(-1, WORDS)
    state = read_state(image, layout)
    wrong = [int(page) for page in _wrong_pages(image, layout, state)]
    if wrong:
        shown = ", ".join(f"{page:#x}" for page in wrong[:SHOWN])
        raise ImageError(f"{path}: in pass {state.number}: {len(wrong)} wrong pages: {shown}")
    return state


def read_state(image: Words, layout: Layout) -> State:
    """Return a guest's position, from the rows of its pages."""
    number, current = (int(word) for word in image[STATE // PAGE, :2])
    if number == 0 or current % PAGE or not layout.first <= current < layout.ram:
        raise ImageError(f"no pass is under way: pass {number}, page {current:#x}")
    return State(number, current)


def counts_at(layout: Layout, state: State, addresses: Words) -> Words:
    """Return the last pass to write each page; 0 for none."""
    done = np.where(addresses < state.current, state.number, state.number - 1)
    return np.where(layout.is_hot(addresses), done, np.minimum(done, 1)).astype(np.uint32)


def expected_pages(layout: Layout, addresses: Words, counts: Words) -> Words:
    """Return the contents of pages, a row each, last written by these passes."""
    rows = np.zeros((len(addresses), WORDS), np.uint32)
    rows[:, 0] = addresses
    rows[:, 1] = counts
    start = addresses + counts
    for number, kind in enumerate(layout.kinds):
        mine = addresses // PAGE % 4 == number
        powers, sums = _coefficients(kind)
        rows[mine, 2 : 2 + kind.words] = start[mine, None] * powers + sums
    rows[layout.is_zero(addresses, counts)] = 0
    return rows


def _wrong_pages(image: Words, layout: Layout, state: State) -> Iterator[int]:
    addresses = layout.addresses()
    for part in np.array_split(addresses, len(addresses) // CHUNK + 1):
        counts = counts_at(layout, state, part)
        found = image[part // PAGE]
        wrong = found != expected_pages(layout, part, counts)
        wrong[(counts == 0) & ~layout.is_hole(part)] = False  # as the firmware left it
        at = np.flatnonzero(part == state.current)
        if at.size:  # a guest can be stopped in the middle of a page
            wrong[at] &= found[at] != expected_pages(layout, part[at], counts[at] + 1)
        yield from part[wrong.any(axis=1)]


@functools.cache
def _coefficients(kind: Kind) -> tuple[Words, Words]:
    """Return factor and summand of each word, applied to the start of a page."""
    powers, sums = [1], [0]
    for _ in range(kind.words):
        powers.append(powers[-1] * kind.factor % (1 << 32))
        sums.append((sums[-1] * kind.factor + kind.step) % (1 << 32))
    return np.array(powers[1:], np.uint32), np.array(sums[1:], np.uint32)


def _check_layout(layout: Layout) -> None:
    below = layout.ram if layout.below_4g is None else layout.below_4g
    if layout.ram % (32 * PAGE) or layout.ram < 8 * MIB or layout.ram >= 2048 * MIB:
        raise GuestError(f"no tiny guest has {layout.ram} bytes of RAM")
    if below % LARGE_PAGE and layout.below_4g is not None:
        raise GuestError(f"{below} bytes below 4 GiB are no multiple of {LARGE_PAGE}")
    if len(layout.kinds) != 4 or not all(1 <= kind.words <= WORDS - 2 for kind in layout.kinds):
        raise GuestError(f"four kinds of 1 to {WORDS - 2} words are needed: {layout.kinds}")


def _parameters(layout: Layout) -> bytes:
    kinds = [field for kind in layout.kinds for field in (kind.words, kind.factor, kind.step)]
    bounds = [layout.first, layout.zero_first, layout.blink_first, layout.hole_first]
    split = 0 if layout.below_4g is None else layout.below_4g | LARGE_PRESENT
    rest = [layout.hole_end, layout.ram, split, layout.hot_mask, layout.hot_limit, layout.ticks]
    return PARAMETERS.pack(*kinds, *bounds, *rest)


@functools.cache
def _assemble() -> bytes:
    """Return the boot sector with its parameters still zero."""
    with tempfile.TemporaryDirectory(prefix="sector-") as name:
        made, sector = Path(name, "made"), Path(name, "sector")
        _tool("as", "--32", "-o", str(made), str(SOURCE))
        place = ("-m", "elf_i386", f"-Ttext={ORIGIN:#x}", "--oformat", "binary")
        _tool("ld", *place, "-o", str(sector), str(made))
        code = sector.read_bytes()
    if len(code) != SECTOR or not code.endswith(SIGNATURE):
        raise GuestError(f"{SOURCE.name} made {len(code)} bytes ending in {code[-2:].hex()}")
    return code


def _tool(name: str, *arguments: str) -> None:
    if shutil.which(name) is None:
        raise GuestError(f"{name} (of binutils) is not installed")
    done = subprocess.run([name, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise GuestError(f"{name}: {done.stderr.strip()}")
