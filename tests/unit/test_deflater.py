"""Facts about payloads of a source's packets: one stream for each channel, whatever is sent."""

import zlib

import pytest

from snapmig.encodings.engines.engine import DeflateSettings
from snapmig.encodings.engines.software import ISAL, ZLIB
from snapmig.migration.compression import WireCompression
from snapmig.migration.deflater import make_deflater
from tests.support import ram

PAGES = ram.text(128)
NOISE = ram.noise(64)


def stored(engine, level, pages, window_bits=15):
    """Return the stream of pages as it stands in a snapshot."""
    coder = engine.compressor(DeflateSettings(level, window_bits))
    coder.submit(0, pages, pages.nbytes * 2)
    return coder.reap().result


@pytest.mark.parametrize(
    ("engine", "level"),
    [(engine, level) for engine in (ISAL, ZLIB) for level in engine.levels],
    ids=lambda value: getattr(value, "name", value),
)
def test_stored_streams_are_passed_on_as_parts_of_one(engine, level):
    """Between others, packets of any software are parts of a zlib stream that has no end."""
    deflater, judge = make_deflater(WireCompression.ZLIB), zlib.decompressobj()
    for pages in (PAGES, NOISE, PAGES[:1], PAGES[7:90]):
        for window_bits in (12, 15):
            stream = stored(engine, level, pages, window_bits)
            payload = deflater.stored(stream)
            assert payload is not None
            assert len(payload) <= len(stream)
            assert judge.decompress(payload) == pages.tobytes()
            assert judge.decompress(deflater.pages(pages)) == pages.tobytes()
    assert not judge.eof


@pytest.mark.parametrize("first", ["pages", "stored"])
def test_a_channel_begins_with_a_zlib_header(first):
    """Only its first packet does, whichever kind that is."""
    deflater = make_deflater(WireCompression.ZLIB)
    stream = stored(ISAL, 1, PAGES)
    make = {"pages": lambda: deflater.pages(PAGES), "stored": lambda: deflater.stored(stream)}
    assert bytes(make[first]())[:2] == b"\x78\x01"
    assert bytes(deflater.stored(stream)) == stream[:-2]


def test_a_stream_that_ends_in_its_last_data_is_not_passed_on():
    """Such are those of accelerators, and of other programs."""
    encoder = zlib.compressobj(6, zlib.DEFLATED, -15)
    stream = encoder.compress(PAGES) + encoder.flush()
    assert make_deflater(WireCompression.ZLIB).stored(stream) is None


def test_frames_are_passed_on_whole():
    """Frames one after the other are one zstd stream."""
    zstandard = pytest.importorskip("zstandard")
    deflater = make_deflater(WireCompression.ZSTD)
    frame = zstandard.ZstdCompressor().compress(PAGES.tobytes())
    payloads = [deflater.stored(frame), deflater.pages(NOISE), deflater.stored(frame)]
    judge = zstandard.ZstdDecompressor()
    found = judge.stream_reader(b"".join(payloads), read_across_frames=True).read()
    assert found == PAGES.tobytes() + NOISE.tobytes() + PAGES.tobytes()


def test_pages_as_they_are():
    """Without compression a payload is the pages, and no stored stream will do."""
    deflater = make_deflater(WireCompression.NONE)
    assert bytes(deflater.pages(PAGES)) == PAGES.tobytes()
    assert deflater.stored(stored(ISAL, 1, PAGES)) is None
