"""Counters of workers, in the cells of :mod:`snapmig.workers.counters`."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from snapmig.container.format import Encoding
from snapmig.container.index import Records
from snapmig.encodings.measured import Figures
from snapmig.workers.counters import Row

__all__ = (
    "MOST_CODECS",
    "Counter",
    "by_codec",
    "count_codecs",
    "count_packets",
    "encoding_counter",
)


class Counter(IntEnum):
    """The number of a cell."""

    RAM_BYTES = 0
    """Bytes of guest RAM in finished packets: written, not just issued."""
    STORED_BYTES = 1
    DATA_PAGES = 2
    """Pages that are not zero."""
    EMPTY_PACKETS = 3
    RAW_PACKETS = 4
    DEFLATE_PACKETS = 5
    ZSTD_PACKETS = 6
    LZ4_PACKETS = 7
    DAMAGED_PACKETS = 8
    CHANGED_PACKETS = 9
    """Packets found changed by later passes."""
    WORK_NS = 10
    """Nanoseconds spent in tasks, and the part of them spent writing."""
    WRITE_NS = 11
    ENGINE_FAILURES = 12
    """Packets left to software by the engine."""
    SAME_PAGES = 13
    """Data pages taken from the parent, and data pages stored as differences from it."""
    DELTA_PAGES = 14
    WRITTEN_BYTES = 15
    """Bytes written of packets, including those written again by a second pass."""
    SAMPLED_PACKETS = 16
    """Packets read again to see if the image changed meanwhile."""
    REWRITTEN_BYTES = 17
    """Stored bytes of packets written over older ones, because the guest sent pages again."""
    RECEIVED_BYTES = 18
    """Bytes of guest RAM received over channels, pages sent again included."""
    KEPT_PACKETS = 19
    """Packets with pages that were taken over from an interrupted run."""
    NOTE_PACKET = 20
    """1 + the number of a packet with the kernel's note, the first of each worker: no sum."""
    REPEATED_REQUESTS = 21
    """Requests for objects that were refused at first, or whose connections broke."""
    WAIT_NS = 22
    """Nanoseconds of writing in which the worker slept until the disk had an older batch."""
    DRAINED_BYTES = 23
    """Bytes written of which the worker knows that the destination has them."""
    CODEC_DATA = 24
    """From here on seven of each, by the codec's place: bytes of pages that it encoded,"""
    CODEC_NS = 31
    """the time for that,"""
    CODEC_STORED = 38
    """and what it made of them;"""
    PROBE_DATA = 45
    """likewise of packets that it only tried."""
    PROBE_NS = 52
    PROBE_STORED = 59
    ARRIVED_BYTES = 66
    """Bytes of objects that came to the worker, read yet or not."""


MOST_CODECS = 7
"""Codecs that a save may choose from."""


_BY_ENCODING: dict[int, Counter] = {
    Encoding.EMPTY: Counter.EMPTY_PACKETS,
    Encoding.RAW: Counter.RAW_PACKETS,
    Encoding.DEFLATE: Counter.DEFLATE_PACKETS,
    Encoding.ZSTD: Counter.ZSTD_PACKETS,
    Encoding.LZ4: Counter.LZ4_PACKETS,
}


def encoding_counter(encoding: int) -> Counter:
    """Return the counter of packets in an encoding."""
    return _BY_ENCODING[encoding]


def by_codec(counter: Counter, codecs: int) -> slice:
    """Return the cells of all codecs that begin with a counter's."""
    return slice(counter, counter + codecs)


def count_codecs(row: Row, figures: Figures) -> None:
    """Set the sums of codecs in a row."""
    codecs = len(figures.data)
    row[by_codec(Counter.CODEC_DATA, codecs)] = figures.data
    row[by_codec(Counter.CODEC_NS, codecs)] = figures.ns
    row[by_codec(Counter.CODEC_STORED, codecs)] = figures.stored
    if codecs > 1:
        row[by_codec(Counter.PROBE_DATA, codecs)] = figures.probed.data
        row[by_codec(Counter.PROBE_NS, codecs)] = figures.probed.ns
        row[by_codec(Counter.PROBE_STORED, codecs)] = figures.probed.stored


def count_packets(row: Row, records: Records, times: int) -> None:
    """
    Add the packets, pages and stored bytes of records to a row.

    :param times: 1, or -1 to take back records about to be replaced
    """
    for encoding, count in enumerate(np.bincount(records["encoding"]).tolist()):
        if count:
            row[encoding_counter(Encoding(encoding))] += times * count
    row[Counter.STORED_BYTES] += times * int(records["stored_size"].sum(dtype=np.int64))
    low, high = records["kinds"] & 0x55, records["kinds"] >> 1 & 0x55  # each page's two bits
    for counter, bits in (
        (Counter.DATA_PAGES, low | high),
        (Counter.SAME_PAGES, high & ~low),
        (Counter.DELTA_PAGES, high & low),
    ):
        row[counter] += times * int(np.bitwise_count(bits).sum(dtype=np.int64))
