"""
One packet's pages, and the part of them to store.

Zero pages are not stored. The others, in order, are compressed together, or stored as they are if
that takes no more 4 KiB blocks. A packet never outgrows its slot.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from snapmig.checksums import crc32, xxh3_128
from snapmig.container.format import PAGE_DIGEST_SIZE, Encoding, PageKind
from snapmig.container.page_digests import digest_pages, digest_rows
from snapmig.encodings import deflate
from snapmig.geometry import PAGE_SIZE
from snapmig.pages import Bytes, Kinds, Mask, PageGroup, data_mask, private
from snapmig.system.files import Buffer

__all__ = (
    "EncodedPacket",
    "Summary",
    "looks_random",
    "pack",
    "size_limit",
    "summaries",
    "summarise",
)

NO_DIGEST = bytes(16)
"""In place of a digest where a packet has no data page."""

_SAMPLE_BYTES = 256
_SAMPLE_DISTINCT = 140
"""256 random bytes have 162 different values on average and fewer than 140 practically never;
machine code, text and tables have 20 to 120."""
_SAMPLE_PAGES = 4
_FEW = 8
"""A difference with so many times fewer bytes other than zero is certainly smaller."""


class Summary(NamedTuple):
    """
    A packet's pages.

    :param kinds: of each page
    :param data: pages to store, as ``(n, 4096)``
    :param digest: of all pages other than zero
    :param page_digests: of each page, 16 bytes; none unless asked for
    """

    kinds: Kinds
    data: Bytes
    digest: bytes
    page_digests: bytes = b""


class Forms(NamedTuple):
    """
    The ways to store a packet beside its parent.

    :param plain: changed pages as they are
    :param mixed: those as differences where likely smaller; None: nowhere
    :param sure: ``mixed`` need not be compared with ``plain``: a single page takes as much in
        either form, otherwise a stream of few bytes among zeros is the smaller one, or both are
        tiny
    """

    plain: Summary
    mixed: Summary | None = None
    sure: bool = False


class EncodedPacket(NamedTuple):
    """
    A packet ready to be stored.

    :param kinds: of its pages
    :param payload: the stored bytes: one stream, or the stored pages as ``(n, 4096)``; valid until
        the next packet is encoded
    :param page_digests: of each page, 16 bytes; none unless asked for
    :param nonce: of a sealed packet, as the tag
    :param in_place: the stored bytes are at their place already
    """

    kinds: Kinds
    encoding: Encoding
    payload: Buffer
    stored_size: int
    stored_checksum: int
    digest: bytes
    page_digests: bytes = b""
    nonce: bytes = b""
    tag: bytes = b""
    in_place: bool = False

    @property
    def mask(self) -> Mask:
        """Mask of its stored pages."""
        return (self.kinds & 1).view(np.bool_)

    def kept(self) -> EncodedPacket:
        """Return a packet that stays valid while others are encoded."""
        if self.encoding in (Encoding.EMPTY, Encoding.RAW) or isinstance(self.payload, bytes):
            return self
        return self._replace(payload=bytes(self.payload))


def summarise(pages: Bytes) -> Summary:
    """Return the summary of a packet's ``(n, 4096)`` pages; see :func:`summaries`."""
    ((_, summary),) = summaries(PageGroup.of_packet(pages, len(pages)))
    return summary


def summaries(group: PageGroup, *, page_digests: bool = False) -> Iterator[tuple[int, Summary]]:
    """
    Yield the summaries of packets, by their places in the batch; among several, none of zeros.

    An image may change at any moment. Pages are therefore copied before they are digested,
    compared, encoded or written, so that all results are of the same bytes. A page that becomes
    zero after the mask was made is stored as a page of zeros.

    :param page_digests: compute those, too
    """
    own = data_mask(group.pages)
    data = private(group.pages) if own.all() else group.pages[own]
    mask = np.zeros((group.packets, group.packet_pages), np.bool_)
    mask.reshape(-1)[group.there] = own
    found = digest_pages(data, mask.reshape(-1)) if page_digests else b""
    size = len(found) // group.packets
    kinds = mask.view(np.uint8)  # true is 1, and 1 is a data page
    counts = np.count_nonzero(mask, axis=1)
    used = np.flatnonzero(counts) if group.packets > 1 else np.zeros(1, np.int64)
    start = 0
    for at, end in zip(used.tolist(), counts.cumsum()[used].tolist(), strict=True):
        part, digests = data[start:end], found[at * size : (at + 1) * size]
        digest = xxh3_128(part.data) if start < end else NO_DIGEST
        yield group.first + at, Summary(kinds[at], part, digest, digests)
        start = end


def with_page_digests(summary: Summary) -> Summary:
    """Return a packet with page digests; none of its pages is known to be the parent's."""
    digests = digest_pages(summary.data, summary.kinds.view(np.bool_))
    return summary._replace(page_digests=digests)


def against_digests(summary: Summary, parent: bytes, in_use: Mask) -> Summary:
    """
    Return a packet with page digests, without the pages equal to the parent's by their digests.

    :param parent: digests of at least as many pages of the parent
    :param in_use: mask of its pages other than zero
    """
    theirs = digest_rows(parent[: len(summary.kinds) * PAGE_DIGEST_SIZE])
    equal = (digest_rows(summary.page_digests) == theirs).all(axis=1)
    used = summary.kinds.view(np.bool_)
    same = equal & used & in_use
    kinds = summary.kinds.copy()
    kinds[same] = PageKind.SAME_AS_PARENT
    return summary._replace(kinds=kinds, data=summary.data[~same[used]])


def against_parent(summary: Summary, parent: Bytes, *, deltas: bool = True) -> Forms:
    """
    Return a packet without the pages equal to the parent's.

    :param parent: all pages of the parent's packet, zero pages included, as ``(n, 4096)``; or only
        those that the packet has
    :param deltas: compute differences, too
    """
    places = np.flatnonzero(summary.kinds)
    theirs = parent if len(places) == len(parent) else parent[places]
    # By words: 33 us for 128 pages, where bytes take 51.
    changed = (summary.data.view(np.uint64) != theirs.view(np.uint64)).any(axis=1)
    kinds = summary.kinds.copy()
    kinds[places[~changed]] = PageKind.SAME_AS_PARENT
    plain = summary._replace(kinds=kinds, data=summary.data[changed])
    if not deltas:
        return Forms(plain)
    mixed = theirs[changed]
    np.bitwise_xor(mixed, plain.data, out=mixed)
    as_delta, as_page = _nonzero_bytes(mixed), _nonzero_bytes(plain.data)
    fewer = as_delta * 2 < as_page
    if not fewer.any():
        return Forms(plain)
    kinds = kinds.copy()
    kinds[places[changed][fewer]] = PageKind.DELTA_AGAINST_PARENT
    mixed[~fewer] = plain.data[~fewer]
    few = np.where(fewer, as_delta, as_page).sum() * _FEW < as_page.sum()
    return Forms(plain, summary._replace(kinds=kinds, data=mixed), len(mixed) > 1 and bool(few))


def _nonzero_bytes(pages: Bytes) -> npt.NDArray[np.int64]:
    # Of each page: 37 us for 128 of them, where numpy's own count along an axis takes 219. Bytes
    # pack as truth values do.
    bits = np.packbits(pages, axis=1).view(np.uint64)
    return np.asarray(np.bitwise_count(bits).sum(axis=1, dtype=np.int64))


def size_limit(data: Bytes) -> int:
    """Return the largest stream size that takes fewer 4 KiB blocks than its pages."""
    return data.nbytes - PAGE_SIZE


def pack(summary: Summary, encoding: Encoding, stream: Buffer | None) -> EncodedPacket:
    """Return a packet of a stream, or of the pages as they are if that is as small."""
    kinds, data, *_ = summary
    digests = summary.digest, summary.page_digests
    if len(data) == 0:
        return EncodedPacket(kinds, Encoding.EMPTY, b"", 0, 0, *digests)
    if stream is not None and len(stream) <= size_limit(data):
        return EncodedPacket(kinds, encoding, stream, len(stream), crc32(stream), *digests)
    return EncodedPacket(kinds, Encoding.RAW, data, data.nbytes, crc32(data), *digests)


def looks_random(data: Bytes) -> bool:
    """
    Return whether a sample of the pages suggests that compression is useless.

    A histogram of 256 bytes costs 5 us, a packet's compression 1,800; only apparently random
    packets have a few pages tried. The odd step avoids alignments of programs.
    """
    flat = data.reshape(-1)
    sample = flat[:: flat.size // _SAMPLE_BYTES - 1][:_SAMPLE_BYTES]
    if len(set(sample.tobytes())) < _SAMPLE_DISTINCT:
        return False
    step = max(1, len(data) // _SAMPLE_PAGES)
    tried = np.ascontiguousarray(data[::step][:_SAMPLE_PAGES])
    return len(deflate.compress(tried, 1, 15)) > tried.nbytes * 15 // 16
