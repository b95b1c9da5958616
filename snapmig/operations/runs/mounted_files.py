"""The files of a mounted snapshot: its RAM in several forms, and its other contents."""

from __future__ import annotations

import string
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import partial

from snapmig.attachments import load_attachment
from snapmig.container.tables import AttachmentEntry
from snapmig.errors import SnapmigError, UsageError
from snapmig.geometry import PAGE_SIZE
from snapmig.images.plan import ImagePlan
from snapmig.images.view import ImageView, Segment
from snapmig.mounts.tree import BytesFile, Node, StaticFolder
from snapmig.operations.runs import device_stream
from snapmig.operations.runs.overlay import OverlayMap, OverlayMemory
from snapmig.operations.runs.page_map import PageMap
from snapmig.operations.runs.random_access import RandomAccess
from snapmig.operations.runs.restore_inputs import plan_whole
from snapmig.operations.runs.snapshot_facts import facts_of
from snapmig.printable import json_line

__all__ = ("FACTS", "SnapshotFolder", "escaped")

_FORMATS = {
    "guest.ram": "raw",
    "guest.by-address": "raw-by-address",
    "guest.elf": "elf",
    "guest.mapped-ram": "mapped-ram",
    "cloud-hypervisor": "cloud-hypervisor",
    "firecracker": "firecracker",
}
"""Names of files, and of folders where a format has several files, with their formats."""

FACTS = "snapshot.json"
"""The file with the line of ``info --json``."""

_SAFE = frozenset(string.ascii_letters + string.digits + "-_.,:@+=~#()[]{} ")


def escaped(name: str) -> str:
    """Return a name that can be a file's, with all other characters as in URLs."""
    if name in (".", ".."):
        return name.replace(".", "%2E")
    return "".join(
        letter
        if letter in _SAFE or letter.isalnum()
        else "".join(f"%{byte:02X}" for byte in letter.encode())
        for letter in name
    )


class RamFile:
    """
    An image as a restore would write it.

    :param view: its bytes
    :param packets: with the RAM in it
    """

    def __init__(
        self,
        memory: RandomAccess | OverlayMemory,
        pages: PageMap,
        view: ImageView,
        packets: range,
    ) -> None:
        self._memory = memory
        self._pages = pages
        self._view = view
        self._packets = packets
        self._starts = [segment.start for segment in view.segments]
        self.size = view.size

    @property
    def modified_ns(self) -> int:
        """Time at which the snapshot was made."""
        return self._memory.file.superblock.created_ns

    @property
    def used(self) -> int:
        """Bytes of pages other than zero."""
        return min(self.size, self._pages.in_use(self._packets))

    def open(self) -> None:
        """Do nothing: the packets are shared by all readers."""

    def close(self) -> None:
        """Do nothing."""

    def read(self, offset: int, size: int) -> bytes:
        """
        Return bytes, fewer only at the end.

        :raises SnapmigError: a packet is damaged; the message has its address
        """
        try:
            return self._view.read(offset, size)
        except SnapmigError as error:
            raise self._placed(error) from error

    def next_data(self, offset: int) -> int:
        """Return the first place from an offset on that is no hole, the size if there is none."""
        for segment in self._segments(offset):
            at = max(offset, segment.start)
            found = self._find(segment, at, data=True)
            if found < segment.stop:
                return found
        return self.size

    def next_hole(self, offset: int) -> int:
        """Return the first place from an offset on that is a hole, the size if there is none."""
        for segment in self._segments(offset):
            if offset < segment.start:
                return offset
            offset = self._find(segment, offset, data=False)
            if offset < segment.stop:
                return offset
        return offset

    def _segments(self, offset: int) -> Iterator[Segment]:
        number = max(0, bisect_right(self._starts, offset) - 1)
        segments = self._view.segments
        behind = map(segments.__getitem__, range(number, len(segments)))
        return (each for each in behind if each.stop > offset)

    def _find(self, segment: Segment, at: int, *, data: bool) -> int:
        if segment.ram_offset is None:
            return at if data else segment.stop
        shift = segment.ram_offset - segment.start
        return self._pages.find(at + shift, segment.stop + shift, data=data) - shift

    def _placed(self, error: SnapmigError) -> SnapmigError:
        if error.packet is None:
            return error
        geometry = self._memory.geometry
        place = geometry.place(error.packet)
        block = geometry.blocks[place.block]
        start = place.ram_offset - geometry.block_start(place.block)
        where = f"RAM block {block.name} at {start:#x}"
        address = next(block.by_address(start, start + PAGE_SIZE))[2]
        if address is not None:
            where += f", guest physical address {address:#x}"
        return SnapmigError(f"{error} ({where})")


class WritableRamFile(RamFile):
    """The same with writes, which go to an overlay."""

    def __init__(
        self, memory: OverlayMemory, pages: PageMap, view: ImageView, packets: range
    ) -> None:
        super().__init__(memory, pages, view, packets)
        self._overlay = memory

    @property
    def modified_ns(self) -> int:
        """Time of the last write to any file."""
        return self._overlay.modified_ns

    def write(self, offset: int, data: bytes) -> None:
        """
        Write bytes.

        :raises OSError: the filesystem of the overlay is full
        """
        for part in self._view.between(offset, offset + len(data)):
            assert part.ram_offset is not None  # its whole view is RAM
            self._overlay.write(part.ram_offset, data[part.start - offset : part.stop - offset])

    def sync(self) -> None:
        """Wait until what was written is on stable storage."""
        self._overlay.sync()


class SnapshotFolder:
    """
    Everything a snapshot has, in the forms that can be made of it.

    :param report: takes a sentence about a form that damage prevents
    """

    def __init__(self, memory: RandomAccess | OverlayMemory, report: Callable[[str], None]) -> None:
        self._memory = memory
        self._saved = memory.base if isinstance(memory, OverlayMemory) else memory
        self._file = memory.file
        self._report = report
        self._pages = PageMap(memory.file)
        if isinstance(memory, OverlayMemory):
            self._pages = OverlayMap(memory)
        self._lock = threading.Lock()
        self._images: dict[str, Node] | None = None
        self.modified_ns = self._file.superblock.created_ns
        self._parts = dict(self._as_saved())

    def names(self) -> Iterable[str]:
        """Return the names of what can be made."""
        return [*self._planned(), *self._parts]

    def child(self, name: str) -> Node:
        """Return one of them."""
        # A guest about to run needs only these, and the plans of all images take as long as it.
        return self._parts[name] if name in self._parts else self._planned()[name]

    def _planned(self) -> dict[str, Node]:
        with self._lock:
            if self._images is None:
                self._images = dict(self._plan())
            return self._images

    def _plan(self) -> Iterator[tuple[str, Node]]:
        from snapmig.operations.runs.kernel_note import noted  # noqa: PLC0415 - 10 ms

        note = partial(noted, self._saved)
        for name, form in _FORMATS.items():
            try:
                plan = plan_whole(self._file, form, kernel_note=note).image
                yield name, self._image(plan)
            except UsageError:  # it lacks something needed
                continue
            except SnapmigError as error:
                self._report(f"{name} is left out: {error}")

    def _as_saved(self) -> Iterator[tuple[str, Node]]:
        yield "blocks", self._folder(self._blocks())
        entries = {entry.name: entry for entry in self._file.attachments}
        yield (
            "attachments",
            self._folder(
                (escaped(name), self._attachment(entry)) for name, entry in entries.items()
            ),
        )
        if device_stream.has_device_state(self._file):
            state = BytesFile(self._device_state, self.modified_ns, None)
            yield device_stream.DEVICE_STATE, state
        yield FACTS, BytesFile(self._facts, self.modified_ns, None)

    def _image(self, plan: ImagePlan) -> Node:
        packets = range(self._memory.geometry.packet_count)
        view = ImageView.planned(plan, self._memory.geometry, self._memory.pieces)
        image = self._ram(view, packets)
        if not plan.companions:
            return image
        name = "memory" if plan.member is None else plan.member
        others = {
            other.removeprefix("."): BytesFile(
                partial(bytes, content), self.modified_ns, len(content)
            )
            for other, content in plan.companions.items()
        }
        return StaticFolder({name: image, **others}, self.modified_ns)

    def _blocks(self) -> Iterator[tuple[str, Node]]:
        geometry = self._memory.geometry
        for number, block in enumerate(geometry.blocks):
            segment = Segment(0, block.size, geometry.block_start(number))
            view = ImageView(block.size, [segment], self._memory.pieces)
            packets = geometry.block_packets(number)
            yield escaped(block.name), self._ram(view, packets)

    def _ram(self, view: ImageView, packets: range) -> RamFile:
        only_ram = all(segment.ram_offset is not None for segment in view.segments)
        whole = sum(segment.stop - segment.start for segment in view.segments) == view.size
        if isinstance(self._memory, OverlayMemory) and only_ram and whole:
            return WritableRamFile(self._memory, self._pages, view, packets)
        return RamFile(self._memory, self._pages, view, packets)

    def _device_state(self) -> bytes:
        mapped = device_stream.mapped_blocks(self._file)
        return device_stream.device_stream(self._file, mapped, self._saved.read)

    def _folder(self, nodes: Iterable[tuple[str, Node]]) -> StaticFolder:
        return StaticFolder(dict(nodes), self.modified_ns)

    def _attachment(self, entry: AttachmentEntry) -> BytesFile:
        return BytesFile(partial(load_attachment, self._file, entry), self.modified_ns, entry.size)

    def _facts(self) -> bytes:
        facts = {"message_type": "info", **asdict(facts_of(self._file))}
        return json_line(facts).encode() + b"\n"
