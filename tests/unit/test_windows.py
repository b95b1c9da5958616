"""Facts about deflate streams for a decoder with little memory, judged by zlib."""

import zlib

import numpy as np
import pytest

from snapmig.encodings.compressions import PacketSettings
from snapmig.encodings.encoder import PacketEncoder
from snapmig.encodings.engines import TRUSTED
from snapmig.encodings.engines.engine import DeflateSettings
from snapmig.encodings.packet import summarise
from tests.support import ram

FAR = ram.noise(4).tobytes() * 8  # repeats at a distance of 16 KiB only
NEAR = ram.noise(1)[0, :3000].tobytes() * 60  # repeats at a distance that 4 KiB have
CONTENTS = {
    "near": NEAR,
    "near and far": NEAR + FAR,
    "text": ram.text(32).tobytes(),
    "specks": ram.specks(32).tobytes(),
    "mixed": ram.mixed(512 << 10),
}
ENGINES = [(engine.name, level) for engine in TRUSTED for level in engine.levels]


def _pages(plain):
    return np.frombuffer(plain + b"1" * (-len(plain) % 4096), np.uint8).reshape(-1, 4096)


def _stream(plain, engine, level, window_bits):
    settings = PacketSettings(engine=engine, deflate=DeflateSettings(level, window_bits))
    return bytes(PacketEncoder(settings).encode(summarise(_pages(plain))).payload)


def _inflate(stream, window_bits):
    # In steps of a page, so that zlib has no more history than its window.
    decoder = zlib.decompressobj(-window_bits)
    plain = decoder.decompress(stream, 4096)
    while not decoder.eof:
        plain += decoder.decompress(decoder.unconsumed_tail, 4096)
    return plain


@pytest.mark.parametrize(("engine", "level"), ENGINES)
@pytest.mark.parametrize("name", CONTENTS)
def test_streams_keep_to_a_window_of_4k(name, engine, level):
    """With 4 KiB of history zlib decodes what every engine makes for them, at every level."""
    summary = summarise(_pages(CONTENTS[name]))

    assert _inflate(_stream(CONTENTS[name], engine, level, 12), 12) == summary.data.tobytes()


@pytest.mark.parametrize(("engine", "level"), [("isal", 3), ("python", 6)])
def test_a_window_of_4k_is_needed_for_the_test_above(engine, level):
    """With 32 KiB the same engines reach back further, and zlib with 4 KiB refuses it."""
    stream = _stream(CONTENTS["near and far"], engine, level, 15)

    with pytest.raises(zlib.error, match="too far back"):
        _inflate(stream, 12)
