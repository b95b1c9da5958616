"""Reads one hostile input after the other, and says what went wrong with one of them."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Protocol, cast

from snapmig.errors import SnapmigError
from tests.fuzz import readers

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Reader(Protocol):
    """A module of :mod:`tests.fuzz.readers`."""

    def seeds(self) -> Sequence[bytes]:
        """Return sound inputs, or nearly sound ones."""

    def read(self, data: bytes, folder: Path) -> None:
        """Read all of an input."""


class EscapeError(Exception):
    """A reader made or changed a file outside of the folder that was given to it."""


def reader_names() -> list[str]:
    """Return the names of all readers."""
    return sorted(info.name for info in pkgutil.iter_modules(readers.__path__))


def find_reader(name: str) -> Reader:
    """Return a reader by its name."""
    return cast("Reader", importlib.import_module(f"{readers.__name__}.{name}"))


class Harness:
    """
    One reader and a folder for it.

    :param name: of the reader
    :ivar refused: inputs that were refused, of ``tried`` ones
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.reader = find_reader(name)
        self.tried = self.refused = 0
        self._outer = folder
        self._folder = folder / "inside"

    def repair(self, data: bytes) -> bytes:
        """Return an input with right checksums."""
        repair = getattr(self.reader, "repair", None)
        return data if repair is None else repair(data)

    def try_one(self, data: bytes) -> None:
        """
        Read an input; a refusal is as good as anything.

        :raises Exception: the reader raised what it never should, or left its folder
        """
        self._folder.mkdir()
        self.tried += 1
        try:
            with _watched(self._outer):
                self.reader.read(data, self._folder)
        except SnapmigError as error:
            self.refused += 1
            check_words(str(error))
        finally:
            shutil.rmtree(self._folder)
        if left := [path.name for path in self._outer.iterdir()]:
            raise EscapeError(f"made {left} beside its folder")


def check_words(text: str) -> None:
    """Check that an error can be one line of at most some kilobytes."""
    if len(text) > 1 << 16 or not text:
        raise ValueError(f"an error of {len(text)} characters")


def made_harness(
    name: str, place: Path, set_variable: Callable[[str, str], object] = os.environ.__setitem__
) -> Harness:
    """
    Return a harness.

    :param place: an empty folder for it and for temporary files
    :param set_variable: sets a variable of the environment for these
    """
    set_variable("TMPDIR", str(place))
    tempfile.tempdir = None  # looked up again
    (place / "work").mkdir()
    return Harness(name, place / "work")


def mutated(seeds: Sequence[bytes], random: Random, count: int) -> Iterator[bytes]:
    """Yield inputs made of seeds without a fuzzer's help: the same ones for the same random."""
    for _ in range(count):
        data = bytearray(random.choice(seeds))
        for _ in range(random.choice((1, 1, 2, 8))):
            _mutate(data, random)
        yield bytes(data)


def _mutate(data: bytearray, random: Random) -> None:
    at = random.randrange(len(data) + 1)
    length = random.choice((1, 2, 4, 8, 64))
    kind = random.randrange(5)
    if kind == 0:
        data[at : at + length] = random.randbytes(length)
    elif kind == 1:
        data[at : at + length] = random.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * length
    elif kind == 2:
        del data[at : at + length]
    elif kind == 3:
        data[at:at] = data[random.randrange(len(data) + 1) :][:length]
    elif at < len(data):
        data[at] ^= 1 << random.randrange(8)


_allowed: list[str] = []


@contextmanager
def _watched(folder: Path) -> Iterator[None]:
    _allowed.append(f"{folder.parent}{os.sep}")
    try:
        yield
    finally:
        _allowed.pop()


def _audit(event: str, arguments: Any) -> None:
    # Python tells of each file that is opened or renamed.
    if not _allowed:
        return
    paths: list[Any] = []
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES:
        paths = [arguments[0]]
    elif event in ("os.rename", "os.link", "os.symlink", "os.mkdir", "os.remove", "os.truncate"):
        paths = [each for each in arguments[:2] if isinstance(each, str | bytes)]
    for path in paths:
        if isinstance(path, str | bytes) and not _may_write(os.fsdecode(path)):
            raise EscapeError(f"{event} of {os.fsdecode(path)!r}")


def _may_write(path: str) -> bool:
    if "/__pycache__" in path:  # Python's own, of a module imported by its first use
        return True
    return f"{path}/".startswith((*_allowed, "/proc/", "/dev/null/")) or "/" not in path


sys.addaudithook(_audit)
