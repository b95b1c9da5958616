"""
Raw images laid out by guest physical address: a byte's offset in the file is its address.

What no RAM block has (the gap below 4 GiB of a PC, say) is a hole. Only for restores: a file does
not show which of its zeros are RAM.
"""

from __future__ import annotations

from itertools import pairwise

from snapmig.errors import UsageError
from snapmig.images.file import ImageFile
from snapmig.images.plan import Content, ImagePlan
from snapmig.images.source import ImageSource

__all__ = ("NAME", "open_image", "plan_image", "recognises")

NAME = "raw-by-address"
WRITE_ONLY = True


def recognises(file: ImageFile) -> bool:
    """Return whether a file is of this format: no file shows it."""
    del file
    return False


def open_image(file: ImageFile) -> ImageSource:
    """
    Refuse to read one.

    :raises UsageError: always
    """
    message = "a file does not show which addresses are RAM, save it as raw"
    raise UsageError(message, path=file.shown)


def plan_image(content: Content) -> ImagePlan:
    """
    Return where blocks go by their addresses.

    :raises UsageError: an address is not known, or two blocks share one
    """
    ends = []
    for block in content.blocks:
        if block.gpa is None:
            message = f"guest physical address of RAM block {block.name!r} is not known"
            raise UsageError(message)
        ends.append((block.gpa, block.gpa + block.size, block.name))
    ends.sort()
    for (_, end, name), (start, _, other) in pairwise(ends):
        if start < end:
            raise UsageError(f"RAM blocks {name!r} and {other!r} have addresses in common")
    offsets = tuple(block.gpa or 0 for block in content.blocks)
    return ImagePlan(max(end for _, end, _ in ends), offsets)
