"""
Intel's QATzip, called through :mod:`ctypes`.

Functions, structures and status codes are those of ``qatzip.h``; layouts are the same in versions
1.3 (``libqatzip.so.3.2``) and 2.0 (``libqatzip.so.3.3``). ctypes releases the interpreter lock
during a call.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

__all__ = (
    "COMPRESS",
    "DECOMPRESS",
    "DEFLATE_RAW",
    "LARGEST_CHUNK",
    "LIBRARY",
    "OK",
    "Session",
    "SessionParams",
    "initialize",
    "library_version",
    "load_library",
    "status_words",
    "without_stderr",
)

LIBRARY = "libqatzip.so.3"
OK = 0
COMPRESS = 0  # QzDirection_T
DECOMPRESS = 1
DEFLATE_RAW = 3  # QzDataFormat_T
LARGEST_CHUNK = 512 << 10
"""Bytes of input that the device takes at once, at most: QZ_HW_BUFF_MAX_SZ."""

_NEWEST = ("qzSetLogLevel", "qzSetupSessionDeflateExt", "qzGetDeflateEndOfStream")
_QUIET = 0  # QzLogLevel_T: LOG_NONE
_redirecting = threading.Lock()  # the second of two threads would save and restore the null device

_WORDS = {
    1: "it was done before",
    2: "software had to go on",
    -1: "a parameter is not valid",
    -2: "it failed without saying why",
    -3: "the result does not fit",
    -4: "the input is damaged",
    -5: "the device did not answer in time",
    -100: "the integrity check failed",
    11: "no device was found",
    12: "the driver for pinned memory is not there",
    13: "no instance of the device is free",
    14: "there is too little pinned memory",
    15: "there is too little pinned memory for the result",
    16: "the device does not know the format",
    100: "the device was not initialized",
    -101: "no device was found",
    -102: "the driver for pinned memory is not there",
    -103: "no instance of the device is free",
    -104: "there is too little pinned memory",
    -105: "software would be needed and is not there",
    -116: "the device does not know the format",
    -117: "the work after compression failed",
    -118: "there is too little memory for metadata",
    -119: "the number of a block is too large",
    -200: "it is not supported",
}


class Session(ctypes.Structure):
    """
    ``QzSession_T``, to be zeroed before it is set up.

    ``hw_session_stat`` is 0 after the set-up if a device does the work, 11 if there is none.
    """

    _fields_ = (
        ("hw_session_stat", ctypes.c_long),
        ("thd_sess_stat", ctypes.c_int),
        ("internal", ctypes.c_void_p),
        ("total_in", ctypes.c_ulong),
        ("total_out", ctypes.c_ulong),
    )


class SessionParams(ctypes.Structure):
    """
    ``QzSessionParamsDeflateExt_T``, to be filled by ``qzGetDefaultsDeflateExt`` first.

    Only with parameters of this kind does QATzip record the end of a stream.
    """

    _fields_ = (
        ("direction", ctypes.c_int),
        ("comp_lvl", ctypes.c_uint),
        ("comp_algorithm", ctypes.c_ubyte),
        ("max_forks", ctypes.c_uint),
        ("sw_backup", ctypes.c_ubyte),
        ("hw_buff_sz", ctypes.c_uint),
        ("strm_buff_sz", ctypes.c_uint),
        ("input_sz_thrshold", ctypes.c_uint),
        ("req_cnt_thrshold", ctypes.c_uint),
        ("wait_cnt_thrshold", ctypes.c_uint),
        ("polling_mode", ctypes.c_int),
        ("is_sensitive_mode", ctypes.c_uint),
        ("huffman_hdr", ctypes.c_int),
        ("data_fmt", ctypes.c_int),
        ("stop_decompression_stream_end", ctypes.c_ubyte),
        ("zlib_format", ctypes.c_ubyte),
    )


@cache
def load_library() -> ctypes.CDLL:
    """
    Load the library, once per process.

    :raises OSError: it or one of its dependencies is missing, or it is too old
    """
    library = ctypes.CDLL(LIBRARY)
    if not all(hasattr(library, name) for name in _NEWEST):
        raise OSError(f"{LIBRARY} is too old: QATzip 1.3 or later is needed")
    session, length = ctypes.POINTER(Session), ctypes.POINTER(ctypes.c_uint)
    params = ctypes.POINTER(SessionParams)
    coder = (session, ctypes.c_void_p, length, ctypes.c_void_p, length)
    library.qzSetLogLevel.argtypes = (ctypes.c_int,)
    library.qzInit.argtypes = (session, ctypes.c_ubyte)
    library.qzGetDefaultsDeflateExt.argtypes = (params,)
    library.qzSetupSessionDeflateExt.argtypes = (session, params)
    library.qzCompress.argtypes = (*coder, ctypes.c_uint)
    library.qzDecompress.argtypes = coder
    library.qzGetDeflateEndOfStream.argtypes = (session, ctypes.POINTER(ctypes.c_ubyte))
    library.qzTeardownSession.argtypes = (session,)
    library.qzClose.argtypes = (session,)
    return library


def initialize(library: ctypes.CDLL, session: Session) -> None:
    """
    Look for devices, once per process.

    :raises OSError: a failure other than the absence of devices
    """
    library.qzSetLogLevel(_QUIET)
    with without_stderr():
        status = library.qzInit(ctypes.byref(session), 1)
    # Negative codes are failures; positive ones say why software will do the work.
    if status < OK:
        raise OSError(f"QATzip can't start: {status_words(status)}")


def library_version() -> str | None:
    """Return the version in the name of the loaded file; QATzip offers no other way."""
    with suppress(OSError):
        for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
            path = Path(line.split(maxsplit=5)[-1])
            if path.name.startswith("libqatzip.so."):
                return path.resolve().name.removeprefix("libqatzip.so.")
    return None


def status_words(status: int) -> str:
    """Return a function's status in words."""
    return f"{_WORDS.get(status, 'it returned an unknown status')} (status {status})"


@contextmanager
def without_stderr() -> Iterator[None]:
    """
    Discard output to file descriptor 2, also that of other threads.

    QATzip has a setting for its log. The library below it has none: without a device it reports on
    every call that it can't open ``/dev/vfio``.
    """
    with _redirecting:
        kept = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
