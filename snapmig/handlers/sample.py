"""A sample of an image's pages, for decisions made before workers start."""

from __future__ import annotations

from collections.abc import Iterator

from snapmig.encodings.packet import summarise
from snapmig.geometry import Geometry
from snapmig.images.source import ImageReader, read_pages
from snapmig.pages import Bytes

__all__ = ("sample_packets",)


def sample_packets(image: ImageReader, geometry: Geometry, count: int) -> Iterator[Bytes]:
    """Yield data pages of up to ``count`` packets spread over an image, as ``(n, 4096)``."""
    step = max(1, geometry.packet_count // count)
    for packet in range(step // 2, geometry.packet_count, step):
        place = geometry.place(packet)
        pages = read_pages(image, place)
        if pages is None:
            continue
        data = summarise(pages).data
        if len(data):
            yield data.copy()
        image.release(place.ram_offset, place.ram_offset + place.length)
