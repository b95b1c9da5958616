"""Contents of a guest's RAM, made up: text, noise, nearly empty pages and zero pages."""

from __future__ import annotations

from pathlib import Path

import numpy as np

PAGE = 4096
_WORDS = b"page frame slab inode dentry mutex queue buffer super packet block kernel user idle "


def text(pages: int, seed: int = 1) -> np.ndarray:
    """Return pages of words in a random order: they compress to about a quarter."""
    words = np.array([word + b" " for word in _WORDS.split()])
    table = words.view(np.uint8).reshape(len(words), -1)  # short words end in zeros
    drawn = np.random.default_rng(seed).integers(0, len(words), pages * PAGE // 4)
    joined = table[drawn].reshape(-1)
    return joined[joined != 0][: pages * PAGE].reshape(pages, PAGE)


def noise(pages: int, seed: int = 1) -> np.ndarray:
    """Return incompressible pages."""
    drawn = np.random.default_rng(seed).integers(0, 256, pages * PAGE, np.uint8)
    return drawn.reshape(pages, PAGE)


def zeros(pages: int) -> np.ndarray:
    """Return pages of zeros."""
    return np.zeros((pages, PAGE), np.uint8)


def specks(pages: int, seed: int = 1) -> np.ndarray:
    """Return pages with a single byte other than zero."""
    drawn = np.random.default_rng(seed).integers(0, PAGE, pages)
    made = zeros(pages)
    made[np.arange(pages), drawn] = 7
    return made


def mixed(size: int, seed: int = 1) -> bytes:
    """Return ``size`` bytes in runs of 1 to 40 pages of each kind; the last byte is not zero."""
    pages = -(-size // PAGE)
    draw = np.random.default_rng(seed)
    kinds = np.repeat(draw.integers(0, 5, pages), draw.integers(1, 41, pages))[:pages]
    made = zeros(pages)
    for kind, pool in ((1, text(64, seed)), (2, text(64, seed + 1)), (3, specks(64, seed))):
        made[kinds == kind] = pool[draw.integers(0, 64, np.count_nonzero(kinds == kind))]
    made[kinds == 4] = noise(int(np.count_nonzero(kinds == 4)), seed)
    made.reshape(-1)[size - 1] = 1
    return made.reshape(-1)[:size].tobytes()


def write(path: Path, content: bytes | np.ndarray) -> Path:
    """Write an image and return its path."""
    path.write_bytes(memoryview(content).cast("B"))
    return path


def write_sparse(path: Path, size: int, pieces: dict[int, bytes]) -> Path:
    """Write an image of a hole with some pieces, and return its path."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, piece in pieces.items():
            file.seek(offset)
            file.write(piece)
    return path


def disk_bytes(path: Path | str) -> int:
    """Return a file's space on its filesystem, in bytes."""
    return Path(path).stat().st_blocks * 512
