"""
Bindings of Intel's Query Processing Library through ctypes.

Names, layouts and numbers are those of the headers ``qpl/c_api/*.h`` of version 1.9 (job.h, defs.h,
statistics.h, huffman_table.h); the soname promises that they stay. :class:`Job` verifies the layout
anyway.
"""

from __future__ import annotations

import ctypes
import weakref
from ctypes import POINTER, byref, c_int32, c_uint8, c_uint32, c_uint64, c_void_p
from enum import IntEnum, IntFlag
from functools import cache
from pathlib import Path

from snapmig.encodings.coders import EngineError
from snapmig.encodings.engines.qpl.status import Status, status_text

__all__ = (
    "SONAME",
    "Flag",
    "Histogram",
    "Job",
    "JobFields",
    "Library",
    "Operation",
    "Route",
    "Table",
    "has_accel_config",
    "load",
)

SONAME = "libqpl.so.1"
ACCEL_CONFIG = "libaccel-config.so.1"
"""Loaded by the library itself to find the work queues."""

LITERALS_AND_LENGTHS = 286
DISTANCES = 30
_ALIGNMENT = 64
_COMPRESSION_TABLE = 1


class Route(IntEnum):
    """The executor of a job (``qpl_path_t``); ``auto`` is left out because it hides that."""

    HARDWARE = 1
    SOFTWARE = 2


class Operation(IntEnum):
    """The kind of a job (``qpl_operation``)."""

    DECOMPRESS = 0
    COMPRESS = 1


class Flag(IntFlag):
    """Options of a job (``QPL_FLAG_*``)."""

    FIRST = 0x1
    LAST = 0x2
    DYNAMIC_HUFFMAN = 0x2000
    OMIT_VERIFY = 0x4000


class JobFields(ctypes.Structure):
    """``qpl_job``: in and out of every call. The memory behind it belongs to the library."""

    _fields_ = (
        ("next_in_ptr", c_void_p),
        ("available_in", c_uint32),
        ("total_in", c_uint32),
        ("next_out_ptr", c_void_p),
        ("available_out", c_uint32),
        ("total_out", c_uint32),
        ("op", c_uint32),
        ("flags", c_uint32),
        ("crc", c_uint32),
        ("xor_checksum", c_uint32),
        ("last_bit_offset", c_uint32),
        ("level", c_uint32),
        ("statistics_mode", c_uint32),
        ("huffman_table", c_void_p),
        ("dictionary", c_void_p),
        ("mini_block_size", c_uint32),
        ("idx_array", c_void_p),
        ("idx_max_size", c_uint32),
        ("idx_num_written", c_uint32),
        ("decomp_end_processing", c_uint8),
        ("ignore_start_bits", c_uint8),
        ("ignore_end_bits", c_uint8),
        ("crc64_poly", c_uint64),
        ("crc64", c_uint64),
        ("next_src2_ptr", c_void_p),
        ("available_src2", c_uint32),
        ("src1_bit_width", c_uint32),
        ("src2_bit_width", c_uint32),
        ("num_input_elements", c_uint32),
        ("out_bit_width", c_uint32),
        ("param_low", c_uint32),
        ("param_high", c_uint32),
        ("drop_initial_bytes", c_uint32),
        ("initial_output_index", c_uint32),
        ("parser", c_uint32),
        ("first_index_min_value", c_uint32),
        ("last_index_max_value", c_uint32),
        ("sum_value", c_uint32),
        ("numa_id", c_int32),
        ("compress_state_ptr", c_void_p),
        ("decompress_state_ptr", c_void_p),
        ("analytics_state_ptr", c_void_p),
        ("middle_layer_buffer_ptr", c_void_p),
        ("hw_state_ptr", c_void_p),
        ("path", c_uint32),
    )


class Histogram(ctypes.Structure):
    """``qpl_histogram``: how often each symbol of deflate occurs."""

    _fields_ = (
        ("literals_and_lengths", c_uint32 * LITERALS_AND_LENGTHS),
        ("reserved_literals", c_uint32 * 2),
        ("distances", c_uint32 * DISTANCES),
        ("reserved_distances", c_uint32 * 2),
    )


class _Allocator(ctypes.Structure):
    # allocator_t; null pointers stand for malloc and free.
    _fields_ = (("allocator", c_void_p), ("deallocator", c_void_p))


_SIGNATURES = {
    "qpl_get_job_size": (c_uint32, POINTER(c_uint32)),
    "qpl_init_job": (c_uint32, c_void_p),
    "qpl_fini_job": (c_void_p,),
    "qpl_submit_job": (c_void_p,),
    "qpl_check_job": (c_void_p,),
    "qpl_gather_deflate_statistics": (c_void_p, c_uint32, POINTER(Histogram), c_uint32, c_uint32),
    "qpl_deflate_huffman_table_create": (c_uint32, c_uint32, _Allocator, POINTER(c_void_p)),
    "qpl_huffman_table_init_with_histogram": (c_void_p, POINTER(Histogram)),
    "qpl_huffman_table_destroy": (c_void_p,),
}


class Library:
    """
    The functions of the library, each returning a ``qpl_status``.

    :raises OSError: it can't be loaded
    :raises AttributeError: it lacks a function
    """

    def __init__(self) -> None:
        self.c = ctypes.CDLL(SONAME)
        for name, arguments in _SIGNATURES.items():
            function = getattr(self.c, name)
            function.argtypes = arguments
            function.restype = c_int32
        self.c.qpl_get_library_version.argtypes = ()
        self.c.qpl_get_library_version.restype = ctypes.c_char_p

    @property
    def version(self) -> str:
        """Its own version string."""
        return str(self.c.qpl_get_library_version().decode())

    @property
    def path(self) -> str:
        """The file taken by the loader."""
        for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
            if "/libqpl.so" in line:
                return line.split(maxsplit=5)[5]
        return SONAME

    def check(self, status: int, what: str) -> None:
        """
        Do nothing after a successful call.

        :raises EngineError: the call failed
        """
        if status != Status.OK:
            raise EngineError(f"{what}: {status_text(status)}")


@cache
def load() -> Library | str:
    """Return the library, or the loader's reason for its absence."""
    try:
        return Library()
    except (OSError, AttributeError) as error:
        return str(error)


@cache
def has_accel_config() -> bool:
    """Return whether the library will find libaccel-config, needed for hardware."""
    try:
        ctypes.CDLL(ACCEL_CONFIG)
    except OSError:
        return False
    return True


class Job:
    """
    The memory of a job, reused many times.

    :ivar fields: the part outside the library's own memory
    :raises EngineError: no job available, for example on a host without the device
    """

    def __init__(self, library: Library, route: Route) -> None:
        size = c_uint32()
        library.check(library.c.qpl_get_job_size(route, byref(size)), "size of a job")
        if size.value < ctypes.sizeof(JobFields):
            least = ctypes.sizeof(JobFields)
            raise EngineError(f"a job has {size.value} bytes, expected at least {least}")
        memory = ctypes.create_string_buffer(size.value)
        self.address = ctypes.addressof(memory)
        self.fields = JobFields.from_buffer(memory)
        self._library = library
        self._route = route
        self.start_anew()
        weakref.finalize(self, _finish, library, memory).atexit = False

    def start_anew(self) -> None:
        """
        Reset it to its initial state. It must not be in flight.

        :raises EngineError: it failed
        """
        status = self._library.c.qpl_init_job(self._route, self.address)
        self._library.check(status, "set-up of a job")
        # The library puts its first own structure behind the fields, and both at multiples of 64:
        # with another layout, or other fields, this pointer would not be there.
        begin = _aligned(self.address) + _aligned(ctypes.sizeof(JobFields))
        if (self.fields.compress_state_ptr, self.fields.path) != (begin, self._route):
            raise EngineError("its jobs are not laid out as those of version 1.9")


class Table:
    """
    A Huffman table for compression, built from a histogram.

    :ivar handle: the value for a job's field
    :raises EngineError: it can't be built
    """

    def __init__(self, library: Library, route: Route, histogram: Histogram) -> None:
        self.handle = c_void_p()
        status = library.c.qpl_deflate_huffman_table_create(
            _COMPRESSION_TABLE, route, _Allocator(), byref(self.handle)
        )
        library.check(status, "Huffman table")
        destroy = library.c.qpl_huffman_table_destroy
        weakref.finalize(self, destroy, self.handle).atexit = False
        status = library.c.qpl_huffman_table_init_with_histogram(self.handle, byref(histogram))
        library.check(status, "codes of a Huffman table")


def _aligned(number: int) -> int:
    return -(-number // _ALIGNMENT) * _ALIGNMENT


def _finish(library: Library, memory: ctypes.Array[ctypes.c_char]) -> None:
    library.c.qpl_fini_job(ctypes.addressof(memory))
