"""
Intel's Query Processing Library: deflate by the In-Memory Analytics Accelerator, or in software.

The accelerator looks back at most 4 KiB when it compresses and when it decompresses, and so does
the library in software. "Compressed Data Formats" in its documentation describes the three kinds of
tables; its word for ``trained`` is "static". Each stream carries its table as code lengths, like
any dynamic block of RFC 1951.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from snapmig.encodings.coders import Coder, EngineError
from snapmig.encodings.engines.devices import DeviceReport, find_iaa
from snapmig.encodings.engines.engine import DeflateSettings
from snapmig.encodings.engines.facts import EngineFacts
from snapmig.encodings.engines.qpl.jobs import Method, QplCoder
from snapmig.encodings.engines.qpl.library import (
    ACCEL_CONFIG,
    Flag,
    Histogram,
    Library,
    Operation,
    Route,
    Table,
    has_accel_config,
    load,
)
from snapmig.system.files import Buffer

__all__ = ("QplEngine", "QplSoftwareEngine")

WINDOW_BITS = 12
MAX_DEPTH = 32
HARDWARE_DEPTH = 8
"""One accelerator has eight engines, each with one job at a time."""
HUFFMAN = ("dynamic", "fixed", "trained")
LARGEST_SAMPLES = 1 << 30
"""Bytes; the library sums symbol counts in 32 bits."""
_USUAL_LEVEL = 1


class _Qpl:
    name: str
    title: str
    levels: range
    trusted = False
    max_window_bits = WINDOW_BITS
    route: Route
    flags = Flag.FIRST | Flag.LAST
    usual_depth = 1

    def facts(self) -> EngineFacts:
        """Look for the library and, for hardware, for work queues."""
        library = load()
        version = path = None
        if isinstance(library, str):
            report = DeviceReport((), library, "sudo apt-get install libqpl1")
        else:
            report, version, path = self._devices(), library.version, library.path
        return EngineFacts(
            name=self.name,
            title=self.title,
            hardware=self.route == Route.HARDWARE,
            version=version,
            library=path,
            devices=report.devices,
            problem=report.problem,
            remedy=report.remedy,
            levels=tuple(self.levels),
            compress_window_bits=WINDOW_BITS,
            decompress_window_bits=WINDOW_BITS,
            keeps_to_window=False,
            max_depth=MAX_DEPTH,
            huffman=HUFFMAN,
        )

    def compressor(self, settings: DeflateSettings) -> Coder:
        """Return a coder of streams with a window of 4 KiB."""
        library = self._library()
        if settings.level not in self.levels:
            raise EngineError(f"level {settings.level}, expected one of {tuple(self.levels)}")
        if settings.window_bits < WINDOW_BITS:
            message = f"window of {settings.window_bits} bits, expected {WINDOW_BITS} or more"
            raise EngineError(message)
        flags, table = self.flags, None
        if settings.huffman == "dynamic":
            flags |= Flag.DYNAMIC_HUFFMAN
        elif settings.huffman == "trained":
            table = Table(library, self.route, _histogram(settings.histogram))
        method = Method(self.route, Operation.COMPRESS, flags, settings.level, table)
        return QplCoder(library, method, self._depth(settings.depth))

    def decompressor(self, window_bits: int, depth: int | None = None) -> Coder:
        """Return a coder that refuses streams which reach back further than 4 KiB."""
        library = self._library()
        if window_bits > WINDOW_BITS:
            message = f"window of {window_bits} bits, expected {WINDOW_BITS} or fewer"
            raise EngineError(message)
        method = Method(self.route, Operation.DECOMPRESS)
        return QplCoder(library, method, self._depth(depth))

    def train(self, samples: Sequence[Buffer]) -> bytes:
        """
        Return the counts of symbols in samples of the data, of 1 GiB together at most.

        Software counts for both, so that it can be done before the device is at hand.
        """
        library = load()
        if isinstance(library, str):
            raise EngineError(library)
        histogram = Histogram()
        # Every symbol needs a code: packets contain more than the samples.
        histogram.literals_and_lengths[:] = [1] * len(histogram.literals_and_lengths)
        histogram.distances[:] = [1] * len(histogram.distances)
        if sum(memoryview(sample).nbytes for sample in samples) > LARGEST_SAMPLES:
            raise EngineError(f"samples of more than {LARGEST_SAMPLES >> 30} GiB")
        for sample in samples:
            data = np.frombuffer(sample, np.uint8)
            status = library.c.qpl_gather_deflate_statistics(
                data.ctypes.data, len(data), ctypes.byref(histogram), _USUAL_LEVEL, Route.SOFTWARE
            )
            library.check(status, "histogram")
        return bytes(histogram)

    def _devices(self) -> DeviceReport:
        return DeviceReport((), None, None)

    def _library(self) -> Library:
        problem = self.facts().problem
        library = load()
        if problem is not None or isinstance(library, str):
            raise EngineError(problem)
        return library

    def _depth(self, asked: int | None) -> int:
        return min(max(asked or self.usual_depth, 1), MAX_DEPTH)


class QplEngine(_Qpl):
    """The accelerator alone. Work it can't do is an error, and never done in software."""

    name = "qpl"
    title = "Intel In-Memory Analytics Accelerator, through QPL"
    levels = range(1, 2)
    route = Route.HARDWARE
    usual_depth = HARDWARE_DEPTH

    def _devices(self) -> DeviceReport:
        report = find_iaa()
        if report.problem is None and not has_accel_config():
            remedy = "sudo apt-get install libaccel-config1"
            return DeviceReport(report.devices, f"{ACCEL_CONFIG} is missing", remedy)
        return report


class QplSoftwareEngine(_Qpl):
    """The same streams without a device, to measure the accelerator's ratio and for tests."""

    name = "qpl:software"
    title = "Intel QPL in software, without the accelerator"
    levels = range(1, 4, 2)
    route = Route.SOFTWARE
    # Version 1.9 refuses its own streams of more than 32 KiB of data in its verification (status
    # 229), all of which are right by zlib. The accelerator's streams it does verify by the device.
    flags = _Qpl.flags | Flag.OMIT_VERIFY


def _histogram(counts: bytes | None) -> Histogram:
    expected = ctypes.sizeof(Histogram)
    if counts is None or len(counts) != expected:
        found = "none" if counts is None else f"{len(counts)} bytes"
        raise EngineError(f"histogram of {found}, expected {expected} bytes")
    return Histogram.from_buffer_copy(counts)
