"""Values drawn by hypothesis: guests' RAM, ways to save it, and outcomes to compare."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

import snapmig
from tests.support import ram

PACKET_SIZES = ("64K", "128K", "256K", "512K", "1M", "2M", "4M")
LAYOUTS = ("fixed", "packed")


def contents_of(drawn: tuple[int, int, list[int]]) -> bytes:
    """Return bytes of a size: pages made of a seed, in runs of kinds."""
    size, seed, kinds = drawn
    pages = -(-size // ram.PAGE)
    pools = [ram.zeros(8), ram.text(8, seed), ram.noise(8, seed), ram.specks(8, seed)]
    order = np.resize(np.repeat(kinds, 5), pages)
    made = np.stack([pools[kind][number % 8] for number, kind in enumerate(order.tolist())])
    return made.reshape(-1)[:size].tobytes()


SIZES = st.one_of(
    st.integers(1, 600_000),
    st.sampled_from([1, 4095, 4096, 4097, 65535, 65536, 65537, 524288, 524289, 5 << 20]),
)
CONTENTS = st.tuples(
    SIZES, st.integers(0, 1000), st.lists(st.integers(0, 3), min_size=1, max_size=12)
).map(contents_of)
"""Bytes of one RAM block, in runs of five pages of zeros, text, noise or single bytes."""

ZLIB = st.fixed_dictionaries(
    {
        "level": st.sampled_from([0, 1, 2, 3, 6, 9, "auto"]),
        "window": st.sampled_from(["4k", "32k"]),
    }
)
OTHERS = st.sampled_from(
    [
        {"compression": compression, "level": level}
        for compression, levels in (("zstd", (-7, 1, 9, "auto")), ("lz4", (1, 12, "auto")))
        for level in levels
    ]
    + [{"compression": "none"}]
)
WAYS = st.builds(
    lambda way, coding: {**way, **coding},
    st.fixed_dictionaries(
        {
            "jobs": st.integers(1, 4),
            "packet_size": st.sampled_from(PACKET_SIZES),
            "layout": st.sampled_from(LAYOUTS),
        }
    ),
    st.one_of(ZLIB, OTHERS),
)
"""Arguments of a save."""


@contextmanager
def directory() -> Iterator[Path]:
    """Give a new directory in shared memory: hypothesis runs a test many times."""
    with tempfile.TemporaryDirectory(prefix="snapmig-test-", dir="/dev/shm") as name:
        yield Path(name)


def restored(snapshot: Path, image: Path, **options: Any) -> bytes | int:
    """Return a restored image's bytes, or the exit code of the refusal."""
    try:
        snapmig.restore(snapshot, image, force=True, **options)
    except snapmig.SnapmigError as error:
        return error.exit_code
    return image.read_bytes()


def opened(snapshot: Path) -> tuple[bytes, dict[str, bytes]] | int:
    """Return all of a snapshot's RAM and attachments, or the exit code of the refusal."""
    try:
        with snapmig.open(snapshot) as found:
            return found.read(0, len(found)), dict(found.attachments)
    except snapmig.SnapmigError as error:
        return error.exit_code


def flipped(raw: bytes, bit: int) -> bytes:
    """Return bytes of which one bit is another."""
    return raw[: bit // 8] + bytes([raw[bit // 8] ^ 1 << bit % 8]) + raw[bit // 8 + 1 :]
