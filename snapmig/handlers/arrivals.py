"""Bytes of announced ranges that have come to a worker, counted while it waits for others."""

from __future__ import annotations

import threading

from snapmig.chains.reader import ChainReader
from snapmig.handlers.counters import Counter
from snapmig.workers.counters import Row

__all__ = ("Arrivals",)


class Arrivals:
    """
    A count of what threads fetched for a chain.

    Batches end in their order, several at a time after a late one; bytes come evenly.
    """

    def __init__(self, chain: ChainReader) -> None:
        self._lock = threading.Lock()
        self._bytes = 0
        self._row: Row | None = None
        chain.count_arrivals(self._add)

    def show(self, row: Row) -> None:
        """Keep the count in a worker's row from now on."""
        with self._lock:
            self._row = row
            row[Counter.ARRIVED_BYTES] = self._bytes

    def _add(self, length: int) -> None:
        with self._lock:
            self._bytes += length
            if self._row is not None:
                self._row[Counter.ARRIVED_BYTES] = self._bytes
