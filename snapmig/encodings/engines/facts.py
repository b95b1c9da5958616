"""Facts about a deflate engine, known before its use."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("EngineFacts",)


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
