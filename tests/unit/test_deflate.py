"""Facts about raw deflate through ISA-L, with zlib as the judge."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapmig.encodings import deflate
from snapmig.errors import CorruptSnapshotError
from tests.support import ram

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


def pieces_of(stream, size):
    """Return a stream cut into pieces."""
    return [stream[at : at + size] for at in range(0, len(stream), size)]


@given(st.binary(max_size=200) | st.just(TEXT), st.integers(1, 50), st.integers(0, 9))
def test_pieces_give_what_zlib_took(plain, size, level):
    """A stream in pieces of any size gives its contents."""
    encoder = zlib.compressobj(level, zlib.DEFLATED, -15)
    stream = encoder.compress(plain) + encoder.flush()

    assert b"".join(deflate.decompress_stream(pieces_of(stream, size), len(plain))) == plain


def test_a_large_stream_comes_in_small_pieces():
    """However much a byte stands for, a piece has at most a MiB."""
    stream = zlib.compress(bytes(40 << 20), 9, wbits=-15)
    found = list(map(len, deflate.decompress_stream([stream], 40 << 20)))

    assert (max(found), sum(found)) == (1 << 20, 40 << 20)


@pytest.mark.parametrize(
    ("pieces", "size", "words"),
    [
        ([], 0, "0 bytes and no end"),
        ([b"\x03\x00", b"x"], 0, "0 bytes and 1 bytes after it"),
        ([b"\x03\x00x"], 0, "0 bytes and 1 bytes after it"),
        ([deflate.compress(TEXT, 1, 15)], 100, "bytes or more, expected 100"),
        ([deflate.compress(TEXT, 1, 15)], len(TEXT) + 1, "expected 65537"),
        ([deflate.compress(TEXT, 1, 15)[:-3]], len(TEXT), "and no end"),
        ([b"\xff" * 20], 5, "deflate stream: "),
    ],
    ids=range(7),
)
def test_pieces_that_are_no_stream_are_refused(pieces, size, words):
    """Another length, a missing end and bytes after it are corruption."""
    with pytest.raises(CorruptSnapshotError, match=words):
        list(deflate.decompress_stream(pieces, size))


@given(st.lists(st.binary(max_size=30), max_size=5), st.integers(0, 100))
def test_any_pieces_end_in_contents_or_a_refusal(pieces, size):
    """No bytes raise anything else."""
    try:
        found = b"".join(deflate.decompress_stream(pieces, size))
    except CorruptSnapshotError:
        return
    assert len(found) == size
