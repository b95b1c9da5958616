"""Images of a format read as a save reads them."""

from __future__ import annotations

from pathlib import Path

from snapmig.geometry import Geometry
from snapmig.images.formats import open_image
from snapmig.images.source import ImageSource, read_pages

PACKET = 64 << 10
MOST_PACKETS = 256


def read_image(path: Path, name: str | None) -> None:
    """Open an image, and read the start of its RAM and where its data is."""
    read_opened(open_image(str(path), name))


def read_opened(image: ImageSource) -> None:
    """Read the start of an image's RAM and where its data is, and close it."""
    try:
        geometry = Geometry(image.blocks, PACKET)
        reader = image.opener()()
        for number in range(min(geometry.packet_count, MOST_PACKETS)):
            pages = read_pages(reader, geometry.place(number))
            if pages is not None:
                pages.sum()
        image.next_data(0)
        image.check_unchanged()
    finally:
        image.close()
