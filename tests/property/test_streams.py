"""Facts about all streams: what a decoder takes is what was encoded, or it is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapmig.container.index import StoredPacket
from snapmig.encodings.compressions import PacketSettings, ReadSettings
from snapmig.encodings.decoder import PacketDecoder
from snapmig.encodings.encoder import PacketEncoder
from snapmig.encodings.packet import summarise
from tests.property.examples import examples
from tests.support import ram

PAGES = np.concatenate([ram.text(5), ram.specks(3), ram.noise(1)])


@pytest.fixture(scope="module", params=["zlib", "zstd", "lz4"])
def packet(request):
    """Give a packet's record and its stored bytes."""
    made = PacketEncoder(PacketSettings(request.param)).encode(summarise(PAGES))
    record = StoredPacket(
        packet=9,
        offset=0,
        stored_size=made.stored_size,
        encoding=made.encoding,
        stored_checksum=made.stored_checksum,
        digest=made.digest,
        kinds=made.kinds,
        stored_pages=len(PAGES),
    )
    return record, bytes(made.payload)


def _outcome(record, stored):
    # The pages, or the exit code of the refusal; anything that is raised goes on.
    (found,) = PacketDecoder(ReadSettings()).decode_all([(record, stored)])
    return found.error.exit_code if found.error is not None else found.pages.tobytes()


@examples(150)
@given(where=st.floats(0, 1, exclude_max=True))
def test_a_flipped_bit_is_refused_or_harmless(packet, where):
    """A stream with any one bit flipped, which its checksum hides, is refused or the same."""
    record, stored = packet
    bit = int(where * len(stored) * 8)
    raw = bytearray(stored)
    raw[bit // 8] ^= 1 << bit % 8

    assert _outcome(record, bytes(raw)) in (3, PAGES.tobytes())


@examples(60)
@given(where=st.floats(0, 1, exclude_max=True), junk=st.binary(max_size=300))
def test_overwritten_bytes_are_refused_or_harmless(packet, where, junk):
    """A stream with other bytes anywhere, longer or shorter, is refused or the same."""
    record, stored = packet
    at = int(where * len(stored))

    assert _outcome(record, stored[:at] + junk) in (3, PAGES.tobytes())
    assert _outcome(record, stored[:at] + junk + stored[at + len(junk) :]) in (3, PAGES.tobytes())


@examples(100)
@given(junk=st.binary(max_size=5000))
def test_random_bytes_are_refused(packet, junk):
    """Bytes drawn at random are no stream of these pages."""
    assert _outcome(packet[0], junk) == 3
