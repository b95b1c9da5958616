"""Facts about zstd frames, with the program zstd as the judge."""

import subprocess
import sys

import pytest

from snapmig.encodings import zstd
from snapmig.errors import CorruptSnapshotError
from tests.support import builders, ram
from tests.support.requirements import requires

TEXT = ram.text(16).tobytes()
PLAINS = [TEXT, ram.noise(16).tobytes(), bytes(65536), ram.mixed(1 << 20)]
LARGEST = ram.mixed(4 << 20)


def compress(plain, level=1):
    """Return a frame."""
    coder = zstd.compressor(level)
    coder.submit(0, plain, len(plain))
    return coder.reap().result


def decompress(frame, size):
    """Return what a frame is of, or raise what is wrong with it."""
    coder = zstd.decompressor()
    coder.submit(0, frame, size)
    done = coder.reap()
    if done.error is not None:
        raise done.error
    return done.result


def program(*arguments, given):
    """Return what the program zstd makes of its input."""
    requires("zstd")
    return subprocess.run(
        ["zstd", "-q", "-c", *arguments], input=given, stdout=subprocess.PIPE, check=True
    ).stdout


@pytest.mark.parametrize("level", [-7, -1, 1, 3, 9])
@pytest.mark.parametrize("plain", PLAINS, ids=range(4))
def test_the_program_decodes_what_is_compressed(plain, level):
    """Each level gives a frame that the program decodes."""
    assert plain == program("-d", given=compress(plain, level))


@pytest.mark.parametrize("options", [("-1",), ("-19",), ("--fast=7",), ("--check", "-3")])
@pytest.mark.parametrize("plain", PLAINS, ids=range(4))
def test_what_the_program_compresses_is_decoded(plain, options):
    """Frames of another writer are decoded, with a checksum of their own or without."""
    frame = program(f"--stream-size={len(plain)}", *options, given=plain)

    assert plain == decompress(frame, len(plain))


@pytest.mark.parametrize("level", [-7, 1, 19])
@pytest.mark.parametrize("plain", PLAINS, ids=range(4))
def test_a_frame_announces_its_size_and_has_neither_dictionary_nor_checksum(plain, level):
    """The frame header's descriptor has a size of contents, and no bit of the others."""
    descriptor = compress(plain, level)[4]

    assert (descriptor & 0b11100000 > 0, descriptor & 0b1111) == (True, 0)


def test_a_frame_needs_a_window_of_at_most_8_mib():
    """Of a packet of the largest size, at the highest level, all can be decoded with 8 MiB."""
    frame = compress(LARGEST, 19)

    assert program("-d", "--memory=8MiB", given=frame) == LARGEST


@pytest.mark.parametrize("size", [0, 1, 65535, 65537, 1 << 40])
def test_another_size_than_is_due_is_corrupt(size):
    """The announced size is compared before anything is decoded."""
    with pytest.raises(CorruptSnapshotError, match=f"announces 65536 bytes, expected {size} bytes"):
        decompress(compress(TEXT), size)


def test_a_frame_without_a_size_is_corrupt():
    """A frame that a program wrote to a pipe has no size in it."""
    with pytest.raises(CorruptSnapshotError, match="announces no size, expected 65536 bytes"):
        decompress(builders.zstd(TEXT, size=-1), 65536)


@pytest.mark.parametrize("cut", [0, 1, 4, 8, 13, 100, -1])
def test_a_frame_that_is_cut_is_corrupt(cut):
    """A frame that ends too early is refused, wherever it ends."""
    with pytest.raises(CorruptSnapshotError, match="zstd frame"):
        decompress(compress(TEXT)[:cut], 65536)


@pytest.mark.parametrize("rest", [b"\0", compress(TEXT), b"x" * 4096])
def test_bytes_after_a_frame_are_corrupt(rest):
    """A frame ends with its buffer."""
    with pytest.raises(CorruptSnapshotError, match="zstd frame"):
        decompress(compress(TEXT) + rest, 65536)


PEAK = """
import resource, sys
from snapmig.encodings import zstd
from snapmig.errors import CorruptSnapshotError
frame, good, size = bytes.fromhex(sys.argv[1]), bytes.fromhex(sys.argv[2]), int(sys.argv[3])
coder = zstd.decompressor()
coder.submit(0, good, 8192)
assert len(coder.reap().result) == 8192
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
coder.submit(0, frame, size)
done = coder.reap()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, type(done.error).__name__)
"""


@pytest.mark.parametrize(
    ("frame", "size", "error"),
    [
        (builders.zstd(b"1" * 8192, size=1 << 40), 8192, "CorruptSnapshotError"),
        (builders.zstd(b"1" * 8192, size=1 << 62), 8192, "CorruptSnapshotError"),
        (builders.zstd(b"1" * (64 << 20)), 8192, "CorruptSnapshotError"),
        (builders.zstd(b"1" * (64 << 20), size=8192), 8192, "CorruptSnapshotError"),
        (builders.zstd(b"1" * 8192, window=17 << 3), 8192, "NoneType"),
        (builders.zstd(b"1" * 8192, window=21 << 3), 8192, "NoneType"),
    ],
    ids=["2^40", "2^62", "64 MiB", "64 MiB as 8 KiB", "window of 2^27", "window of 2^31"],
)
def test_a_frame_takes_no_more_memory_than_is_due(frame, size, error):
    """Whatever a header announces, size or window, decoding takes less than 4 MiB for a page."""
    result = subprocess.run(
        [sys.executable, "-c", PEAK, frame.hex(), builders.zstd(b"1" * 8192).hex(), str(size)],
        capture_output=True,
        text=True,
        check=True,
    )
    grown, kind = result.stdout.split()

    assert (int(grown) < 4096, kind) == (True, error)
