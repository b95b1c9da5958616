"""What every engine for deflate offers, and what can be known of it before it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from snapmig.encodings.coders import Coder
from snapmig.system.files import Buffer

__all__ = ("DeflateSettings", "Engine", "EngineFacts", "TrainableEngine")


class DeflateSettings(NamedTuple):
    """
    How streams are made.

    :param level: one of the engine's own
    :param window_bits: no stream may reach back further than 2 to the power of that
    :param depth: jobs in flight, at most; None for what suits the engine
    :param huffman: ``dynamic``, ``fixed`` or ``trained``
    :param histogram: what a table was trained with, in the engine's own form
    """

    level: int = 1
    window_bits: int = 15
    depth: int | None = None
    huffman: str = "dynamic"
    histogram: bytes | None = None


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """
    Whether this host has an engine, and what it can do.

    :param hardware: whether a device does the work
    :param version: of its library, None where that is missing
    :param devices: device nodes or queues that it could use
    :param problem: why it can't be used here, None when it can
    :param remedy: a command that mends it, where one does
    :param note: what the user should know when it is used all the same, by name, in spite of a
        problem
    :param levels: for compression
    :param compress_window_bits: the largest window of the streams that it makes
    :param decompress_window_bits: the largest window of the streams that it decodes
    :param keeps_to_window: whether its streams can be made for a smaller window
    :param max_depth: jobs that it can have in flight
    :param huffman: which tables it can compress with
    """

    name: str
    title: str
    hardware: bool
    version: str | None
    library: str | None
    devices: tuple[str, ...]
    problem: str | None
    remedy: str | None
    levels: tuple[int, ...]
    compress_window_bits: int
    decompress_window_bits: int
    keeps_to_window: bool = True
    max_depth: int = 1
    huffman: tuple[str, ...] = ("dynamic",)
    note: str | None = None

    @property
    def usable(self) -> bool:
        """Whether it can be used here and now."""
        return self.problem is None


class Engine(Protocol):
    """
    One way to make and read deflate streams.

    :ivar name: what ``--accelerator`` calls it
    :ivar trusted: software that is the reference of the others: what it makes of a stream counts
    :ivar levels: for compression
    :ivar max_window_bits: the largest window of streams that it decodes
    :ivar signs: paths, of which one is there where a device of its kind could be used; none for
        software
    """

    name: str
    trusted: bool
    levels: range
    max_window_bits: int
    signs: tuple[str, ...]

    def facts(self) -> EngineFacts:
        """Look at this host; takes milliseconds and starts nothing."""

    def compressor(self, settings: DeflateSettings) -> Coder:
        """
        Return a coder for this process.

        :raises EngineError: it can't be had here
        """

    def decompressor(self, window_bits: int, depth: int | None = None) -> Coder:
        """
        Return a coder for this process; what it returns still has to be checked.

        :raises EngineError: it can't be had here
        """


@runtime_checkable
class TrainableEngine(Engine, Protocol):
    """An engine that can compress with a Huffman table made for the data."""

    def train(self, samples: Sequence[Buffer]) -> bytes:
        """
        Return a histogram of samples of the data, for :attr:`DeflateSettings.histogram`.

        :raises EngineError: it failed
        """
