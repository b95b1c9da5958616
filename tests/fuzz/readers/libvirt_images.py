"""libvirt's save images, raw, sparse and compressed."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.images import read_image
from tests.support.libvirt_images import GZIP, RAW, SPARSE, Image


def seeds() -> list[bytes]:
    """Return images with little room after the XML."""
    return [
        Image().build(),
        Image(order=">").build(),
        Image(kind=GZIP).build(),
        Image(kind=SPARSE).build()[: 1 << 18],
        Image(kind=RAW, cookie=b"").build(),
    ]


def read(data: bytes, folder: Path) -> None:
    """Read a file."""
    (folder / "f").write_bytes(data)
    read_image(folder / "f", "libvirt")
