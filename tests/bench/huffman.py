"""
Measures kinds of Huffman tables: one process, packets of a guest's RAM, windows of 4 KiB.

The question is whether a table that is trained once, with samples of the image, and written into
each stream is worth it in software, where one pass over the data is saved, as it is on devices.
ISA-L is called through ctypes, because its Python binding has no such tables.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from snapmig.encodings.coders import EngineError
from snapmig.encodings.engines.engine import DeflateSettings
from snapmig.encodings.engines.qpl.engine import QplSoftwareEngine

PAGE = 4096
PACKET_PAGES = 128
WINDOW_BITS = 12
TRAINED_WITH = 16
"""One packet of so many is a sample."""
NEAR_DISTANCES = 24
"""Distance codes up to 4 KiB, by RFC 1951, section 3.2.5."""
ROOM = 2 * PACKET_PAGES * PAGE
"""Bytes for a stream; a code has at most 15 bits."""
COMPRESSIBLE = 0.95
"""What zlib must get a packet to: snapmig stores noise as it is, whatever the table."""

Compress = Callable[[np.ndarray], memoryview]


class Tables(ctypes.Structure):
    """``isal_huff_histogram`` of igzip_lib.h, and room for what is made of it."""

    _fields_ = (
        ("lit_len_histogram", ctypes.c_uint64 * 286),
        ("dist_histogram", ctypes.c_uint64 * 30),
        ("hash_table", ctypes.c_uint16 * 8192),
    )


class Stream(ctypes.Structure):
    """``isal_zstream`` of igzip_lib.h; ``isal_zstate`` takes less than what is there for it."""

    _fields_ = (
        ("next_in", ctypes.c_void_p),
        ("avail_in", ctypes.c_uint32),
        ("total_in", ctypes.c_uint32),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint32),
        ("total_out", ctypes.c_uint32),
        ("hufftables", ctypes.c_void_p),
        ("level", ctypes.c_uint32),
        ("level_buf_size", ctypes.c_uint32),
        ("level_buf", ctypes.c_void_p),
        ("end_of_stream", ctypes.c_uint16),
        ("flush", ctypes.c_uint16),
        ("gzip_flag", ctypes.c_uint16),
        ("hist_bits", ctypes.c_uint16),
        ("internal_state", ctypes.c_uint8 * (256 * 1024)),
    )


class Isal:
    """
    ISA-L's compressor.

    :param level: 0 has ready-made tables, 1 makes them for the data
    :param kind: of ready-made table: 0 trained, 1 the library's own, 2 that of RFC 1951
    """

    def __init__(self, level: int, kind: int, samples: Sequence[np.ndarray] = ()) -> None:
        self._c = ctypes.CDLL("libisal.so.2")
        self._stream = Stream()
        self._level_buffer = ctypes.create_string_buffer(512 * 1024)
        self._level, self._kind = level, kind
        self._tables = ctypes.create_string_buffer(64 * 1024)
        self._output = np.full(ROOM, 0, np.uint8)
        if samples:
            self._train(samples)

    def __call__(self, data: np.ndarray) -> memoryview:
        """Return one stream, good until the next call."""
        stream = self._stream
        self._c.isal_deflate_init(ctypes.byref(stream))
        tables = ctypes.byref(self._tables) if self._kind == 0 else None
        if self._c.isal_deflate_set_hufftables(ctypes.byref(stream), tables, self._kind):
            raise RuntimeError("ISA-L refused the table")
        stream.next_in, stream.avail_in = data.ctypes.data, len(data)
        stream.next_out, stream.avail_out = self._output.ctypes.data, len(self._output)
        stream.level, stream.hist_bits, stream.end_of_stream = self._level, WINDOW_BITS, 1
        stream.level_buf = ctypes.addressof(self._level_buffer)
        stream.level_buf_size = len(self._level_buffer)
        if self._c.isal_deflate(ctypes.byref(stream)) or stream.avail_in:
            raise RuntimeError("ISA-L failed")
        return memoryview(self._output)[: stream.total_out]

    def _train(self, samples: Sequence[np.ndarray]) -> None:
        counts = Tables()
        for sample in samples:
            self._c.isal_update_histogram(
                ctypes.c_void_p(sample.ctypes.data), len(sample), ctypes.byref(counts)
            )
        for code in range(NEAR_DISTANCES, len(counts.dist_histogram)):
            counts.dist_histogram[code] = 0
        if self._c.isal_create_hufftables(ctypes.byref(self._tables), ctypes.byref(counts)):
            raise RuntimeError("ISA-L made no table")


def qpl(huffman: str, samples: Sequence[np.ndarray] = ()) -> Compress:
    """Return QPL's compressor in software, level 1."""
    engine = QplSoftwareEngine()
    histogram = engine.train(samples) if samples else None
    coder = engine.compressor(DeflateSettings(1, huffman=huffman, histogram=histogram))

    def compress(data: np.ndarray) -> memoryview:
        coder.submit(0, data, ROOM)
        done = coder.reap()
        if done.result is None:
            raise RuntimeError(f"QPL failed: {done.error}")
        return done.result

    return compress


def contestants(samples: Sequence[np.ndarray]) -> Iterator[tuple[str, Compress]]:
    """Yield those whose library is here."""
    makers: dict[str, Callable[[], Compress]] = {
        "ISA-L 0, RFC 1951's fixed table": lambda: Isal(0, 2),
        "ISA-L 0, its own table": lambda: Isal(0, 1),
        "ISA-L 0, trained table": lambda: Isal(0, 0, samples),
        "ISA-L 1, tables by block": lambda: Isal(1, 1),
        "QPL 1, RFC 1951's fixed table": lambda: qpl("fixed"),
        "QPL 1, trained table": lambda: qpl("trained", samples),
        "QPL 1, tables by block": lambda: qpl("dynamic"),
    }
    for name, make in makers.items():
        try:
            yield name, make()
        except (OSError, EngineError) as error:
            print(f"{name}: left out: {error}", file=sys.stderr)


def packets(image: Path, most: int) -> list[np.ndarray]:
    """Return the data pages of up to so many packets, spread over the image."""
    pages = np.fromfile(image, np.uint8).reshape(-1, PAGE)
    starts = range(0, len(pages), PACKET_PAGES)
    found = []
    for start in starts:
        part = pages[start : start + PACKET_PAGES]
        data = part[part.any(axis=1)]
        if len(data) and len(zlib.compress(data, 1)) < COMPRESSIBLE * data.size:
            found.append(data.reshape(-1))
    step = max(len(found) // most, 1)
    return found[::step][:most]


def check(compress: Compress, data: Sequence[np.ndarray]) -> int:
    """Return the bytes of all streams, after zlib found each one right."""
    total = 0
    for packet in data:
        stream = compress(packet)
        decoder = zlib.decompressobj(-WINDOW_BITS)
        if decoder.decompress(stream) != packet.tobytes() or not decoder.eof:
            raise RuntimeError("zlib gets other bytes")
        total += len(stream)
    return total


def seconds(compress: Compress, data: Sequence[np.ndarray]) -> float:
    """Return the time for all packets."""
    begin = time.perf_counter()
    for packet in data:
        compress(packet)
    return time.perf_counter() - begin


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.huffman", description=__doc__)
    parser.add_argument("--image", type=Path, required=True, help="a guest's RAM, whole pages")
    parser.add_argument("--packets", type=int, default=128, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    options = parser.parse_args(arguments)
    data = packets(options.image, options.packets)
    entrants: dict[str, Any] = dict(contestants(data[::TRAINED_WITH]))
    sizes = {name: check(compress, data) for name, compress in entrants.items()}
    times: dict[str, list[float]] = {name: [] for name in entrants}
    for _ in range(options.rounds):
        for name, compress in entrants.items():
            times[name].append(seconds(compress, data))
    plain = sum(map(len, data))
    print(f"{len(data)} packets, {plain / 2**20:.0f} MiB of data pages, {options.rounds} rounds")
    print(f"{'':34}{'stored':>8}{'MiB/s':>8}{'lowest':>8}{'highest':>8}")
    for name in entrants:
        speeds = [plain / 2**20 / each for each in times[name]]
        figures = [statistics.median(speeds), min(speeds), max(speeds)]
        columns = "".join(f"{figure:8.0f}" for figure in figures)
        print(f"{name:34}{sizes[name] / plain:8.1%}{columns}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
