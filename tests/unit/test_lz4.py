"""Facts about LZ4 blocks, with the program lz4 and the example's decoder as judges."""

import subprocess

import pytest

from examples import read_snapshot
from snapmig.encodings import lz4
from snapmig.errors import CorruptSnapshotError
from tests.support import builders, ram
from tests.support.lz4_frames import framed
from tests.support.requirements import requires

TEXT = ram.text(16).tobytes()
PLAINS = [TEXT, ram.noise(4).tobytes() * 4, bytes(65536), ram.mixed(256 << 10)]


def compress(plain, level=1):
    """Return a block."""
    coder = lz4.compressor(level)
    coder.submit(0, plain, len(plain))
    return coder.reap().result


def decompress(block, size):
    """Return what a block is of, or raise what is wrong with it."""
    coder = lz4.decompressor()
    coder.submit(0, block, size)
    done = coder.reap()
    if done.error is not None:
        raise done.error
    return done.result


@pytest.mark.parametrize("level", lz4.LEVELS)
@pytest.mark.parametrize("plain", PLAINS, ids=range(4))
def test_the_program_decodes_what_is_compressed(plain, level):
    """Each level gives a block that the program decodes in a frame."""
    requires("lz4")
    frame = framed(compress(plain, level))
    result = subprocess.run(
        ["lz4", "-q", "-d", "-c"], input=frame, stdout=subprocess.PIPE, check=True
    )

    assert plain == result.stdout


@pytest.mark.parametrize("level", [1, 3, 12])
@pytest.mark.parametrize("plain", PLAINS, ids=range(4))
def test_the_example_decodes_what_is_compressed(plain, level):
    """A decoder made from the block format's description alone gives the same."""
    assert plain == read_snapshot.unlz4(compress(plain, level), len(plain), "packet 0")


@pytest.mark.parametrize("plain", [*PLAINS, b"", b"x", b"x" * 13, TEXT[:-1]], ids=range(8))
def test_what_another_writer_compresses_is_decoded(plain):
    """Blocks of the tests' own writer are decoded."""
    assert plain == decompress(builders.lz4(plain), len(plain))


def test_higher_levels_are_smaller():
    """Level 9 compresses better than level 1."""
    assert len(compress(TEXT, 9)) < len(compress(TEXT, 1))


def test_a_block_has_no_size_before_it():
    """A block starts with a token: of a short text, one of its literals alone."""
    assert compress(b"text") == b"\x40text"


@pytest.mark.parametrize("size", [0, 1, 65535, 65537, 1 << 20])
def test_another_size_than_is_due_is_corrupt(size):
    """A block of more or fewer bytes is refused."""
    with pytest.raises(CorruptSnapshotError, match="LZ4 block"):
        decompress(compress(TEXT), size)


@pytest.mark.parametrize("cut", [0, 1, 2, 100, -1])
def test_a_block_that_is_cut_is_corrupt(cut):
    """A block that ends too early is refused, wherever it ends."""
    with pytest.raises(CorruptSnapshotError, match="LZ4 block"):
        decompress(compress(TEXT)[:cut], 65536)


@pytest.mark.parametrize("rest", [b"\0", b"x" * 4096, compress(TEXT)])
def test_bytes_after_a_block_are_corrupt(rest):
    """A block ends with its buffer."""
    with pytest.raises(CorruptSnapshotError, match="LZ4 block"):
        decompress(compress(TEXT) + rest, 65536)
