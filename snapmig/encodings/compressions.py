"""
Compression formats of packets.

``--compression`` names one of them. Deflate has several engines (see ``engines``), each other
format one library.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from snapmig.container.format import Encoding
from snapmig.encodings import deflate, lz4, zstd
from snapmig.encodings.coders import Coder, EngineError
from snapmig.encodings.engines import SOFTWARE, TRUSTED, find_engine
from snapmig.encodings.engines.engine import DeflateSettings, Engine
from snapmig.encodings.fallback import Failures, Fallback

__all__ = (
    "COMPRESSIONS",
    "Compression",
    "PacketSettings",
    "ReadSettings",
    "make_compressor",
    "make_decompressor",
    "software_with",
)


class Compression(NamedTuple):
    """
    A format for packets.

    :param levels: for zlib, those of all its engines together
    :param steps: levels for ``--level auto``, the fastest first
    :param require: raises :class:`~snapmig.errors.SnapmigError` if its library is missing
    """

    name: str
    encoding: Encoding
    levels: range
    default_level: int
    steps: tuple[int, ...]
    require: Callable[[], Any] = lambda: None


COMPRESSIONS = {
    known.name: known
    for known in (
        Compression("zlib", Encoding.DEFLATE, range(10), 1, (0, 1, 3)),
        Compression("zstd", Encoding.ZSTD, zstd.LEVELS, 1, (-3, 1, 3, 6, 9), zstd.require),
        Compression("lz4", Encoding.LZ4, lz4.LEVELS, 1, (1, 3, 6, 9), lz4.require),
        Compression("none", Encoding.RAW, range(1), 0, (0,)),
    )
}
"""All of them by name, the default first."""


class PacketSettings(NamedTuple):
    """
    Settings for encoding packets.

    :param compression: name of a format
    :param engine: name of the engine for deflate
    :param deflate: level of any format, and settings of deflate only
    """

    compression: str = "zlib"
    engine: str = "isal"
    deflate: DeflateSettings = DeflateSettings()

    @property
    def encoding(self) -> Encoding:
        """Encoding in the records of compressed packets."""
        return COMPRESSIONS[self.compression].encoding


class ReadSettings(NamedTuple):
    """
    Settings for decoding packets.

    :param window_bits: of the snapshot's deflate streams
    :param engine: name of the engine for those
    :param depth: jobs in flight, None for the engine's own choice
    """

    window_bits: int = 15
    engine: str = SOFTWARE.name
    depth: int | None = None


def make_compressor(settings: PacketSettings, level: int, failures: Failures) -> Coder:
    """
    Return a coder for this process.

    :param level: of the format; the engine that supports it is used
    :param failures: collects a sentence for each job done by software instead of the engine
    :raises SnapmigError: the library of the format is missing
    """
    if settings.compression != "zlib":
        return zstd.compressor(level) if settings.compression == "zstd" else lz4.compressor(level)
    wanted = settings.deflate._replace(level=level)
    engine = find_engine(settings.engine)
    if engine.trusted:
        return software_with(level, engine).compressor(wanted)
    known = level if level in SOFTWARE.levels else deflate.DEFAULT_LEVEL
    software = SOFTWARE.compressor(wanted._replace(level=known))
    return _guarded(engine, lambda: engine.compressor(wanted), software, failures)


def make_decompressor(settings: ReadSettings, encoding: int, failures: Failures) -> Coder:
    """
    Return a coder for this process.

    :param failures: collects a sentence for each job done by software instead of the engine
    :raises SnapmigError: the library of the format is missing
    """
    if encoding != Encoding.DEFLATE:
        return zstd.decompressor() if encoding == Encoding.ZSTD else lz4.decompressor()
    engine = find_engine(settings.engine)
    if engine.trusted:
        return engine.decompressor(settings.window_bits)
    software = SOFTWARE.decompressor(settings.window_bits)
    opener = partial(engine.decompressor, settings.window_bits, settings.depth)
    return _guarded(engine, opener, software, failures)


def software_with(level: int, engine: Engine = SOFTWARE) -> Engine:
    """Return the engine, or software with the requested level if the engine lacks it."""
    return next(known for known in (engine, *TRUSTED) if level in known.levels)


def _guarded(
    engine: Engine, opener: Callable[[], Coder], software: Coder, failures: Failures
) -> Coder:
    try:
        return Fallback(engine.name, opener(), software, failures)
    except EngineError as error:
        failures.add(f"{engine.name}: {error}")
        return software
