"""Intel QAT through the real QATzip, whose software does the work where there is no device."""

from __future__ import annotations

import ctypes
import re
import sys
import zlib

import numpy as np
import pytest

from snapmig.encodings import deflate
from snapmig.encodings.coders import Coder, Done, EngineError
from snapmig.encodings.engines.devices import find_qat
from snapmig.encodings.engines.engine import DeflateSettings
from snapmig.encodings.engines.qat import library as qatzip_library
from snapmig.encodings.engines.qat.engine import QatEngine
from tests.support import program, ram
from tests.support.outcome import Outcome
from tests.support.requirements import requires

LEVELS = range(1, 10)
PLAINS = {
    "text": ram.text(1024).tobytes(),  # 4 MiB: eight chunks of the device
    "noise": ram.noise(1024).tobytes(),
    "zeros": bytes(4 << 20),
    "odd length": ram.text(300).tobytes()[:-17],
    "one byte": b"x",
}


@pytest.fixture(autouse=True)
def _library() -> None:
    try:
        qatzip_library.load_library()
    except OSError:
        requires(qatzip_library.LIBRARY)


def code(coder: Coder, data: bytes | memoryview, size: int) -> Done:
    """Do one job."""
    coder.submit(7, data, size)
    return coder.reap()


def compress(plain: bytes, level: int = 1) -> bytes:
    """Compress with a coder of its own."""
    done = code(QatEngine().compressor(DeflateSettings(level=level)), plain, 2 * len(plain) + 64)
    assert done.result is not None, done.error
    return bytes(done.result)


def inflate(stream: bytes, most: int) -> bytes | None:
    """Decode with zlib; None unless it is one stream, to its end and with nothing after it."""
    decoder = zlib.decompressobj(-15)
    try:
        plain = decoder.decompress(stream, most)
    except zlib.error:
        return None
    return plain if decoder.eof and not decoder.unused_data else None


class MallocFacts(ctypes.Structure):
    """``struct mallinfo2`` of the C library."""

    _fields_ = (
        ("arena, ordblks, smblks, hblks", ctypes.c_size_t * 4),
        ("hblkhd", ctypes.c_size_t),
        ("usmblks, fsmblks", ctypes.c_size_t * 2),
        ("uordblks", ctypes.c_size_t),
        ("fordblks, keepcost", ctypes.c_size_t * 2),
    )


def allocated() -> int:
    """Bytes that libraries have from malloc now."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = MallocFacts
    facts = mallinfo2()
    return int(facts.uordblks + facts.hblkhd)


def run(code: str) -> Outcome:
    """Run a program of Python in a process that never used QATzip."""
    return program.call([sys.executable, "-c", code], timeout=60)


@pytest.mark.parametrize("plain", PLAINS.values(), ids=PLAINS)
def test_zlib_decodes_one_stream_to_its_end(plain: bytes) -> None:
    """The chunks of the device make one stream, with nothing after it."""
    assert inflate(compress(plain), len(plain) + 1) == plain


@pytest.mark.parametrize("level", LEVELS)
def test_zlib_decodes_each_level(level: int) -> None:
    """All levels of QATzip give streams."""
    plain = PLAINS["odd length"]
    assert inflate(compress(plain, level), len(plain) + 1) == plain


@pytest.mark.parametrize("plain", PLAINS.values(), ids=PLAINS)
def test_isal_decodes_what_is_compressed(plain: bytes) -> None:
    """The other decoder that reads snapshots agrees."""
    assert bytes(deflate.decompress(compress(plain), len(plain), window_bits=15)) == plain


@pytest.mark.parametrize("window_bits", [12, 15])
@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_what_zlib_made_is_decoded(level: int, window_bits: int) -> None:
    """Streams of any level and window, stored blocks included."""
    plain = PLAINS["odd length"]
    encoder = zlib.compressobj(level, zlib.DEFLATED, -window_bits)
    stream = encoder.compress(plain) + encoder.flush()
    done = code(QatEngine().decompressor(window_bits), stream, len(plain))
    assert done.result is not None
    assert bytes(done.result) == plain


@pytest.mark.parametrize("level", deflate.LEVELS)
@pytest.mark.parametrize("plain", PLAINS.values(), ids=PLAINS)
def test_what_isal_made_is_decoded(plain: bytes, level: int) -> None:
    """Snapshots that were saved without QAT are restored with it."""
    stream = deflate.compress(plain, level, 15)
    done = code(QatEngine().decompressor(15), stream, len(plain))
    assert done.result is not None
    assert bytes(done.result) == plain


def test_a_result_over_the_limit_is_none() -> None:
    """That is no error: the page data is then stored in another way."""
    plain = PLAINS["noise"]
    done = code(QatEngine().compressor(DeflateSettings()), plain, len(plain))
    assert (done.key, done.result, done.error) == (7, None, None)


def test_a_result_at_the_limit_is_given() -> None:
    """The limit itself is allowed."""
    plain = PLAINS["text"]
    size = len(compress(plain))
    coder = QatEngine().compressor(DeflateSettings())
    assert code(coder, plain, size).result is not None
    assert code(coder, plain, size - 1).result is None


def test_a_coder_goes_on_after_a_result_over_the_limit() -> None:
    """The next job is a stream of its own."""
    coder = QatEngine().compressor(DeflateSettings())
    code(coder, PLAINS["noise"], 10)
    done = code(coder, PLAINS["text"], 4 << 20)
    assert done.result is not None
    assert inflate(bytes(done.result), 5 << 20) == PLAINS["text"]


def test_a_read_only_view_is_compressed() -> None:
    """Pages come from maps that can't be written."""
    plain = PLAINS["text"]
    done = code(QatEngine().compressor(DeflateSettings()), memoryview(plain)[4096:8192], 8192)
    assert done.result is not None
    assert inflate(bytes(done.result), 8192) == plain[4096:8192]


def test_an_array_of_wider_items_is_compressed() -> None:
    """Sizes are bytes, whatever the items of a buffer are."""
    plain = PLAINS["text"][:8192]
    items = memoryview(plain).cast("Q")
    done = code(QatEngine().compressor(DeflateSettings()), items, 8192)
    assert done.result is not None
    assert inflate(bytes(done.result), 8193) == plain


def test_a_smaller_window_is_refused() -> None:
    """QATzip has no setting for it."""
    with pytest.raises(EngineError, match="window of 32 KiB only, not of 12 bits"):
        QatEngine().compressor(DeflateSettings(window_bits=12))


def test_other_huffman_tables_are_refused() -> None:
    """QATzip's backup takes none, so that what comes out would depend on the host."""
    with pytest.raises(EngineError, match="no trained Huffman tables"):
        QatEngine().compressor(DeflateSettings(huffman="trained"))


def test_an_empty_input_is_refused() -> None:
    """A packet has a page at least."""
    done = code(QatEngine().compressor(DeflateSettings()), b"", 100)
    assert str(done.error) == "QATzip compresses no empty input"


def test_an_empty_stream_is_refused() -> None:
    """QATzip itself would say that all is well."""
    done = code(QatEngine().decompressor(15), b"", 100)
    assert isinstance(done.error, EngineError)


@pytest.mark.parametrize("change", [-1, 1, 4096])
def test_another_size_is_an_error(change: int) -> None:
    """A stream that is longer or shorter than the size is never good."""
    plain = PLAINS["odd length"]
    done = code(QatEngine().decompressor(15), compress(plain), len(plain) + change)
    assert (done.result, type(done.error)) == (None, EngineError)


@pytest.mark.parametrize("tail", [b"\x00", b"\x03\x00", b"\xff" * 100], ids=["0", "empty", "bad"])
def test_bytes_after_the_stream_are_an_error(tail: bytes) -> None:
    """Also if they are a stream, which QATzip would decode as well by itself."""
    plain = PLAINS["odd length"]
    done = code(QatEngine().decompressor(15), compress(plain) + tail, len(plain))
    assert (done.result, type(done.error)) == (None, EngineError)


def test_two_streams_are_not_one() -> None:
    """QATzip by itself would decode them to both plain texts."""
    plain = PLAINS["odd length"]
    done = code(QatEngine().decompressor(15), compress(plain) * 2, 2 * len(plain))
    assert (done.result, type(done.error)) == (None, EngineError)


def test_a_stream_cut_anywhere_is_an_error() -> None:
    """Also without the last byte, when all of the data has come out already."""
    plain = ram.text(1).tobytes()
    stream = compress(plain)
    coder = QatEngine().decompressor(15)
    results = [code(coder, stream[:end], len(plain)).result for end in range(len(stream))]
    assert results == [None] * len(stream)


def test_a_damaged_stream_gives_what_zlib_gives_or_an_error() -> None:
    """Of 500 streams with a wrong byte, none gives another length or crashes."""
    plain = ram.text(4).tobytes()
    stream = np.frombuffer(compress(plain), np.uint8)
    random = np.random.default_rng(3)
    coder = QatEngine().decompressor(15)
    good = 0
    for _ in range(500):
        damaged = stream.copy()
        damaged[random.integers(len(stream))] ^= random.integers(1, 256, dtype=np.uint8)
        done = code(coder, damaged.tobytes(), len(plain))
        if done.result is None:
            assert isinstance(done.error, EngineError)
        else:
            assert bytes(done.result) == inflate(damaged.tobytes(), len(plain) + 1)
            good += 1
    assert good < 500


def test_noise_is_an_error() -> None:
    """Bytes without any stream do not hang."""
    coder = QatEngine().decompressor(15)
    noise = PLAINS["noise"]
    for start in range(100):
        done = code(coder, noise[start * 999 : start * 999 + 4096], 65536)
        assert done.result is None


def test_a_coder_goes_on_after_damage() -> None:
    """QATzip would stay in the middle of the damaged stream; a new session does not."""
    plain = PLAINS["text"]
    stream = compress(plain)
    coder = QatEngine().decompressor(15)
    for bad in (stream[:-9], b"\xff" * 100, stream + stream):
        assert code(coder, bad, len(plain)).result is None
        done = code(coder, stream, len(plain))
        assert done.result is not None
        assert bytes(done.result) == plain


def test_coders_give_their_memory_back() -> None:
    """Sessions are closed with their coders: each has 300 bytes at least."""
    plain = ram.text(1).tobytes()
    compress(plain)
    before = allocated()
    for _ in range(1000):
        compress(plain)
    assert allocated() - before < 100_000


def test_a_coder_takes_no_more_memory_with_each_job() -> None:
    """Neither do results over the limit, for which QATzip would forget a state of 256 KiB."""
    noise = PLAINS["noise"][:4096]
    coder = QatEngine().compressor(DeflateSettings())
    code(coder, noise, 100)
    before = allocated()
    for _ in range(200):
        code(coder, noise, 100)
    assert allocated() - before < 100_000


def test_damaged_streams_take_no_memory() -> None:
    """Sessions that failed are closed: each has a decoder of 7 KiB at least."""
    coder = QatEngine().decompressor(15)
    code(coder, b"\xff" * 100, 4096)
    before = allocated()
    for _ in range(200):
        code(coder, b"\xff" * 100, 4096)
    assert allocated() - before < 100_000


def test_nothing_is_said_to_the_user() -> None:
    """Neither QATzip nor the libraries below it write that there is no device."""
    done = run(
        "from snapmig.encodings.engines.qat.engine import QatEngine\n"
        "from snapmig.encodings.engines.engine import DeflateSettings\n"
        "coder = QatEngine().compressor(DeflateSettings())\n"
        "coder.submit(0, bytes(4096), 4096)\n"
        "assert coder.reap().result\n"
        "coder = QatEngine().decompressor(15)\n"
        "coder.submit(0, b'bad', 4096)\n"
        "assert coder.reap().error\n"
    )
    done.ok(out="")


def test_two_coders_work_in_turn() -> None:
    """A process that compresses and one that checks what it made may be the same."""
    plain = PLAINS["text"]
    compressor = QatEngine().compressor(DeflateSettings())
    decompressor = QatEngine().decompressor(15)
    for _ in range(3):
        done = code(compressor, plain, len(plain))
        assert done.result is not None
        done = code(decompressor, bytes(done.result), len(plain))
        assert done.result is not None
        assert bytes(done.result) == plain


def test_the_librarys_defaults_are_where_the_structure_has_them() -> None:
    """Level 1, deflate, 64 KiB, gzip with extra fields, software from 1024 bytes: qatzip.h."""
    params = qatzip_library.SessionParams()
    qatzip_library.load_library().qzGetDefaultsDeflateExt(ctypes.byref(params))
    assert (params.direction, params.comp_lvl, params.comp_algorithm) == (2, 1, 8)
    assert (params.max_forks, params.sw_backup, params.hw_buff_sz) == (3, 1, 64 << 10)
    assert (params.strm_buff_sz, params.input_sz_thrshold) == (64 << 10, 1024)
    assert (params.wait_cnt_thrshold, params.huffman_hdr, params.data_fmt) == (8, 0, 2)


def test_the_facts_are_those_of_the_devices() -> None:
    """Its devices decide if it is usable, for the library is here."""
    facts = QatEngine().facts()
    report = find_qat()
    assert (facts.devices, facts.problem, facts.remedy) == (
        report.devices,
        report.problem,
        report.remedy,
    )


def test_the_facts_say_who_does_the_work() -> None:
    """A note is there exactly if no device is."""
    facts = QatEngine().facts()
    assert (facts.note is None) == bool(facts.devices)


def test_the_version_is_that_of_the_library() -> None:
    """Numbers with dots, from the name of its file."""
    assert re.fullmatch(r"3(\.\d+)+", QatEngine().facts().version or "")


def test_a_library_that_is_not_there_is_a_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    """The facts say what to install, and no coder is given."""
    qatzip_library.load_library.cache_clear()
    monkeypatch.setattr(qatzip_library, "LIBRARY", "libqatzip.so.none")
    facts = QatEngine().facts()
    with pytest.raises(EngineError, match="can't be loaded"):
        QatEngine().decompressor(15)
    assert facts.problem is not None
    assert (facts.remedy, facts.note) == ("sudo apt-get install libqatzip3", None)
