"""Facts about raw deflate through ISA-L, with zlib as the judge."""

import zlib

import pytest

from snapmig.encodings import deflate
from snapmig.errors import CorruptSnapshotError
from tests.system import ram

TEXT = ram.text(16).tobytes()
FAR = ram.noise(4).tobytes() * 4  # repeats at a distance of 16 KiB only
WINDOWS = (12, 15)


def _inflate(stream, window_bits):
    # In steps of a page, so that zlib has no more history than its window.
    decoder = zlib.decompressobj(-window_bits)
    plain = decoder.decompress(stream, 4096)
    while not decoder.eof:
        plain += decoder.decompress(decoder.unconsumed_tail, 4096)
    return plain


@pytest.mark.parametrize("window_bits", WINDOWS)
@pytest.mark.parametrize("level", deflate.LEVELS)
@pytest.mark.parametrize("plain", [TEXT, FAR, b"", b"x", bytes(65536)], ids=range(5))
def test_zlib_decodes_what_is_compressed(plain, level, window_bits):
    """Each level and window gives a stream that zlib decodes with that window."""
    assert plain == _inflate(deflate.compress(plain, level, window_bits), window_bits)


def test_a_4k_window_is_needed_for_the_test_above():
    """A stream with a 32k window that looks further back is refused by zlib with a 4k window."""
    with pytest.raises(zlib.error, match="too far back"):
        _inflate(deflate.compress(FAR, 3, 15), 12)


@pytest.mark.parametrize("window_bits", WINDOWS)
@pytest.mark.parametrize("level", [1, 6, 9])
def test_what_zlib_compresses_is_decoded(level, window_bits):
    """Streams of another compressor are decoded."""
    encoder = zlib.compressobj(level, zlib.DEFLATED, -window_bits)
    stream = encoder.compress(TEXT) + encoder.flush()

    assert deflate.decompress(stream, len(TEXT), window_bits) == TEXT


@pytest.mark.parametrize("level", deflate.LEVELS)
def test_text_becomes_smaller(level):
    """Every level compresses text to less than half."""
    assert len(deflate.compress(TEXT, level, 15)) < len(TEXT) // 2


@pytest.mark.parametrize(
    ("stream", "size", "words"),
    [
        (deflate.compress(TEXT, 1, 15), len(TEXT) + 1, "expected 65537 bytes"),
        (deflate.compress(TEXT, 1, 15), len(TEXT) - 1, "and no end, expected 65535 bytes|expected"),
        (deflate.compress(TEXT, 1, 15), 0, "expected 0 bytes"),
        (deflate.compress(TEXT, 1, 15)[:-1], len(TEXT), "no end|gives"),
        (deflate.compress(TEXT, 1, 15)[:100], len(TEXT), "no end"),
        (deflate.compress(TEXT, 1, 15) + b"ab", len(TEXT), "2 bytes after it"),
        (b"", 4096, "0 bytes and no end"),
        (b"\xff" * 100, 4096, "deflate stream"),
        (bytes(100), 4096, "deflate stream"),
        (deflate.compress(FAR, 3, 15), len(FAR) + 4096, "expected"),
    ],
    ids=range(10),
)
def test_streams_that_are_not_what_they_should_be(stream, size, words):
    """A stream that is cut, goes on, or has another length is corrupt."""
    with pytest.raises(CorruptSnapshotError, match=words):
        deflate.decompress(stream, size, 15)


def test_a_small_stream_of_many_zeros_takes_no_memory_beyond_the_size_asked_for():
    """A stream of 16 MiB of zeros is refused when a page is due, with at most a byte more made."""
    stream = deflate.compress(bytes(16 << 20), 1, 15)

    with pytest.raises(CorruptSnapshotError, match="gives 4097 bytes and no end"):
        deflate.decompress(stream, 4096, 15)


@pytest.mark.parametrize("pieces", [[], [b""], [TEXT], [TEXT, b"", FAR, b"x"]], ids=range(4))
def test_a_stream_of_pieces_is_one_stream(pieces):
    """Pieces that are compressed one by one decode to all of them joined."""
    stream = b"".join(deflate.compress_stream(pieces))

    assert b"".join(pieces) == zlib.decompress(stream, -15)
