"""
Raw images: files with the bytes of the guest's RAM, one file per RAM block.

A regular file, a file in /dev/shm, a memfd or deleted file as ``/proc/PID/fd/N``, or a hugetlbfs
file.
"""

from __future__ import annotations

from collections.abc import Sequence

from snapmig.errors import SnapmigError
from snapmig.geometry import PAGE_SIZE, Geometry, RamBlock
from snapmig.images.file import ImageFile, opened_files
from snapmig.images.plan import Content, ImagePlan, block_starts
from snapmig.images.readers.files import Part
from snapmig.images.readers.parts import PartsImage
from snapmig.system.libc import huge_page_size

__all__ = ("NAME", "open_blocks", "open_image", "plan_image")

NAME = "raw"
DEFAULT_BLOCK_NAME = "ram"
_NAMED = 20
"""Most blocks named in a message."""


def open_image(file: ImageFile) -> PartsImage:
    """Open a single file as a guest's only RAM block, named ``ram``."""
    page_size = huge_page_size(file.shown) or PAGE_SIZE
    block = RamBlock(DEFAULT_BLOCK_NAME, file.size, page_size=page_size)
    return PartsImage(NAME, [block], [Part(file.path, 0, file.size)], [file])


def open_blocks(files: Sequence[tuple[RamBlock, str]]) -> PartsImage:
    """
    Open one file for each RAM block of a guest.

    :raises SnapmigError: a file's size differs from its block's
    """
    blocks = tuple(block for block, _ in files)
    geometry = Geometry(blocks, PAGE_SIZE)
    with opened_files(path for _, path in files) as opened:
        for block, file in zip(blocks, opened, strict=True):
            if file.size != block.size:
                message = f"file has {file.size} bytes, RAM block {block.name!r} {block.size}"
                raise SnapmigError(message, path=file.shown)
    starts = [geometry.block_start(number) for number in range(len(blocks))]
    parts = [
        Part(file.path, start, start + file.size)
        for file, start in zip(opened, starts, strict=True)
    ]
    return PartsImage(NAME, blocks, parts, opened)


def plan_image(content: Content) -> ImagePlan:
    """Return the plan to turn a snapshot into a raw file: its RAM blocks end to end."""
    starts = block_starts(content.blocks)
    return ImagePlan(content.ram_size, starts, warnings=_warn_of_several(content.blocks, starts))


def _warn_of_several(blocks: Sequence[RamBlock], starts: Sequence[int]) -> tuple[str, ...]:
    # Firmware and video memory would otherwise pass for RAM after its end.
    if len(blocks) == 1:
        return ()
    named = zip(blocks[:_NAMED], starts[:_NAMED], strict=True)
    places = ", ".join(f"{block.name!r} at {start:#x}" for block, start in named)
    more = f" and {len(blocks) - _NAMED} more" if len(blocks) > _NAMED else ""
    return (
        f"a raw file does not tell its RAM blocks apart, and this one has {len(blocks)}: {places}"
        f"{more}; --block NAME restores one of them",
    )
