"""Decoded packets for guests at work, from storage that may be out of reach for a while."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from snapmig.chains.packet_cache import PacketCache
from snapmig.errors import StoreError
from snapmig.geometry import Geometry
from snapmig.pages import Bytes

__all__ = ("PacketSource",)

_PATIENCE_S = 60.0
_PAUSE_S = 1.0


class PacketSource:
    """
    RAM by RAM offset, for any number of threads.

    :param report: called with a sentence while storage is out of reach
    """

    def __init__(
        self, packets: PacketCache, geometry: Geometry, report: Callable[[str], None]
    ) -> None:
        self.geometry = geometry
        self._packets = packets
        self._report = report

    def read(self, start: int, stop: int, *, ahead: bool = False) -> Bytes | None:
        """
        Return the bytes between two RAM offsets, None if all their packets are empty.

        :param ahead: nobody asked for them yet
        :raises CorruptSnapshotError: a packet is damaged
        :raises StoreError: object storage was out of reach for a minute
        """
        pieces, empty, at = [], True, start
        while at < stop:
            place = self.geometry.place(self.geometry.packet_at(at))
            content = self._packet(place.packet, ahead)
            inside = at - place.ram_offset
            pieces.append(content[inside : inside + stop - at])
            empty = empty and self._packets.is_empty(content)
            at += pieces[-1].size
        if empty:
            return None
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _packet(self, number: int, ahead: bool) -> Bytes:
        # A guest at work is not to be ended for a server's short absence.
        deadline = None
        while True:
            try:
                return self._packets.packet(number, ahead=ahead)
            except StoreError as error:
                if deadline is None:
                    deadline = time.monotonic() + _PATIENCE_S
                    self._report(f"{error}; trying again for {_PATIENCE_S:g} s")
                if time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_S)
