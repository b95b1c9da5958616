"""kdump-compressed dumps, plain and flattened."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.images import read_image
from tests.support.elf_cores import noise
from tests.support.kdumps import LZO, PAGE, PLAIN, SNAPPY, ZSTD, Kdump, flattened

PAGES = {0: b"page" * 1024, 1: bytes(PAGE), 2: noise(1), 40: b"another page" * 341 + b"last"}


def seeds() -> list[bytes]:
    """Return dumps of every compression, width and byte order."""
    plain = Kdump(PAGES, notes=b"notes", left_out=[3])
    dumps = [Kdump(PAGES, compression=each).build() for each in (PLAIN, LZO, SNAPPY, ZSTD)]
    return [
        plain.build(),
        *dumps,
        Kdump(PAGES, bits=32, order=">").build(),
        flattened(plain.build(), [4096, 9000, 12_000], [2, 0, 3, 1]),
    ]


def read(data: bytes, folder: Path) -> None:
    """Read a file."""
    (folder / "f").write_bytes(data)
    read_image(folder / "f", "kdump")
