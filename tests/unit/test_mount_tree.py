"""Facts about small files of a mount, whose contents are made when somebody needs them."""

from __future__ import annotations

from itertools import count

from snapmig.mounts.tree import BytesFile


def numbered(size: int) -> BytesFile:
    """Return a file of a size unknown so far, each time with other contents."""
    numbers = count()
    return BytesFile(lambda: bytes([next(numbers)]) * size, 0, None)


def test_one_making_is_for_size_and_first_reader() -> None:
    """The kernel asks for the size before it opens a file, and gets the contents of the first."""
    file = numbered(3)
    assert file.size == 3
    file.open()
    assert file.read(0, 9) == bytes(3)


def test_contents_are_forgotten_after_the_last_reader() -> None:
    """The next reader has them made anew."""
    file = numbered(3)
    file.open()
    file.close()
    file.open()
    assert file.read(1, 9) == b"\1\1"


def test_large_contents_are_not_kept_for_their_size() -> None:
    """Whoever only looks at a large file leaves no memory in use."""
    file = numbered((16 << 20) + 1)
    assert file.size == (16 << 20) + 1
    file.open()
    assert file.read(0, 1) == b"\1"
