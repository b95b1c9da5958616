"""
Raw images laid out by guest physical address: a byte's offset in the file is its address.

Addresses outside all RAM blocks (the gap below 4 GiB of a PC, say) are holes. Only for restores: a
file does not show which of its zeros are RAM.
"""

from __future__ import annotations

from snapmig.errors import UsageError
from snapmig.images.file import ImageFile
from snapmig.images.plan import Content, ImagePlan, warn_of_missing
from snapmig.images.source import ImageSource
from snapmig.images.spans import SpanPlacer, piece_spans

__all__ = ("NAME", "open_image", "plan_image")

NAME = "raw-by-address"


def open_image(file: ImageFile) -> ImageSource:
    """
    Refuse to read one.

    :raises UsageError: always
    """
    message = "a file does not show which addresses are RAM, save it as raw"
    raise UsageError(message, path=file.shown)


def plan_image(content: Content) -> ImagePlan:
    """
    Return the plan to write pieces of RAM at their addresses.

    :raises UsageError: no address is known
    """
    missing = warn_of_missing(content.blocks, NAME)
    spans = piece_spans(content.blocks)
    end = max(span.offset + span.stop - span.start for span in spans)
    return ImagePlan(end, (), placer=SpanPlacer(spans), warnings=missing)
