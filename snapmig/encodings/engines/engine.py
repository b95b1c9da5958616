"""Interface of deflate engines, and facts about them known before use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from snapmig.encodings.coders import Coder
from snapmig.system.files import Buffer

__all__ = ("DeflateSettings", "Engine", "EngineFacts", "TrainableEngine")


class DeflateSettings(NamedTuple):
    """
    Settings of deflate streams.

    :param level: one of the engine's own
    :param window_bits: streams reach back at most 2 to the power of this
    :param depth: jobs in flight, at most; None for the engine's own choice
    :param huffman: ``dynamic``, ``fixed`` or ``trained``
    :param histogram: training result of a table, in the engine's own form
    """

    level: int = 1
    window_bits: int = 15
    depth: int | None = None
    huffman: str = "dynamic"
    histogram: bytes | None = None


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """
    Availability and abilities of an engine on this host.

    :param hardware: a device does the work
    :param version: of its library, None if that is missing
    :param devices: device nodes or queues it could use
    :param problem: reason against its use here, None if there is none
    :param remedy: a command against the problem, if there is one
    :param note: remark for users who name the engine in spite of a problem
    :param levels: for compression
    :param compress_window_bits: the largest window of the streams it makes
    :param decompress_window_bits: the largest window of the streams it decodes
    :param keeps_to_window: it can make streams for a smaller window
    :param max_depth: jobs in flight, at most
    :param huffman: tables it can compress with
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
        """True if it can be used here and now."""
        return self.problem is None


class Engine(Protocol):
    """
    One way to make and read deflate streams.

    :ivar name: its name for ``--accelerator``
    :ivar trusted: reference software: its verdict on a stream counts
    :ivar levels: for compression
    :ivar max_window_bits: the largest window of streams it decodes
    """

    name: str
    trusted: bool
    levels: range
    max_window_bits: int

    def facts(self) -> EngineFacts:
        """Inspect this host. Takes milliseconds and starts nothing."""

    def compressor(self, settings: DeflateSettings) -> Coder:
        """
        Return a coder for this process.

        :raises EngineError: not available here
        """

    def decompressor(self, window_bits: int, depth: int | None = None) -> Coder:
        """
        Return a coder for this process. Its output still has to be checked.

        :raises EngineError: not available here
        """


@runtime_checkable
class TrainableEngine(Engine, Protocol):
    """An engine with Huffman tables made for the data."""

    def train(self, samples: Sequence[Buffer]) -> bytes:
        """
        Return a histogram of samples of the data, for :attr:`DeflateSettings.histogram`.

        :raises EngineError: it failed
        """
