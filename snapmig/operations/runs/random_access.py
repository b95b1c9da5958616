"""A snapshot opened for reads in any order, with its parents and one cache of decoded packets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack

from snapmig.chains.lookup import open_parents
from snapmig.chains.packet_cache import PacketCache
from snapmig.chains.read_ahead import ReadAhead
from snapmig.chains.reader import REMOTE_AHEAD, ReadPlan, open_chain
from snapmig.container.reader import SnapshotFile
from snapmig.encodings.compressions import ReadSettings
from snapmig.geometry import Geometry
from snapmig.operations.options.keys import parse_keys
from snapmig.pages import Bytes
from snapmig.sealing.keyring import Keys

__all__ = ("CACHE", "RandomAccess")

CACHE = "256M"
"""Decoded packets kept by a mount or a daemon, beside what the kernel or the guest keeps."""


class RandomAccess:
    """
    Guest RAM of a snapshot by RAM offset, for any number of threads.

    Opens its files again for each thread that decodes, so it must be made in the process that
    reads.

    :param path: a path, or ``s3://BUCKET/KEY``
    :param jobs: most packets decoded side by side, and four times as many in object storage
    :param ahead: decode more of what is read in order
    :param cache: decoded bytes kept
    :ivar file: the snapshot
    :ivar packets: its decoded packets
    :ivar ahead: decodes more of them, where that was wanted
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        jobs: int,
        cache: int,
        ahead: bool = False,
        follow_remote_parents: bool = False,
        keys: Keys | None = None,
    ) -> None:
        self.file = SnapshotFile(os.fspath(path), keys=parse_keys(keys))
        with ExitStack() as stack:
            stack.callback(self.file.close)
            chain = open_parents(self.file, stack, follow_remote=follow_remote_parents)
            plans = [
                ReadPlan(
                    each.plan(), each.shown, ReadSettings(each.superblock.window_bits), each.key
                )
                for each in chain
            ]
            remote = any(file.is_remote for file in chain)
            threads = jobs * REMOTE_AHEAD if remote else jobs
            self.packets = PacketCache(lambda: open_chain(plans), self.geometry, threads, cache)
            self.ahead: ReadAhead | None = None
            if ahead:
                count = self.geometry.packet_count
                self.ahead = ReadAhead(self.packets, count, threads, remote=remote)
            self._stack = stack.pop_all()

    @property
    def geometry(self) -> Geometry:
        """RAM blocks and packets."""
        return self.file.geometry

    def pieces(self, start: int, stop: int) -> Iterator[Bytes]:
        """
        Yield the bytes between two RAM offsets in pieces, each from one packet.

        :raises CorruptSnapshotError: a packet in this range is damaged
        """
        while start < stop:
            place = self.geometry.place(self.geometry.packet_at(start))
            if self.ahead is not None:
                self.ahead.asked(place.packet)
            inside = start - place.ram_offset
            piece = self.packets.packet(place.packet)[inside : inside + stop - start]
            yield piece
            start += piece.size

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes between two RAM offsets."""
        return b"".join(piece.data for piece in self.pieces(start, stop))

    def close(self) -> None:
        """Close the files."""
        if self.ahead is not None:
            self.ahead.stop()
        self.packets.clear()
        self._stack.close()
