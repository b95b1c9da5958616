"""Write memory images: sparse for zero memory, and complete or absent."""

import errno
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

PAGE = 4096
PIECE = 4 << 20
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
SIZE = re.compile(r"(\d+)([KMG]?)(?:i?B)?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes in a size such as `256M` or `2G`; raises ValueError unless it is whole pages."""
    match = SIZE.fullmatch(text.strip())
    size = int(match[1]) * UNITS[match[2].upper()] if match else 0
    if size <= 0 or size % PAGE:
        raise ValueError(f"not a memory size in whole pages of {PAGE} bytes: {text!r}")
    return size


def write_image(path: Path, size: int, pieces: Iterable[tuple[int, bytes]]) -> int:
    """
    Write an image from pieces at page offsets, atomically; return its non-zero pages.

    Everything outside the pieces, and every zero page in a piece, becomes a hole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.truncate(size)
            nonzero = sum(_write_piece(handle, offset, data) for offset, data in pieces)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return nonzero


def read_pieces(path: Path) -> Iterator[tuple[int, bytes]]:
    """Give the parts of a sparse file that are not holes, in pieces of whole pages."""
    with path.open("rb", buffering=0) as stream:
        for start, end in _data_ranges(stream.fileno()):
            for offset in range(start, end, PIECE):
                yield offset, os.pread(stream.fileno(), min(PIECE, end - offset), offset)


def _data_ranges(handle: int) -> Iterator[tuple[int, int]]:
    end = 0
    while True:
        try:
            start = os.lseek(handle, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(handle, start, os.SEEK_HOLE)
        yield start // PAGE * PAGE, end


def _write_piece(handle: int, offset: int, data: bytes) -> int:
    pages = np.frombuffer(data, dtype=np.uint64).reshape(-1, PAGE // 8)
    used = pages.any(axis=1)
    edges = np.flatnonzero(np.diff(used, prepend=False, append=False))
    for first, last in edges.reshape(-1, 2):
        os.pwrite(handle, pages[first:last].tobytes(), offset + int(first) * PAGE)
    return int(used.sum())
