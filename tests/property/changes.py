"""Chains drawn by hypothesis: a guest's RAM, its changes, and ways to save both."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from tests.property.contents import LAYOUTS, contents_of
from tests.support import ram
from tests.support.steady import STEADY

PACKET = 64 << 10
COMPRESSIONS = ("zlib", "zstd", "lz4", "none")
OPERATIONS = ("byte", "bytes", "noise", "text", "zero", "move", "packet", "tail")


class Change(NamedTuple):
    """A change of some pages."""

    operation: str
    where: float
    pages: int
    seed: int


CHANGES = st.lists(
    st.builds(
        Change,
        st.sampled_from(OPERATIONS),
        st.floats(0, 1, exclude_max=True),
        st.integers(1, 20),
        st.integers(0, 1000),
    ),
    max_size=5,
)
SIZES = st.one_of(
    st.integers(1, 400_000), st.sampled_from([1, 4095, 4097, 65536, 65537, 131072, 200_000])
)
CONTENTS = st.tuples(
    SIZES, st.integers(0, 1000), st.lists(st.integers(0, 3), min_size=1, max_size=12)
).map(contents_of)
"""Bytes of one RAM block that is a few packets long."""

WAYS = st.fixed_dictionaries(
    {
        "jobs": st.integers(1, 2),
        "compression": st.sampled_from(COMPRESSIONS),
        "layout": st.sampled_from(LAYOUTS),
    }
)
"""Arguments of a save that may be others for each snapshot of a chain."""


def steady(way: dict[str, Any]) -> dict[str, Any]:
    """Return a way that always makes the same bytes of the same pages."""
    return {**way, **STEADY} if way["compression"] == "zlib" else way


def changed(content: bytes, changes: list[Change]) -> bytes:
    """Return contents of the same size after changes."""
    made = np.frombuffer(content, np.uint8).copy()
    for change in changes:
        first = int(change.where * (-(-made.size // ram.PAGE))) * ram.PAGE
        part = made[first : first + change.pages * ram.PAGE]
        _apply(change, made, first, part)
    return made.tobytes()


def _apply(change: Change, made: np.ndarray, first: int, part: np.ndarray) -> None:
    if change.operation == "byte":
        part[change.seed % part.size] ^= 1
    elif change.operation == "bytes":
        part[change.seed :: ram.PAGE] += 7
    elif change.operation in ("noise", "text"):
        part[:] = getattr(ram, change.operation)(change.pages, change.seed).reshape(-1)[: part.size]
    elif change.operation == "zero":
        part[:] = 0
    elif change.operation == "move":
        target = made[change.seed * ram.PAGE % made.size // ram.PAGE * ram.PAGE :][: part.size]
        target[:] = part[: target.size].copy()
    elif change.operation == "packet":
        packet = made[first // PACKET * PACKET :][:PACKET]
        packet[:] = ram.text(16, change.seed).reshape(-1)[: packet.size]
    else:
        made[-1] ^= 1


@st.composite
def chains(draw: st.DrawFn, least: int = 2, most: int = 4) -> list[bytes]:
    """Return the contents of a guest's RAM at several moments, the oldest first."""
    images = [draw(CONTENTS)]
    for _ in range(draw(st.integers(least, most)) - 1):
        images.append(changed(images[draw(st.integers(0, len(images) - 1))], draw(CHANGES)))
    return images
