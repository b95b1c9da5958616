"""Coders and engines for tests: asynchronous ones, and ones with known failures."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from snapmig.encodings.coders import Coder, Done, EngineError
from snapmig.encodings.engines.engine import DeflateSettings
from snapmig.encodings.engines.facts import EngineFacts
from snapmig.errors import CorruptSnapshotError
from snapmig.system.files import Buffer

Function = Callable[[Buffer, int], Buffer | None]


def deflate(data: Buffer, _limit: int) -> bytes:
    """Return a raw deflate stream."""
    encoder = zlib.compressobj(1, zlib.DEFLATED, -15)
    return encoder.compress(data) + encoder.flush()


def inflate(stored: Buffer, _size: int) -> bytes:
    """Return the contents of a raw deflate stream."""
    return zlib.decompress(stored, -15)


class Late:
    """
    A coder with up to four jobs in flight; the last one submitted is reaped first.

    :ivar submitted: keys of all jobs submitted
    """

    depth = 4

    def __init__(self, function: Function) -> None:
        self._function = function
        self._flying: list[tuple[int, Buffer, int]] = []
        self.submitted: list[int] = []

    def submit(self, key: int, data: Buffer, size: int) -> None:
        """Take a job."""
        assert len(self._flying) < self.depth, "a coder has more jobs than its depth"
        assert key not in [known for known, _, _ in self._flying], "two jobs with one key"
        self.submitted.append(key)
        self._flying.append((key, data, size))

    def reap(self) -> Done:
        """Execute a job and return its outcome."""
        key, data, size = self._flying.pop()
        try:
            return Done(key, self._function(data, size))
        except (EngineError, CorruptSnapshotError) as error:
            return Done(key, None, error)


def failing(function: Function, fails: Callable[[int], bool], words: str = "broke") -> Function:
    """Return the function, with some calls, counted from 0, failing like an engine's."""
    calls = iter(range(1 << 30))

    def call(data: Buffer, size: int) -> Buffer | None:
        if fails(next(calls)):
            raise EngineError(words)
        return function(data, size)

    return call


def always(_call: int) -> bool:
    """Fail each time."""
    return True


def never(_call: int) -> bool:
    """Never fail."""
    return False


@dataclass
class LateEngine:
    """
    An untrusted engine of deflate, with late coders made from functions.

    :ivar settings: the settings its compressors were made with
    """

    compress: Function = deflate
    decompress: Function = inflate
    opens: bool = True
    name: str = "late"
    trusted: bool = False
    levels: range = range(1, 4)
    max_window_bits: int = 15
    settings: list[DeflateSettings] = field(default_factory=list)
    coders: list[Late] = field(default_factory=list)

    def facts(self) -> EngineFacts:
        """Report the engine as present."""
        return EngineFacts(
            name=self.name,
            title="an engine of the tests",
            hardware=False,
            version=None,
            library=None,
            devices=(),
            problem=None,
            remedy=None,
            levels=tuple(self.levels),
            compress_window_bits=15,
            decompress_window_bits=15,
            max_depth=4,
        )

    def compressor(self, settings: DeflateSettings) -> Coder:
        """Return a coder."""
        self.settings.append(settings)
        return self._open(self.compress)

    def decompressor(self, window_bits: int, depth: int | None = None) -> Coder:  # noqa: ARG002
        """Return a coder."""
        return self._open(self.decompress)

    def _open(self, function: Function) -> Coder:
        if not self.opens:
            raise EngineError("no device")
        self.coders.append(Late(function))
        return self.coders[-1]
