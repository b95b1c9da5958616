"""Facts about packets: page contents to stored bytes and back."""

import zlib

import numpy as np
import pytest
import xxhash

from snapmig.container.format import Encoding
from snapmig.container.index import StoredPacket
from snapmig.encodings.compressions import PacketSettings, ReadSettings
from snapmig.encodings.decoder import PacketDecoder
from snapmig.encodings.encoder import PacketEncoder
from snapmig.encodings.engines.engine import DeflateSettings
from snapmig.encodings.packet import summarise
from snapmig.errors import CorruptSnapshotError
from tests.support import ram

DEFAULT = PacketSettings()
CONTENTS = {
    "zeros": (ram.zeros(128), Encoding.EMPTY),
    "text": (ram.text(128), Encoding.DEFLATE),
    "noise": (ram.noise(128), Encoding.RAW),
    "specks": (ram.specks(128), Encoding.DEFLATE),
    "one page of text": (ram.text(1), Encoding.RAW),
    "one page of noise": (ram.noise(1), Encoding.RAW),
    "two pages of text": (ram.text(2), Encoding.DEFLATE),
    "text and zeros": (np.concatenate([ram.text(64), ram.zeros(64)]), Encoding.DEFLATE),
    "noise and zeros": (np.concatenate([ram.zeros(3), ram.noise(61)]), Encoding.RAW),
    "noise and a page of text": (np.concatenate([ram.noise(127), ram.text(1)]), Encoding.RAW),
    "one speck at the end": (np.concatenate([ram.zeros(127), ram.specks(1)]), Encoding.RAW),
}
PAGES = [pages for pages, _ in CONTENTS.values()]


def encode(pages, settings=DEFAULT):
    """Encode one packet."""
    return PacketEncoder(settings).encode(summarise(pages))


def decode(record, stored, window_bits=15):
    """Decode one packet, or raise what is wrong with it."""
    (decoded,) = PacketDecoder(ReadSettings(window_bits)).decode_all([(record, stored)])
    if decoded.error is not None:
        raise decoded.error
    return decoded.pages


def deflate(level, window_bits=15):
    """Return settings."""
    return PacketSettings(deflate=DeflateSettings(level, window_bits))


def _record(packet):
    # What a checked record says of a packet.
    return StoredPacket(
        packet=9,
        offset=0,
        stored_size=packet.stored_size,
        encoding=packet.encoding,
        stored_checksum=packet.stored_checksum,
        digest=packet.digest,
        kinds=packet.kinds,
        stored_pages=int(np.count_nonzero(packet.mask)),
    )


def _stored(packet):
    return memoryview(packet.payload).cast("B").tobytes()


def _data(pages):
    return b"".join(page.tobytes() for page in pages if page.tobytes().strip(b"\0"))


@pytest.mark.parametrize(("pages", "encoding"), CONTENTS.values(), ids=CONTENTS)
def test_the_encoding_follows_from_the_contents(pages, encoding):
    """Zeros are empty; what compression gives no block back for is raw; the rest is deflate."""
    assert encoding == encode(pages, DEFAULT).encoding


@pytest.mark.parametrize("window_bits", [12, 15])
@pytest.mark.parametrize("level", [0, 1, 2, 3])
@pytest.mark.parametrize("pages", PAGES[1:], ids=list(CONTENTS)[1:])
def test_packets_come_back_as_they_were(pages, level, window_bits):
    """Decoding gives the data pages that were encoded, at every level and window."""
    packet = encode(pages, deflate(level, window_bits))

    decoded = decode(_record(packet), _stored(packet), window_bits)

    assert _data(pages) == decoded.tobytes()


@pytest.mark.parametrize("level", [0, 1, 2, 3])
@pytest.mark.parametrize("pages", PAGES, ids=CONTENTS)
def test_a_packet_never_grows(pages, level):
    """Stored bytes are never more than the data pages, also of what level 0 would let grow."""
    assert encode(pages, deflate(level)).stored_size <= len(_data(pages))


@pytest.mark.parametrize("pages", PAGES, ids=CONTENTS)
def test_the_checksum_is_of_the_stored_bytes(pages):
    """The stored checksum is zlib's CRC-32 of the stored bytes."""
    packet = encode(pages, DEFAULT)

    assert zlib.crc32(_stored(packet)) == packet.stored_checksum


@pytest.mark.parametrize("pages", PAGES[1:], ids=list(CONTENTS)[1:])
def test_the_digest_is_of_the_page_contents(pages):
    """The digest is XXH3 with 128 bits of the data pages in order."""
    assert xxhash.xxh3_128(_data(pages)).digest() == encode(pages, DEFAULT).digest


def test_raw_pages_are_stored_as_they_are():
    """A raw packet's payload is its data pages."""
    pages = np.concatenate([ram.zeros(3), ram.noise(5), ram.zeros(2), ram.noise(5, seed=2)])

    assert _data(pages) == _stored(encode(pages, DEFAULT))


def test_raw_packets_without_zero_pages_are_not_copied():
    """Where no page is zero, the payload is the image's own memory."""
    pages = ram.noise(128)

    assert np.shares_memory(pages, encode(pages, DEFAULT).payload)


@pytest.mark.parametrize("name", ["text", "noise"])
def test_contents_that_are_not_what_the_digest_says(name):
    """A wrong digest is corrupt, with the packet's number and both digests."""
    packet = encode(CONTENTS[name][0], DEFAULT)
    record = _record(packet)._replace(digest=bytes(range(16)))

    with pytest.raises(CorruptSnapshotError, match=r"000102.*computed") as caught:
        decode(record, _stored(packet), 15)

    assert caught.value.packet == 9


def test_a_stream_that_is_none_names_its_packet():
    """A broken deflate stream is corrupt, with the packet's number."""
    packet = encode(CONTENTS["text"][0], DEFAULT)

    with pytest.raises(CorruptSnapshotError, match="deflate stream") as caught:
        decode(_record(packet), _stored(packet)[:50], 15)

    assert caught.value.packet == 9
