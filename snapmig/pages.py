"""Pages of a packet as numpy arrays: zero pages, and runs of neighbours."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from snapmig.geometry import PAGE_SIZE

__all__ = ("Bytes", "Kinds", "Mask", "PageGroup", "as_pages", "data_mask", "private", "runs")

Bytes = npt.NDArray[np.uint8]
"""Bytes of guest RAM; ``(pages, 4096)`` where they are cut into pages."""
Mask = npt.NDArray[np.bool_]
"""One truth value for each page of a packet."""
Kinds = npt.NDArray[np.uint8]
"""For each page of a packet, where its contents come from."""


class PageGroup(NamedTuple):
    """
    Pages of consecutive packets, without those in holes of their image.

    :param pages: as ``(n, 4096)``
    :param there: their places among all pages of these packets; all others are zero
    :param first: place of the first packet in its batch
    :param packets: number of packets
    :param packet_pages: pages of a full packet; a shorter one ends in pages of zeros
    """

    pages: Bytes
    there: slice | Mask
    first: int
    packets: int
    packet_pages: int

    @classmethod
    def of_packet(cls, pages: Bytes, packet_pages: int) -> PageGroup:
        """Return all pages of a single packet."""
        return cls(pages, slice(len(pages)), 0, 1, packet_pages)

    @property
    def is_whole(self) -> bool:
        """True for a single packet without holes."""
        return self.packets == 1 and len(self.pages) == self.packet_pages


_RUN = re.compile(rb"[\x01\x03]+")
_LARGEST_PACKET = 1024
"""Pages."""


def as_pages(content: Bytes) -> Bytes:
    """Return bytes as ``(pages, 4096)``; a copy filled up with zeros only if the last is short."""
    if content.size % PAGE_SIZE:
        padded = np.zeros(-(-content.size // PAGE_SIZE) * PAGE_SIZE, np.uint8)
        padded[: content.size] = content
        content = padded
    return content.reshape(-1, PAGE_SIZE)


def private(content: Bytes) -> Bytes:
    """
    Return bytes with stable contents: a copy if they lie in an image's mapping.

    The memory of a running guest may change between two reads, and such a mapping is read-only
    here.
    """
    return content if content.flags.writeable else content.copy()


def data_mask(pages: Bytes) -> Mask:
    """
    Return a mask of the nonzero pages among ``(n, 4096)``.

    The bytes are viewed as truth values, because numpy's ``any`` over those stops at the first one
    in a row and runs at memory speed over zeros: 29 us for 128 pages of data and 25 us for zeros,
    beside 43 us for a bitwise or over 64-bit words and 56 us for ``any`` over them.
    """
    return np.asarray(pages.view(np.bool_).any(axis=1))


def runs(mask: Mask | Kinds) -> tuple[tuple[int, int], ...]:
    """
    Return (first, count) of each run of true values, or of kinds of pages that are stored.

    A packet's mask comes back when its pages are read, checked and written, and many packets have
    the same. Masks of more than the largest packet are not kept.
    """
    found = mask.tobytes()
    return _known_runs(found) if len(found) <= _LARGEST_PACKET else _find_runs(found)


def _find_runs(mask: bytes) -> tuple[tuple[int, int], ...]:
    # A regular expression takes 3 us for a packet where numpy's differences take 45.
    return tuple((run.start(), run.end() - run.start()) for run in _RUN.finditer(mask))


_known_runs = lru_cache(1024)(_find_runs)
