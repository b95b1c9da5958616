"""Packets known by their records, and recognised again: the parent's, or those saved before."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from snapmig.checksums import xxh3_128
from snapmig.container.index import Records, used_pages
from snapmig.encodings.packet import Summary, summaries
from snapmig.pages import PageGroup

__all__ = ("KnownPackets",)


class KnownPackets:
    """
    The zero pages and digests of consecutive packets.

    Two packets with both the same are equal: 128 bits are enough, and nothing is read.

    :param records: checked ones, of all of them
    """

    def __init__(self, records: Records) -> None:
        used = used_pages(records["kinds"])
        self._pages = used.shape[1]
        self._used = used.tobytes()
        self._has_pages: list[bool] = np.asarray(used.any(axis=1)).tolist()
        self._digests = records["digest"].tobytes()
        self._changes = False

    def compare(self, group: PageGroup) -> Iterator[tuple[int, Summary | None]]:
        """
        Yield the summaries of packets by their places, None for one equal to the known one.

        One without zero pages is digested where it is: most packets of a busy guest. A digest that
        is stored is computed over a copy, because the image may change. Behind a changed packet
        that copy is made at once: changes have neighbours.
        """
        full = group.is_whole and 0 not in self._used_of(group.first)
        if full and not self._changes and xxh3_128(group.pages.data) == self._digest(group.first):
            yield group.first, None
            return
        for at, summary in summaries(group):
            self._changes = not self.matches(at, summary)
            yield at, summary if self._changes else None

    def matches(self, at: int, summary: Summary) -> bool:
        """Return True if a packet is equal to the known one."""
        return summary.digest == self._digest(at) and summary.kinds.tobytes() == self._used_of(at)

    def has_pages(self, at: int) -> bool:
        """Return True if the known packet has pages other than zero."""
        return self._has_pages[at]

    def with_pages(self) -> list[int]:
        """Return the places of known packets with pages other than zero."""
        return [at for at, has_pages in enumerate(self._has_pages) if has_pages]

    def _used_of(self, at: int) -> bytes:
        return self._used[at * self._pages : (at + 1) * self._pages]

    def _digest(self, at: int) -> bytes:
        return self._digests[at * 16 : at * 16 + 16]
