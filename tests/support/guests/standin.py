"""
A stand-in for a guest's memory if no guest can run: files, text, random data, holes.

It is made from files of this machine, and is the same on each run on the same machine.
"""

import os
import random
import stat
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.guests.image import PAGE

SEED = 2025
RECIPE = "stand-in 1"
SHARES = {"files": 0.50, "text": 0.20, "random": 0.03, "zero": 0.27}
SEGMENT_PAGES = (8, 256)
SMALLEST_FILE = 2048
LEVELS = ("info", "info", "info", "warning", "debug", "error")
WORDS = ("accepted", "closed", "retry", "timeout", "commit", "flush", "lookup", "session", "queue")


def source_folders() -> tuple[Path, ...]:
    """Folders of programs, libraries and Python's own files on this machine."""
    return Path("/usr/bin"), Path("/usr/lib"), Path(sysconfig.get_path("stdlib"))


def standin_pieces(size: int, folders: Sequence[Path]) -> Iterator[tuple[int, bytes]]:
    """Yield the pieces of an image, its size in whole pages; everything else is zero."""
    source = random.Random(SEED)
    makers = {
        "files": _file_bytes(folders, source),
        "text": _text_bytes(source),
        "random": iter(lambda: source.randbytes(PAGE), b""),
    }
    written = dict.fromkeys(SHARES, 0)
    offset = 0
    while offset < size:
        kind = max(SHARES, key=lambda name: SHARES[name] * (offset + PAGE) - written[name])
        length = min(size - offset, source.randint(*SEGMENT_PAGES) * PAGE)
        if kind in makers:
            yield offset, _take(makers[kind], length)
        written[kind] += length
        offset += length


def _take(chunks: Iterator[bytes], length: int) -> bytes:
    taken = bytearray()
    while len(taken) < length:
        taken += next(chunks)
    return bytes(taken[:length])


def _file_bytes(folders: Sequence[Path], source: random.Random) -> Iterator[bytes]:
    """Contents of files, each from the start of a page as in the page cache."""
    paths = sorted(_files(folders))
    source.shuffle(paths)
    while True:
        yield bytes(PAGE)
        for path in paths:
            content = _read(path)
            yield content + bytes(-len(content) % PAGE)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _files(folders: Sequence[Path]) -> Iterator[Path]:
    """Regular files that are not tiny; compiled Python comes and goes, so it is left out."""
    for top in folders:
        for folder, below, names in os.walk(top):
            below[:] = [name for name in below if name != "__pycache__"]
            for name in names:
                path = Path(folder, name)
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and status.st_size >= SMALLEST_FILE:
                    yield path


def _text_bytes(source: random.Random) -> Iterator[bytes]:
    """Log lines."""
    number = 0
    while True:
        number += source.randrange(1, 9)
        clock = f"{number // 3600 % 24:02d}:{number // 60 % 60:02d}:{number % 60:02d}"
        words = " ".join(source.choices(WORDS, k=3))
        line = (
            f"2025-03-01 {clock} {source.choice(LEVELS)} {words} id={source.randrange(1 << 24)}\n"
        )
        yield line.encode()
