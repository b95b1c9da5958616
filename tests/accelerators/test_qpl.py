"""Intel's QPL makes and reads plain deflate, in software."""

from __future__ import annotations

import mmap
import random
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from snapmig.encodings import deflate
from snapmig.encodings.coders import Coder, Done, EngineError
from snapmig.encodings.engines.engine import DeflateSettings
from snapmig.encodings.engines.qpl import library as qpl_library
from snapmig.encodings.engines.qpl.engine import QplSoftwareEngine
from snapmig.errors import CorruptSnapshotError
from tests.support.requirements import requires

SIZE = 128 * 4096
ROOM = 400
"""For the code lengths of a trained table before a single byte."""
PROGRAM = Path(sys.executable).resolve().read_bytes()
BINARY = PROGRAM[len(PROGRAM) // 4 :][:SIZE]
OTHER_BINARY = PROGRAM[len(PROGRAM) // 2 :][:SIZE]
NOISE = random.Random(1).randbytes(SIZE)
DATA = {
    "binary": BINARY,
    "noise": NOISE,
    "zeros": bytes(SIZE),
    "mixed": b"".join(
        part[at : at + 4096] for at in range(0, SIZE, 4096) for part in (BINARY, NOISE)
    ),
    "one byte": b"x",
    "odd length": BINARY[:70_001],
}
HUFFMAN = ("dynamic", "fixed", "trained")
LEVELS = (1, 3)
SOFTWARE = QplSoftwareEngine()


@pytest.fixture(autouse=True)
def _library() -> None:
    if isinstance(qpl_library.load(), str):
        requires(qpl_library.SONAME)


def settings(huffman: str, level: int = 1, depth: int | None = None) -> DeflateSettings:
    """Return settings, with a histogram where one is needed."""
    histogram = SOFTWARE.train([BINARY]) if huffman == "trained" else None
    return DeflateSettings(level, huffman=huffman, histogram=histogram, depth=depth)


def code(coder: Coder, data: object, size: int) -> Done:
    """Do one job."""
    coder.submit(7, data, size)
    return coder.reap()


def compress(data: bytes, huffman: str = "dynamic", level: int = 1) -> bytes:
    """Return the stream of some data."""
    done = code(SOFTWARE.compressor(settings(huffman, level)), data, len(data) + ROOM)
    assert done.result is not None, done.error
    return bytes(done.result)


def inflate(stream: bytes, size: int) -> bytes:
    """Decode with zlib, which refuses matches further back than 4 KiB and bytes after the end."""
    decoder = zlib.decompressobj(-12)
    plain = decoder.decompress(stream, size + 1)
    assert decoder.eof
    assert not decoder.unused_data
    return plain


def narrow(data: bytes, level: int) -> bytes:
    """Compress with zlib and a window of 4 KiB."""
    encoder = zlib.compressobj(level, zlib.DEFLATED, -12)
    return encoder.compress(data) + encoder.flush()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("huffman", HUFFMAN)
@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_zlib_decodes_its_streams(data, huffman, level):
    """With a window of 4 KiB, to the end of the stream."""
    assert inflate(compress(data, huffman, level), len(data)) == data


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("huffman", HUFFMAN)
@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_isal_decodes_its_streams(data, huffman, level):
    """With a window of 4 KiB, to the end of the stream."""
    assert deflate.decompress(compress(data, huffman, level), len(data), 12) == data


def test_fixed_streams_have_fixed_blocks():
    """Type 1 of RFC 1951, section 3.2.3."""
    assert compress(BINARY, "fixed")[0] >> 1 & 3 == 1


def test_trained_streams_carry_their_table():
    """They begin with a dynamic block, and with the same code lengths whatever the data."""
    one, other = compress(BINARY, "trained"), compress(OTHER_BINARY, "trained")
    assert one[0] >> 1 & 3 == 2
    assert one[:32] == other[:32]


def test_trained_tables_suit_their_data_better_than_fixed_ones():
    """So the histogram did reach the table."""
    assert len(compress(BINARY, "trained")) < 0.95 * len(compress(BINARY, "fixed"))


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_a_table_takes_data_that_it_was_not_trained_with(data):
    """Symbols that the samples lack have codes too."""
    histogram = SOFTWARE.train([b"a" * 4096])
    coder = SOFTWARE.compressor(DeflateSettings(huffman="trained", histogram=histogram))
    done = code(coder, data, len(data) + ROOM)
    assert done.result is not None
    assert inflate(bytes(done.result), len(data)) == data


@pytest.mark.parametrize("level", deflate.LEVELS)
@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_it_decodes_what_isal_makes(data, level):
    """With a window of 4 KiB."""
    done = code(SOFTWARE.decompressor(12), deflate.compress(data, level, 12), len(data))
    assert done.result == data


@pytest.mark.parametrize("level", [1, 6, 9])
@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_it_decodes_what_zlib_makes(data, level):
    """With a window of 4 KiB."""
    done = code(SOFTWARE.decompressor(12), narrow(data, level), len(data))
    assert done.result == data


@pytest.mark.parametrize("huffman", HUFFMAN)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.58, 0.61, 0.75, 0.8, 1.0])
def test_a_result_keeps_to_its_limit(huffman, share):
    """It is None, and no error, or it fits and is right."""
    limit = int(share * SIZE)
    done = code(SOFTWARE.compressor(settings(huffman)), BINARY, limit)
    assert done.error is None
    if done.result is not None:
        assert len(done.result) <= limit
        assert inflate(bytes(done.result), SIZE) == BINARY


@pytest.mark.parametrize("huffman", HUFFMAN)
def test_noise_does_not_fit_its_own_size(huffman):
    """Stored blocks have headers."""
    assert code(SOFTWARE.compressor(settings(huffman)), NOISE, SIZE) == Done(7, None)


@pytest.mark.parametrize("off", [-4096, -1, 1, 4096])
def test_another_length_is_an_error(off):
    """Shorter or longer than the stream gives."""
    done = code(SOFTWARE.decompressor(12), deflate.compress(BINARY, 1, 12), SIZE + off)
    assert done.result is None
    assert isinstance(done.error, EngineError)


def test_a_failed_job_leaves_nothing_to_the_next():
    """One coder, a bad stream, then a good one."""
    coder = SOFTWARE.decompressor(12, 1)
    assert code(coder, NOISE[:1000], SIZE).error is not None
    assert code(coder, deflate.compress(BINARY, 1, 12), SIZE).result == BINARY


def spoiled(stream: bytes, seed: int) -> bytes:
    """Return a stream with a bit turned over, or some, or with its end cut off."""
    draw = random.Random(seed)
    if seed % 3 == 0:
        return stream[: draw.randrange(1, len(stream))]
    damaged = bytearray(stream)
    for _ in range(1 if seed % 3 == 1 else 20):
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


@pytest.mark.parametrize(
    "stream", [deflate.compress(BINARY[:65536], 1, 12), narrow(BINARY[:65536], 9)]
)
def test_a_damaged_stream_never_gives_another_length(stream):
    """Of 1500 kinds of damage, each is an error or gives the bytes that are due in number."""
    coder = SOFTWARE.decompressor(12, 1)
    for seed in range(1500):
        done = code(coder, spoiled(stream, seed), 65536)
        if done.error is None:
            assert len(done.result) == 65536, seed
        else:
            assert isinstance(done.error, EngineError), seed


def far_matches(seed: int) -> bytes:
    """Return 128 KiB of noise, some of it repeated after up to 32 KiB."""
    draw = random.Random(seed)
    data = bytearray(draw.randbytes(131072))
    for _ in range(draw.randrange(1, 40)):
        at, distance = draw.randrange(0, 131072 - 40000), draw.randrange(1, 32768)
        length = draw.randrange(4, 300)
        data[at + distance : at + distance + length] = data[at : at + length]
    return bytes(data)


def test_a_larger_window_is_an_error_or_decoded_rightly():
    """Of 300 streams some have only near matches; what is decoded is right to the last byte."""
    coder = SOFTWARE.decompressor(12, 1)
    for seed in range(150):
        data = far_matches(seed)
        for stream in (zlib.compress(data, 9, -15), deflate.compress(data, 1, 15)):
            done = code(coder, stream, len(data))
            assert done.result == data if done.error is None else done.result is None, seed


def test_success_with_a_part_of_the_contents_is_an_error():
    """QPL 1.9 reports it for some streams with a larger window."""
    coder = SOFTWARE.decompressor(12, 1)
    reasons = []
    for seed in range(150):
        done = code(coder, deflate.compress(far_matches(seed), 1, 15), 131072)
        reasons.append(str(done.error))
    assert any("left over" in reason or "expected 131072" in reason for reason in reasons)


def test_a_larger_window_of_a_real_program_is_refused():
    """By its status."""
    done = code(SOFTWARE.decompressor(12), zlib.compress(BINARY, 9, -15), SIZE)
    assert "further than 4 KiB" in str(done.error)


def test_software_says_what_a_refused_stream_is():
    """An engine's refusal is no verdict on the snapshot."""
    done = code(SOFTWARE.decompressor(12), NOISE, SIZE)
    assert isinstance(done.error, EngineError)
    assert not isinstance(done.error, CorruptSnapshotError)


@pytest.mark.parametrize("form", ["bytes", "view", "pages", "mapping"])
def test_any_contiguous_buffer_is_taken(form, tmp_path):
    """And is let go of when the job is reaped: a mapping can be closed then."""
    path = tmp_path / "data"
    path.write_bytes(BINARY)
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    pages = np.frombuffer(BINARY, np.uint8).reshape(-1, 4096)
    forms = {"bytes": BINARY, "view": memoryview(BINARY), "pages": pages, "mapping": mapping}
    done = code(SOFTWARE.compressor(settings("dynamic")), forms[form], SIZE)
    assert inflate(bytes(done.result), SIZE) == BINARY
    mapping.close()
