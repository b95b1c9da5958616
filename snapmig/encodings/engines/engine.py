"""Interface of deflate engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from snapmig.encodings.coders import Coder
from snapmig.system.files import Buffer

if TYPE_CHECKING:
    from snapmig.encodings.engines.facts import EngineFacts

__all__ = ("DeflateSettings", "Engine", "TrainableEngine")


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
