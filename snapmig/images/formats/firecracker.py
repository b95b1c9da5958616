"""
Firecracker's snapshots: a memory file, and a file of the microVM's state beside it.

The memory file has the guest's RAM regions end to end and no magic, so a snapshot is recognised by
its state file, called vmstate here. Only the very version of Firecracker that wrote it can read it,
so it is kept unchanged. A diff snapshot's memory file has holes in place of memory unchanged since
the snapshot before it. See Firecracker's docs/snapshotting/snapshot-support.md, and its
src/vmm/src/arch for the places of RAM in the guest's address space.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from pathlib import Path

from snapmig.architectures import ARCHITECTURES
from snapmig.errors import SnapmigError, UsageError
from snapmig.geometry import RamBlock
from snapmig.images.file import ImageFile, opened_files
from snapmig.images.plan import Content, ImagePlan, block_starts
from snapmig.images.readers.overlay import OverlayImage
from snapmig.system.files import is_regular, open_regular

__all__ = (
    "NAME",
    "file_in_directory",
    "open_image",
    "open_layers",
    "plan_image",
    "recognises",
    "recognises_directory",
)

NAME = "firecracker"

VMSTATE = "vmstate"
MAX_VMSTATE_SIZE = 10_000_000
"""Firecracker's own limit."""

_X86_64 = 0x0710_1984_8664_0000
_AARCH64 = 0x0710_1984_AAAA_0000
_MAGIC_MASK = 0xFFFF
"""Old versions keep their state's version in the lowest bits."""

_GIB = 1 << 30
_LAYOUTS: dict[int, tuple[tuple[tuple[int, int | None], ...], ...]] = {
    _X86_64: (
        ((0, 3 * _GIB), (4 * _GIB, 252 * _GIB), (512 * _GIB, None)),
        ((0, 13 * _GIB // 4), (4 * _GIB, None)),
    ),
    _AARCH64: (((2 * _GIB, 254 * _GIB), (512 * _GIB, None)), ((2 * _GIB, None),)),
}
"""
Address and size of the areas filled with RAM one after the other: today's, then those before August
2025.
"""

_ARCHITECTURES = {_X86_64: ARCHITECTURES["x86_64"], _AARCH64: ARCHITECTURES["aarch64"]}

_MEMORY_UNIT = 1 << 20
_MAX_ENTRIES = 1000
"""Number of files examined in a directory."""

_SHARED_NAMES = ("vmstate", "snapshot_file", "vm.snap", "vm.vmstate", "snapshot")


def recognises(file: ImageFile) -> bool:
    """Return True if a file is whole MiB and has a vmstate of a usual name beside it."""
    if file.size % _MEMORY_UNIT or _is_descriptor(file):
        return False
    memory = Path(file.shown)
    if any(_is_vmstate(path) for path in _own_names(memory)):
        return True
    # Names that don't identify their memory file count only for one with the usual name.
    if "mem" not in memory.name.lower():
        return False
    return any(_is_vmstate(memory.with_name(name)) for name in _SHARED_NAMES)


def recognises_directory(path: str) -> bool:
    """Return True if a directory has exactly one memory file and one vmstate."""
    memories, states = _pair(path)
    return len(memories) == len(states) == 1


def file_in_directory(path: str) -> str:
    """
    Return the memory file of a directory with one snapshot.

    :raises SnapmigError: there is none, or more than one
    """
    memories, states = _pair(path)
    if len(memories) != 1 or len(states) != 1:
        message = (
            f"directory has {len(memories)} memory files and {len(states)} vmstate files of "
            "Firecracker, expected one of each"
        )
        raise SnapmigError(message, path=path)
    return str(memories[0])


def open_image(file: ImageFile) -> OverlayImage:
    """
    Open a memory file with the vmstate beside it.

    :raises SnapmigError: there is no vmstate, or it is damaged, or a size is impossible
    """
    return _open([file], None)


def open_layers(paths: Sequence[str], vmstate: str | None = None) -> OverlayImage:
    """
    Open the memory file of a full snapshot and those of later diff snapshots on it.

    :param paths: memory files, the oldest first
    :param vmstate: the state file of the last; default: the one beside it
    :raises SnapmigError: the sizes differ, there is no vmstate, or it is damaged
    """
    if not paths:
        raise UsageError("expected a memory file")
    with opened_files(paths) as layers:
        return _open(layers, vmstate)


def plan_image(content: Content) -> ImagePlan:
    """
    Return the plan to turn a snapshot into a memory file with its vmstate beside it.

    :raises UsageError: the snapshot was not made from a microVM
    """
    if VMSTATE not in content.attachments:
        raise UsageError(f"{NAME} needs a microVM's vmstate, and this snapshot has none")
    return ImagePlan(
        size=content.ram_size,
        block_offsets=block_starts(content.blocks),
        companions={f".{VMSTATE}": content.attachments[VMSTATE]},
    )


def _open(layers: Sequence[ImageFile], vmstate: str | None) -> OverlayImage:
    memory = layers[-1]
    if memory.size % _MEMORY_UNIT:
        message = f"memory file has {memory.size} bytes, expected whole MiB: is it cut short?"
        raise SnapmigError(message, path=memory.shown)
    path = Path(vmstate) if vmstate is not None else _find_vmstate(memory)
    with opened_files([str(path)], follow=vmstate is not None) as (state,):
        content = _read_vmstate(state)
        blocks = _regions(memory.size, content)
        image = OverlayImage(NAME, blocks, layers, [state], {VMSTATE: content})
        image.architecture = _ARCHITECTURES[_kind(content)]
        return image


def _read_vmstate(file: ImageFile) -> bytes:
    if file.size > MAX_VMSTATE_SIZE:
        message = f"vmstate has {file.size} bytes, expected at most {MAX_VMSTATE_SIZE}"
        raise SnapmigError(message, path=file.shown)
    content = file.read(0, file.size)
    if _architecture(content) is None:
        raise SnapmigError("not a vmstate of Firecracker: its magic is missing", path=file.shown)
    # The checksum is at the end, and the checksum over a whole file including its own is zero.
    if _crc64(content):
        message = "vmstate is cut short or damaged: its CRC-64 is not that of its contents"
        raise SnapmigError(message, path=file.shown)
    return content


def _architecture(content: bytes) -> int | None:
    # The magic comes first; the serialisation of newer versions puts a byte before it.
    for at in (0, 1):
        magic = int.from_bytes(content[at : at + 8], "little") & ~_MAGIC_MASK
        if len(content) >= 16 and magic in _LAYOUTS:
            return magic
    return None


def _regions(size: int, vmstate: bytes) -> list[RamBlock]:
    # File offsets are the same in every layout. Older states have address and size side by side,
    # and so show the old layout.
    layouts = [list(_fill(size, places)) for places in _LAYOUTS[_kind(vmstate)]]
    regions = layouts[0]
    for layout in layouts[1:]:
        if all(struct.pack("<QQ", *region) in vmstate for region in layout):
            regions = layout
    return [RamBlock.at(gpa, length) for gpa, length in regions]


def _kind(vmstate: bytes) -> int:
    kind = _architecture(vmstate)
    assert kind is not None  # its magic was checked
    return kind


def _fill(size: int, places: Sequence[tuple[int, int | None]]) -> Iterator[tuple[int, int]]:
    for gpa, room in places:
        if size:
            length = size if room is None else min(size, room)
            yield gpa, length
            size -= length


def _find_vmstate(memory: ImageFile) -> Path:
    if _is_descriptor(memory):
        raise SnapmigError("memory file has no name, so no vmstate beside it", path=memory.shown)
    path = Path(memory.shown)
    own = next((name for name in _own_names(path) if _is_vmstate(name)), None)
    if own is not None:
        return own
    states = [other for other in _entries(path.parent) if _is_vmstate(other)]
    if len(states) != 1:
        many = f"{len(states)} vmstate files, and none has its name" if states else "no vmstate"
        message = f"there is {many} beside the memory file, expected {path.name}.{VMSTATE}"
        raise SnapmigError(message, path=memory.shown)
    return states[0]


def _own_names(memory: Path) -> list[Path]:
    # Names of a vmstate for this memory file and no other.
    names = [f"{memory.name}.{VMSTATE}", f"{memory.stem}.{VMSTATE}", f"{memory.stem}.snap"]
    for word in ("memory", "mem"):
        if word in memory.name:
            names += [memory.name.replace(word, other) for other in ("vmstate", "snapshot", "vm")]
            break
    return [memory.with_name(name) for name in names if name != memory.name]


def _pair(directory: str) -> tuple[list[Path], list[Path]]:
    states = [path for path in _entries(Path(directory)) if _is_vmstate(path)]
    memories = [path for path in _entries(Path(directory)) if _is_memory(path)]
    return [path for path in memories if path not in states], states


def _entries(directory: Path) -> list[Path]:
    return sorted(islice(directory.iterdir(), _MAX_ENTRIES))


def _is_memory(path: Path) -> bool:
    return is_regular(path) and path.stat().st_size > 0 and path.stat().st_size % _MEMORY_UNIT == 0


def _is_vmstate(path: Path) -> bool:
    try:
        if not is_regular(path) or path.stat().st_size > MAX_VMSTATE_SIZE:
            return False
        with os.fdopen(open_regular(path, follow=False), "rb") as file:
            return _architecture(file.read(16)) is not None
    except (OSError, SnapmigError):
        return False


def _is_descriptor(file: ImageFile) -> bool:
    return file.shown.startswith("/proc/")


@cache
def _crc64_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x95AC9329AC4BC9B5 if value & 1 else 0)  # Jones, reflected
        table.append(value)
    return table


def _crc64(content: bytes) -> int:
    table, crc = _crc64_table(), 0
    for byte in content:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc
