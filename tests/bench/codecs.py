"""The bare calls of the libraries that compress, as the limits make them: no limit, no check."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PAGE = 4096
PACKET = 512 * 1024
WINDOW_BITS = 15
Compress = Callable[[Any], bytes]
Decompress = Callable[[Any, int], Any]


@dataclass(frozen=True)
class Codec:
    """
    A library's calls for whole packets.

    :param suffix: what the names of its limits end in
    :param compressor: returns a function from bytes to a stream; each process calls it anew
    :param decompressor: returns a function from a stream and its number of plain bytes to those
    """

    suffix: str
    compression: str
    level: int
    window: str | None
    compressor: Callable[[], Compress]
    decompressor: Callable[[], Decompress]

    @property
    def limits(self) -> dict[str, tuple[str, str]]:
        """The names of its limits by operation: the calls, and the allocation of pages."""
        return {
            "save": (f"bare scan and compress{self.suffix}", f"bare write of packets{self.suffix}"),
            "restore": (f"bare decompress{self.suffix}", WRITE_PAGES),
        }

    @property
    def whole_limits(self) -> dict[str, str]:
        """The names of its limits by operation: all calls in one loop."""
        return {each: f"bare {each}{self.suffix}" for each in ("save", "restore")}


WRITE_PAGES = "bare write of pages"
"""The one limit that is the same for all codecs."""


def _isal_compressor() -> Compress:
    from isal import igzip_lib

    def compress(data: Any) -> bytes:
        return igzip_lib.compress(
            data, 1, igzip_lib.COMP_DEFLATE, igzip_lib.MEM_LEVEL_DEFAULT, WINDOW_BITS
        )

    return compress


def _isal_decompressor() -> Decompress:
    from isal import igzip_lib

    def decompress(stream: Any, size: int) -> bytes:
        inflater = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_DEFLATE, WINDOW_BITS)
        return inflater.decompress(stream, size + 1)  # one byte more spares a second round

    return decompress


def _zstd_compressor() -> Compress:
    import zstandard

    return zstandard.ZstdCompressor(level=1).compress


def _zstd_decompressor() -> Decompress:
    import zstandard

    decompress = zstandard.ZstdDecompressor().decompress
    return lambda frame, _size: decompress(frame)


def _lz4_compressor() -> Compress:
    import lz4.block

    def compress(data: Any) -> bytes:
        block: bytes = lz4.block.compress(data, store_size=False)
        return block

    return compress


def _lz4_decompressor() -> Decompress:
    import lz4.block

    return lambda block, size: lz4.block.decompress(block, uncompressed_size=size)


ISAL = Codec("", "zlib", 1, "32k", _isal_compressor, _isal_decompressor)
ZSTD_1 = Codec(", zstd 1", "zstd", 1, None, _zstd_compressor, _zstd_decompressor)
LZ4_1 = Codec(", lz4 1", "lz4", 1, None, _lz4_compressor, _lz4_decompressor)
