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
from snapmig.errors import SnapmigError

__all__ = (
    "AUTO_COMPRESSION",
    "COMPRESSIONS",
    "Codec",
    "Compression",
    "PacketSettings",
    "ReadSettings",
    "make_compressor",
    "make_decompressor",
    "software_with",
    "usable_codecs",
)


class Codec(NamedTuple):
    """
    A compression at a level.

    :param ns: nanoseconds of a processor for a byte of a Linux guest's pages
    :param ratio: stored bytes for one of them
    """

    compression: str
    level: int
    ns: float = 0.0
    ratio: float = 1.0

    @property
    def name(self) -> str:
        """Words for people."""
        return (
            self.compression if self.compression == "none" else f"{self.compression} {self.level}"
        )

    @property
    def encoding(self) -> Encoding:
        """Encoding in the records of packets made smaller by it."""
        return COMPRESSIONS[self.compression].encoding


class Compression(NamedTuple):
    """
    A format for packets.

    :param levels: for zlib, those of all its engines together
    :param steps: the choices of ``--level auto``, the fastest first
    :param require: raises :class:`~snapmig.errors.SnapmigError` if its library is missing
    """

    name: str
    encoding: Encoding
    levels: range
    default_level: int
    steps: tuple[Codec, ...]
    require: Callable[[], Any] = lambda: None


_NONE = Codec("none", 0)
_ZLIB = (
    Codec("zlib", 0, 1.9, 0.374),
    Codec("zlib", 1, 1.8, 0.324),
    Codec("zlib", 3, 3.0, 0.314),
)
_ZSTD = (
    Codec("zstd", -3, 1.8, 0.368),
    Codec("zstd", 1, 2.1, 0.286),
    Codec("zstd", 3, 2.8, 0.278),
    Codec("zstd", 6, 9.5, 0.268),
    Codec("zstd", 9, 14.5, 0.261),
)
_LZ4 = (
    Codec("lz4", 1, 1.4, 0.407),
    Codec("lz4", 3, 12.0, 0.341),
    Codec("lz4", 6, 17.0, 0.331),
    Codec("lz4", 9, 29.0, 0.329),
)
"""
Costs of 100 packets of a Linux guest: what a save assumes until it has measured its own. Only their
relations matter. zlib's levels from 4 on are left out, because only Python's zlib has them: level 6
costs 7 times as much as level 3.
"""

COMPRESSIONS = {
    known.name: known
    for known in (
        Compression("zlib", Encoding.DEFLATE, range(10), 1, _ZLIB),
        Compression("zstd", Encoding.ZSTD, zstd.LEVELS, 1, _ZSTD, zstd.require),
        Compression("lz4", Encoding.LZ4, lz4.LEVELS, 1, _LZ4, lz4.require),
        Compression("none", Encoding.RAW, range(1), 0, (_NONE,)),
    )
}
"""All of them by name, the default first."""

AUTO_COMPRESSION = "auto"
"""In place of a name: one of :func:`usable_codecs` for each batch of packets."""


def usable_codecs() -> tuple[Codec, ...]:
    """Return the choices of ``--compression auto``, the fastest first."""
    fastest = (_NONE, *(_LZ4[:1] if _is_usable("lz4") else ()), _ZLIB[1])
    return (*fastest, *(_ZSTD[1:] if _is_usable("zstd") else _ZLIB[2:]))


def _is_usable(name: str) -> bool:
    try:
        COMPRESSIONS[name].require()
    except SnapmigError:
        return False
    return True


class PacketSettings(NamedTuple):
    """
    Settings for encoding packets.

    :param compression: name of a format, or :data:`AUTO_COMPRESSION`
    :param engine: name of the engine for deflate
    :param deflate: level of any format, and settings of deflate only
    :param choices: codecs to choose from during the save, the fastest first; empty: no choice
    """

    compression: str = "zlib"
    engine: str = "isal"
    deflate: DeflateSettings = DeflateSettings()
    choices: tuple[Codec, ...] = ()

    @property
    def codecs(self) -> tuple[Codec, ...]:
        """Codecs for packets; tasks name one by its place here."""
        return self.choices or (Codec(self.compression, self.deflate.level),)

    @property
    def start(self) -> int:
        """The place of the codec to begin with: the fastest that compresses, or the usual level."""
        if self.compression == AUTO_COMPRESSION:
            return 1
        return [codec.level for codec in self.codecs].index(self.deflate.level)

    @property
    def adapts(self) -> bool:
        """True if there is a choice to make."""
        return len(self.codecs) > 1

    @property
    def has_deflate(self) -> bool:
        """True if packets may be deflate streams."""
        return any(codec.encoding == Encoding.DEFLATE for codec in self.codecs)


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


def make_compressor(settings: PacketSettings, codec: Codec, failures: Failures) -> Coder:
    """
    Return a coder for this process.

    :param codec: other than none; of deflate the engine that supports its level is used
    :param failures: collects a sentence for each job done by software instead of the engine
    :raises SnapmigError: the library of the format is missing
    """
    level = codec.level
    if codec.encoding != Encoding.DEFLATE:
        make = zstd.compressor if codec.encoding == Encoding.ZSTD else lz4.compressor
        return make(level)
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
