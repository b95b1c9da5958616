"""
Cloud Hypervisor's snapshots: directories of ``config.json``, ``state.json`` and ``memory-ranges``.

``memory-ranges`` has ranges of RAM end to end, in the order of a table inside state.json, which may
differ from the order of the guest's addresses. RAM in named shared files is not in the snapshot,
because it stays in those files. See vmm/src/memory_manager.rs of Cloud Hypervisor.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from snapmig.architectures import ARCHITECTURES
from snapmig.errors import SnapmigError, UsageError
from snapmig.geometry import PAGE_SIZE, Geometry, RamBlock
from snapmig.images.file import ImageFile, opened_files
from snapmig.images.plan import Content, ImagePlan, block_starts
from snapmig.images.readers.files import Part
from snapmig.images.readers.parts import PartsImage
from snapmig.system.files import is_regular

__all__ = (
    "NAME",
    "blocks_of",
    "file_in_directory",
    "open_image",
    "plan_image",
    "recognises",
    "recognises_directory",
)

NAME = "cloud-hypervisor"

CONFIG = "config.json"
STATE = "state.json"
MEMORY = "memory-ranges"

MAX_JSON_SIZE = 64 << 20
MAX_RANGES = 4096
_MAX_ADDRESS = 1 << 64

_Range = tuple[int, int]
"""The guest physical address of a range, and the address after it."""


def recognises(file: ImageFile) -> bool:
    """Return True if a file is the memory of a snapshot directory."""
    path = Path(file.shown)
    return path.name == MEMORY and recognises_directory(str(path.parent))


def recognises_directory(path: str) -> bool:
    """Return True if a directory has the two files found in every snapshot."""
    return all(is_regular(Path(path) / name) for name in (CONFIG, STATE))


def file_in_directory(path: str) -> str:
    """
    Return the file with the ranges of a snapshot directory.

    :raises SnapmigError: there is none
    """
    _check_files(Path(path))
    return str(Path(path) / MEMORY)


def open_image(file: ImageFile) -> PartsImage:
    """
    Open a snapshot directory by its memory file.

    :raises SnapmigError: a part is missing, the table is impossible, or its sum is not the file's
        size
    """
    directory = Path(file.shown).parent
    _check_files(directory)
    paths = (str(directory / name) for name in (CONFIG, STATE))
    with opened_files(paths, follow=False) as others:
        config, state = (_read_small(other) for other in others)
        blocks = _blocks(file, others[1].shown, state)
    geometry = Geometry(blocks, PAGE_SIZE)
    parts = [Part(file.path, 0, geometry.ram_size)]
    image = PartsImage(NAME, blocks, parts, [file, *others], {CONFIG: config, STATE: state})
    if any(piece.gpa == 0 for block in blocks for piece in block.pieces):
        image.architecture = ARCHITECTURES["x86_64"]  # elsewhere RAM starts at 1 GiB
    return image


def plan_image(content: Content) -> ImagePlan:
    """
    Return the plan to turn a snapshot back into a directory.

    :raises UsageError: the snapshot was not made from one
    """
    if CONFIG not in content.attachments or STATE not in content.attachments:
        message = f"{NAME} needs its {CONFIG} and {STATE}, and this snapshot has none"
        raise UsageError(message)
    return ImagePlan(
        size=content.ram_size,
        block_offsets=block_starts(content.blocks),
        member=MEMORY,
        companions={name: content.attachments[name] for name in (CONFIG, STATE)},
    )


def _check_files(directory: Path) -> None:
    for name in (CONFIG, STATE):
        if not os.path.lexists(directory / name):
            message = f"there is no {name}, expected in a snapshot of Cloud Hypervisor"
            raise SnapmigError(message, path=str(directory))
    if not os.path.lexists(directory / MEMORY):
        message = (
            f"there is no {MEMORY}: all of the guest's RAM is in files of its own, save those as "
            "raw images"
        )
        raise SnapmigError(message, path=str(directory))
    # Links could lead to files that the user does not expect to be saved.
    for name in (CONFIG, STATE, MEMORY):
        if not is_regular(directory / name):
            raise SnapmigError("not a regular file", path=str(directory / name))


def _read_small(file: ImageFile) -> bytes:
    if file.size > MAX_JSON_SIZE:
        message = f"file has {file.size} bytes, expected at most {MAX_JSON_SIZE}"
        raise SnapmigError(message, path=file.shown)
    return file.read(0, file.size)


def _blocks(file: ImageFile, shown: str, state: bytes) -> tuple[RamBlock, ...]:
    blocks = blocks_of(shown, state)
    total = sum(block.size for block in blocks)
    if total != file.size:
        message = f"file has {file.size} bytes, the ranges of {STATE} {total} together"
        raise SnapmigError(message, path=file.shown)
    return blocks


def blocks_of(shown: str, state: bytes) -> tuple[RamBlock, ...]:
    """
    Return the RAM blocks of a guest's state, in the order of its snapshots.

    :param shown: the state's display name
    :raises SnapmigError: it is none, or not all of the guest's RAM would be in a snapshot
    """
    from snapmig.images.readers.memory_manager import (  # noqa: PLC0415 - its import takes 15 ms
        parse_memory_manager,
    )

    try:
        manager = parse_memory_manager(state)
        ranges = _checked((item.gpa, item.length) for item in manager.memory_ranges.data)
        # Unplugged parts of virtio-mem are in no range, and rightly so.
        mapped = [item for item in manager.guest_ram_mappings if not item.virtio_mem]
        kept_elsewhere = _first_missing(_checked((item.gpa, item.size) for item in mapped), ranges)
    except ValueError as error:
        message = f"not the state of a Cloud Hypervisor guest: {error}"
        raise SnapmigError(message, path=shown) from error
    if kept_elsewhere is not None:
        message = (
            f"the guest's RAM from {kept_elsewhere:#x} is not in the snapshot but in a file of its "
            "own, save it as a raw image"
        )
        raise SnapmigError(message, path=shown)
    joined = _join(ranges)
    if not 0 < len(joined) <= MAX_RANGES:
        message = f"{len(joined)} ranges of RAM, expected 1 to {MAX_RANGES}"
        raise SnapmigError(message, path=shown)
    return tuple(RamBlock.at(start, stop - start) for start, stop in joined)


def _checked(items: Iterable[tuple[int, int]]) -> list[_Range]:
    ranges = []
    for start, size in items:
        if size <= 0 or not 0 <= start < start + size < _MAX_ADDRESS:
            raise ValueError("a range is empty, or outside of 64-bit addresses")
        ranges.append((start, start + size))
    for (_, stop), (start, _) in pairwise(sorted(ranges)):
        if start < stop:
            raise ValueError(f"two ranges have the address {start:#x}")
    return ranges


def _first_missing(mapped: list[_Range], ranges: list[_Range]) -> int | None:
    have = iter(_join(sorted(ranges)))
    start, stop = 0, 0
    for first, end in sorted(mapped):
        while stop <= first:
            start, stop = next(have, (_MAX_ADDRESS, _MAX_ADDRESS + 1))
        if first < start:
            return first
        if stop < end:
            return stop
    return None


def _join(ranges: Sequence[_Range]) -> list[_Range]:
    return list(_joined(ranges))


def _joined(ranges: Sequence[_Range]) -> Iterator[_Range]:
    # Ranges that follow each other in the file and in the guest are one block.
    start = stop = -1
    for first, end in ranges:
        if first != stop:
            if start >= 0:
                yield start, stop
            start = first
        stop = end
    if start >= 0:
        yield start, stop
