"""
Intel QAT: deflate by a device on the processor or on a card, through QATzip.

QATzip makes one deflate stream of an input. The device compresses it in chunks; each ends at a byte
boundary and does not look back into the one before, and only the last has the end mark
(``compBufferSetup`` in its ``src/qatzip_utils.c``, for the format QZ_DEFLATE_RAW). The window is
always 32 KiB: ``windowSize`` 7 for the device, ``MAX_WBITS`` for zlib, QATzip's software backup.
The device decodes no raw deflate stream of more than one chunk.
"""

from __future__ import annotations

import ctypes
import weakref
from contextlib import nullcontext

import numpy as np
import numpy.typing as npt

from snapmig.encodings.coders import Coder, EngineError, Immediate
from snapmig.encodings.engines.devices import find_qat
from snapmig.encodings.engines.engine import DeflateSettings
from snapmig.encodings.engines.facts import EngineFacts
from snapmig.encodings.engines.qat import library as qatzip
from snapmig.system.files import Buffer

__all__ = ("QatEngine",)

_Bytes = npt.NDArray[np.uint8]
_LARGEST_INPUT = 1 << 30  # lengths have 32 bits, and the result may be longer by an eighth


class QatEngine:
    """The device, or QATzip's software backup without one."""

    name = "qat"
    trusted = False
    levels = range(1, 10)
    max_window_bits = 15

    def facts(self) -> EngineFacts:
        """Look for the library and for a device; without one the backup works."""
        report = find_qat()
        problem, remedy, note = report.problem, report.remedy, None
        try:
            qatzip.load_library()
        except OSError as error:
            problem, remedy = str(error), "sudo apt-get install libqatzip3"
        else:
            if problem is not None:
                note = "no QAT device is used: QATzip's software does the work"
        return EngineFacts(
            name=self.name,
            title="Intel QAT, through QATzip",
            hardware=True,
            version=qatzip.library_version(),
            library=qatzip.LIBRARY,
            devices=report.devices,
            problem=problem,
            remedy=remedy,
            levels=tuple(self.levels),
            compress_window_bits=15,
            decompress_window_bits=15,
            keeps_to_window=False,
            note=note,
        )

    def compressor(self, settings: DeflateSettings) -> Coder:
        """
        Return a coder of depth one.

        :raises EngineError: the library is missing, or the settings don't suit QATzip
        """
        if settings.window_bits < self.max_window_bits:
            raise EngineError(
                f"QAT compresses with a window of 32 KiB only, not of {settings.window_bits} bits"
            )
        if settings.huffman != "dynamic":
            raise EngineError(f"QAT has no {settings.huffman} Huffman tables here")
        return Immediate(_Compressor(settings.level))

    def decompressor(self, window_bits: int, depth: int | None = None) -> Coder:  # noqa: ARG002
        """
        Return a coder of depth one.

        :raises EngineError: the library is missing
        """
        return Immediate(_Decompressor())


class _Session:
    """
    A session of QATzip in this process, until its last reference.

    :ivar hardware: a device does the work
    """

    def __init__(self, direction: int, level: int = 1) -> None:
        try:
            self._library = qatzip.load_library()
        except OSError as error:
            raise EngineError(f"QATzip can't be loaded: {error}") from error
        self._direction = direction
        self._level = level
        self._out: _Bytes = np.empty(0, np.uint8)
        self._session: qatzip.Session | None = self._open()

    @property
    def ended(self) -> bool:
        """True if the last decoded stream was complete."""
        if self._session is None:
            return False
        flag = ctypes.c_ubyte(0)
        session, flag_at = ctypes.byref(self._session), ctypes.byref(flag)
        status = self._library.qzGetDeflateEndOfStream(session, flag_at)
        return status == qatzip.OK and flag.value == 1

    def call(self, data: _Bytes, room: int, *last: int) -> tuple[int, memoryview]:
        """
        Code an input.

        :param room: limit for the result, in bytes
        :param last: 1 for a compression, nothing for a decompression
        :returns: bytes of the input used, and the result, valid until the next call
        :raises EngineError: QATzip failed
        """
        if data.size > _LARGEST_INPUT or room > 2 * _LARGEST_INPUT:
            raise EngineError(f"QATzip takes no more than {_LARGEST_INPUT} bytes at once")
        if self._session is None:
            self._session = self._open()
        if len(self._out) < room:
            self._out = np.empty(room, np.uint8)
        used, made = ctypes.c_uint(data.size), ctypes.c_uint(room)
        function = self._library.qzCompress if last else self._library.qzDecompress
        with nullcontext() if self.hardware else qatzip.without_stderr():
            status = function(
                *(ctypes.byref(self._session), data.ctypes.data, ctypes.byref(used)),
                *(self._out.ctypes.data, ctypes.byref(made), *last),
            )
        if status != qatzip.OK:
            self.close()
            raise EngineError(f"QATzip failed: {qatzip.status_words(status)}")
        if made.value > room:
            raise EngineError(f"QATzip says it made {made.value} bytes, where {room} have room")
        return used.value, self._out.data[: made.value]

    def close(self) -> None:
        """Make the next call begin anew: after a failure QATzip stays in the middle of a stream."""
        self._finalizer()
        self._session = None

    def _open(self) -> qatzip.Session:
        session = self._set_up(backup=True)
        self.hardware = session.hw_session_stat == qatzip.OK
        if self.hardware:
            # If a device fails within an input, the backup would mark an end in the middle of the
            # stream. Our own software must redo the whole packet instead.
            self._finalizer()
            session = self._set_up(backup=False)
        return session

    def _set_up(self, *, backup: bool) -> qatzip.Session:
        session = qatzip.Session()
        try:
            qatzip.initialize(self._library, session)
        except OSError as error:
            raise EngineError(str(error)) from error
        params = qatzip.SessionParams()
        self._library.qzGetDefaultsDeflateExt(ctypes.byref(params))
        params.direction = self._direction
        params.data_fmt = qatzip.DEFLATE_RAW
        params.comp_lvl = self._level
        params.sw_backup = int(backup)
        params.hw_buff_sz = qatzip.LARGEST_CHUNK
        params.stop_decompression_stream_end = 1
        status = self._library.qzSetupSessionDeflateExt(ctypes.byref(session), ctypes.byref(params))
        if status < qatzip.OK:
            raise EngineError(f"QATzip can't set up a session: {qatzip.status_words(status)}")
        self._finalizer = weakref.finalize(self, _tear_down, self._library, session)
        return session


class _Compressor:
    """Makes a stream of an input."""

    def __init__(self, level: int) -> None:
        self._session = _Session(qatzip.COMPRESS, level)

    def __call__(self, data: Buffer, limit: int) -> memoryview | None:
        """Compress, with room for everything: a shortage would be a failure and leak memory."""
        plain = np.frombuffer(data, np.uint8)
        if plain.size == 0:
            raise EngineError("QATzip compresses no empty input")
        used, stream = self._session.call(plain, plain.size + plain.size // 8 + 1024, 1)
        if used != plain.size:
            self._session.close()
            raise EngineError(f"QATzip compressed {used} bytes, expected {plain.size}")
        return stream if len(stream) <= limit else None


class _Decompressor:
    """Decodes a stream of known size."""

    def __init__(self) -> None:
        self._session = _Session(qatzip.DECOMPRESS)

    def __call__(self, stored: Buffer, size: int) -> memoryview:
        """Decode into exactly its size, so that QATzip stops at the stream's expected end."""
        stream = np.frombuffer(stored, np.uint8)
        if stream.size == 0 or size == 0:
            raise EngineError("QATzip decodes no empty stream")
        if self._session.hardware and size > qatzip.LARGEST_CHUNK:
            raise EngineError(
                f"QAT decodes raw deflate of up to {qatzip.LARGEST_CHUNK} bytes, found {size} bytes"
            )
        used, plain = self._session.call(stream, size)
        if used != stream.size or len(plain) != size or not self._session.ended:
            self._session.close()
            raise EngineError(
                f"QATzip decoded {used} bytes to {len(plain)}, expected {stream.size} to {size}"
                " and the stream's end"
            )
        return plain


def _tear_down(library: ctypes.CDLL, session: qatzip.Session) -> None:
    library.qzTeardownSession(ctypes.byref(session))
    library.qzClose(ctypes.byref(session))
