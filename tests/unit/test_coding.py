"""Facts about the encoder and the decoder of packets with engines of several jobs in flight."""

import zlib

import numpy as np
import pytest

from snapmig.container.format import Encoding
from snapmig.container.index import StoredPacket
from snapmig.encodings.compressions import Codec, PacketSettings, ReadSettings
from snapmig.encodings.decoder import PacketDecoder
from snapmig.encodings.encoder import PacketEncoder
from snapmig.encodings.engines import ENGINES
from snapmig.encodings.engines.engine import DeflateSettings
from snapmig.encodings.packet import summarise
from tests.support import ram
from tests.support.coders import LateEngine, always, deflate, failing, inflate

PAGES = [ram.text(16, seed) for seed in range(20)]
LATE = PacketSettings(engine="late")
READ_LATE = ReadSettings(engine="late")
WAYS = {
    "zlib": PacketSettings(),
    "zstd": PacketSettings("zstd"),
    "lz4": PacketSettings("lz4"),
    "none": PacketSettings("none", deflate=DeflateSettings(level=0)),
}


@pytest.fixture
def engine(monkeypatch):
    """Give a function that makes an engine of the tests known as "late"."""

    def known(**changes):
        made = LateEngine(**changes)
        monkeypatch.setitem(ENGINES, "late", lambda: made)
        return made

    return known


def encoded(encoder, pages=PAGES, **options):
    """Return packets by the keys that the encoder yields them under."""
    summaries = [(key, summarise(page)) for key, page in enumerate(pages)]
    return {key: packet.kept() for key, packet in encoder.encode_all(summaries, **options)}


def stored(packets):
    """Return packets with their stored bytes, as a reader has them before it decodes."""
    return [
        (
            StoredPacket(
                packet=key,
                offset=0,
                stored_size=packet.stored_size,
                encoding=packet.encoding,
                stored_checksum=packet.stored_checksum,
                digest=packet.digest,
                kinds=packet.kinds,
                stored_pages=int(np.count_nonzero(packet.mask)),
            ),
            memoryview(packet.payload).cast("B").tobytes(),
        )
        for key, packet in packets.items()
    ]


def decoded(decoder, packets):
    """Return pages, or what is wrong, by packet."""
    return {
        found.packet.packet: found.error or found.pages.tobytes()
        for found in decoder.decode_all(packets)
    }


def contents(pages=PAGES):
    """Return what `decoded` should."""
    return {key: page.tobytes() for key, page in enumerate(pages)}


def test_packets_have_the_keys_of_their_summaries(engine):
    """An engine that is done in another order mixes nothing up."""
    engine()
    packets = encoded(PacketEncoder(LATE))

    assert contents() == {
        key: zlib.decompress(packet.payload, -15) for key, packet in packets.items()
    }


def test_packets_come_in_another_order(engine):
    """The engine of these tests is asynchronous indeed."""
    engine()

    assert list(encoded(PacketEncoder(LATE))) != list(range(20))


@pytest.mark.parametrize("pages", [ram.noise(128), ram.noise(1), ram.text(1), ram.zeros(16)])
def test_nothing_is_compressed_in_vain(engine, pages):
    """Of random data, of one page and of none no engine hears."""
    late = engine()
    packets = encoded(PacketEncoder(LATE), [pages] * 8)

    assert (late.coders[0].submitted, {packet.encoding for packet in packets.values()}) == (
        [],
        {Encoding.RAW if pages.any() else Encoding.EMPTY},
    )


def test_a_codec_is_for_one_call(engine):
    """Each codec of a choice has a coder of its own, kept for the next time."""
    late = engine()
    choices = (Codec("zlib", 2), Codec("zlib", 3))
    encoder = PacketEncoder(PacketSettings(engine="late", choices=choices))
    for codec in (0, 1, 0, 1):
        encoded(encoder, codec=codec)

    assert [settings.level for settings in late.settings] == [2, 3]


@pytest.mark.parametrize(
    ("name", "low", "high"), [("zlib", 0, 9), ("zstd", -7, 19), ("lz4", 1, 12)]
)
def test_a_higher_level_is_smaller(name, low, high):
    """A codec that is given for a call is the one that is used."""
    encoder = PacketEncoder(PacketSettings(choices=(Codec(name, high), Codec(name, low))))
    small, large = (
        sum(packet.stored_size for packet in encoded(encoder, codec=codec).values())
        for codec in (0, 1)
    )

    assert small < large


def test_an_engine_that_fails_is_replaced(engine):
    """Packets that an engine fails are compressed in software, and it is noted."""
    engine(compress=failing(deflate, lambda call: call % 2, "a fault"))
    encoder = PacketEncoder(LATE)
    packets = encoded(encoder)

    assert contents() == {
        key: zlib.decompress(packet.payload, -15) for key, packet in packets.items()
    }
    assert (encoder.failures.count, encoder.failures.take()) == (10, ["late: a fault"])


def test_an_engine_that_does_not_open_is_replaced(engine):
    """Where an engine can't be had in a worker, software does all, and it is noted."""
    engine(opens=False)
    encoder, decoder = PacketEncoder(LATE), PacketDecoder(READ_LATE)
    back = decoded(decoder, stored(encoded(encoder)))

    assert (back, encoder.failures.take(), decoder.failures.take()) == (
        contents(),
        ["late: no device"],
        ["late: no device"],
    )


@pytest.mark.parametrize("name", WAYS)
def test_packets_come_back(name):
    """Every compression's packets are decoded to what they were made of."""
    packets = encoded(PacketEncoder(WAYS[name]))

    assert contents() == decoded(PacketDecoder(ReadSettings()), stored(packets))


def test_one_snapshot_may_have_all_encodings(engine):
    """Packets of all encodings in one run are decoded, some of them late."""
    engine()
    packets = []
    for number, settings in enumerate(WAYS.values()):
        made = stored(encoded(PacketEncoder(settings)))
        packets += made[number * 5 : number * 5 + 5]
    packets = [packets[at] for at in np.random.default_rng(1).permutation(20)]

    assert contents() == decoded(PacketDecoder(READ_LATE), packets)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda data, size: bytes(len(inflate(data, size))), "digest of the page contents"),
        (lambda data, size: inflate(data, size)[:-1], "gives 65535 bytes, expected 65536"),
        (lambda data, size: inflate(data, size) + b"x", "gives 65537 bytes, expected 65536"),
        (lambda _data, _size: b"", "gives 0 bytes"),
        (failing(inflate, always, "a fault"), "a fault"),
    ],
    ids=["other bytes", "too few", "too many", "none", "a failure"],
)
def test_what_an_engine_gets_wrong_is_done_in_software(engine, wrong, words):
    """Whatever comes out of an engine, what is returned is right, and what was wrong is noted."""
    late = engine(decompress=wrong)
    decoder = PacketDecoder(READ_LATE)

    assert contents() == decoded(decoder, stored(encoded(PacketEncoder(PacketSettings()))))
    assert words in decoder.failures.take()[0]
    assert (0 < decoder.failures.count < 20, 0 < len(late.coders[0].submitted) < 20) == (
        True,
        True,
    )


def test_what_an_engine_gets_wrong_once_is_done_in_software(engine):
    """A single wrong result among right ones does no harm and is counted."""
    calls = iter(range(100))

    def once(data, size):
        return bytes(65536) if next(calls) == 7 else inflate(data, size)

    engine(decompress=once)
    decoder = PacketDecoder(READ_LATE)

    assert contents() == decoded(decoder, stored(encoded(PacketEncoder(PacketSettings()))))
    assert decoder.failures.count == 1


def test_software_says_that_a_snapshot_is_damaged(engine):
    """Of a damaged packet among good ones, behind an engine, that one alone is corrupt."""
    engine()
    packets = stored(encoded(PacketEncoder(PacketSettings())))
    packets[5] = packets[5][0], packets[6][1]
    back = decoded(PacketDecoder(READ_LATE), packets)
    error = back.pop(5)

    assert (error.exit_code, error.packet, "digest" in error.message, back) == (
        3,
        5,
        True,
        {key: page for key, page in contents().items() if key != 5},
    )


@pytest.mark.parametrize("name", ["zlib", "zstd", "lz4", "none"])
def test_wrong_contents_are_corrupt(name):
    """A stream of other pages of the same size is found by the digest, in every encoding."""
    packets = stored(encoded(PacketEncoder(WAYS[name])))
    back = decoded(PacketDecoder(ReadSettings()), [(packets[5][0], packets[6][1])])

    assert (back[5].exit_code, "digest of the page contents" in back[5].message) == (3, True)


@pytest.mark.parametrize("name", ["zlib", "zstd", "lz4", "none"])
def test_contents_that_the_caller_compares_are_given_as_they_are(name):
    """Of pages that are a part of a packet's the decoder compares no digest, if it is told so."""
    packets = stored(encoded(PacketEncoder(WAYS[name])))
    swapped = [(packets[5][0], packets[6][1])]
    (found,) = PacketDecoder(ReadSettings()).decode_all(swapped, compare_digests=False)

    assert (found.error, found.pages.tobytes()) == (None, contents()[6])


def test_what_an_engine_made_is_compared_all_the_same(engine):
    """Wrong bytes of an engine never reach a caller that compares digests itself."""
    engine(decompress=lambda data, size: bytes(len(inflate(data, size))))
    decoder = PacketDecoder(READ_LATE)
    packets = stored(encoded(PacketEncoder(PacketSettings())))
    back = {
        found.packet.packet: found.pages.tobytes()
        for found in decoder.decode_all(packets, compare_digests=False)
    }

    assert (back, decoder.failures.count > 0) == (contents(), True)


@pytest.mark.parametrize("name", ["zlib", "zstd", "lz4"])
def test_another_length_is_corrupt(name):
    """A stream of fewer pages than the record says is corrupt, in every encoding."""
    packets = stored(encoded(PacketEncoder(WAYS[name])))
    short = stored(encoded(PacketEncoder(WAYS[name]), [ram.text(15)]))
    back = decoded(PacketDecoder(ReadSettings()), [(packets[5][0], short[0][1])])

    assert (back[5].exit_code, "61440 bytes" in back[5].message) == (3, True)
