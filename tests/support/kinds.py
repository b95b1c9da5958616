"""Page kinds in an index, read by docs/format.md alone."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

ZERO, DATA, SAME, DELTA = 0, 1, 2, 3
PAGE = 4096


@dataclass(frozen=True)
class PacketKinds:
    """A packet's record: the kind of each page, and the stored part of them."""

    kinds: tuple[int, ...]
    offset: int
    stored_size: int
    encoding: int


def read(path: Path | str) -> list[PacketKinds]:
    """Return the kinds in a snapshot's index, packet by packet."""
    raw = Path(path).read_bytes()
    packet_size, record_size = struct.unpack_from("<II", raw, 124)
    packets, index_at = struct.unpack_from("<QQ", raw, 136)
    found = []
    for at in range(index_at, index_at + packets * record_size, record_size):
        offset, stored_size, encoding = struct.unpack_from("<QIB", raw, at + 8)
        stored = raw[at + 96 : at + 96 + packet_size // PAGE // 4]
        kinds = tuple(byte >> shift & 3 for byte in stored for shift in (0, 2, 4, 6))
        found.append(PacketKinds(kinds, offset, stored_size, encoding))
    return found


def expected(content: bytes, parent: bytes, packet_size: int) -> list[tuple[int, ...]]:
    """
    Return the kinds of a block's pages beside its parent's contents, DATA where DELTA is allowed.

    Zero pages have kind 0, pages equal to the parent's are the parent's, all others are stored.
    """
    packets = []
    for start in range(0, len(content), packet_size):
        kinds = []
        for at in range(start, start + packet_size, PAGE):
            ours, theirs = content[at : at + PAGE], parent[at : at + PAGE]
            kinds.append(ZERO if not any(ours) else SAME if ours == theirs else DATA)
        packets.append(tuple(kinds))
    return packets


def without_deltas(packets: list[PacketKinds]) -> list[tuple[int, ...]]:
    """Return the kinds of packets with differences counted as data."""
    return [tuple(DATA if kind == DELTA else kind for kind in each.kinds) for each in packets]
