"""ISA-L: deflate with the vector units of the processor."""

from __future__ import annotations

from functools import partial

from isal import __version__

from snapmig.encodings import deflate
from snapmig.encodings.coders import Coder, Immediate
from snapmig.encodings.engines.engine import DeflateSettings, EngineFacts
from snapmig.system.files import Buffer

__all__ = ("IsalEngine",)


class IsalEngine:
    """The engine of every host, because python-isal is a dependency."""

    name = "isal"
    trusted = True
    levels = deflate.LEVELS
    max_window_bits = 15
    signs: tuple[str, ...] = ()

    def facts(self) -> EngineFacts:
        """Return its constant facts."""
        return EngineFacts(
            name=self.name,
            title="ISA-L, with the processor's vector units",
            hardware=False,
            version=__version__,
            library="isal",
            devices=(),
            problem=None,
            remedy=None,
            levels=tuple(self.levels),
            compress_window_bits=15,
            decompress_window_bits=15,
        )

    def compressor(self, settings: DeflateSettings) -> Coder:
        """Return a coder of depth one."""
        return Immediate(partial(_compress, settings.level, settings.window_bits))

    def decompressor(self, window_bits: int, depth: int | None = None) -> Coder:  # noqa: ARG002
        """Return a coder of depth one."""
        return Immediate(partial(deflate.decompress, window_bits=window_bits))


def _compress(level: int, window_bits: int, data: Buffer, _limit: int) -> bytes:
    return deflate.compress(data, level, window_bits)
