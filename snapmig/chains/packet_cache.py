"""Decoded packets of a snapshot, shared by threads: each is decoded once, however many ask."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from queue import Empty, LifoQueue

import numpy as np

from snapmig.chains.reader import ChainReader, Loaded
from snapmig.container.index import StoredPacket
from snapmig.errors import CorruptSnapshotError, SnapmigError, UnreadableError
from snapmig.geometry import PAGE_SIZE, Geometry
from snapmig.pages import Bytes

__all__ = ("PacketCache",)


class PacketCache:
    """
    The packets read last, decoded, up to a number of bytes.

    :param open_reader: opens the snapshot and its parents for one thread at a time
    :param readers: most packets decoded side by side
    :param capacity: decoded bytes kept, at least one packet
    :ivar decoded: number of packets decoded so far
    :ivar capacity: most packets kept
    """

    def __init__(
        self,
        open_reader: Callable[[], ChainReader],
        geometry: Geometry,
        readers: int,
        capacity: int,
    ) -> None:
        self._open_reader = open_reader
        self._geometry = geometry
        self.capacity = max(1, capacity // geometry.packet_size)
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._unasked: set[int] = set()
        self._let_go = False
        self._kept: OrderedDict[int, Bytes] = OrderedDict()
        self._underway: dict[int, Future[Bytes]] = {}
        self._touched: dict[int, None] = {}
        self._turns = threading.Semaphore(readers)
        self._readers: LifoQueue[ChainReader] = LifoQueue()
        self._zeros = np.zeros(geometry.packet_size, np.uint8)
        self._zeros.flags.writeable = False
        self.decoded = 0

    @property
    def touched(self) -> tuple[int, ...]:
        """The packets with pages that were asked for, in the order of their first requests."""
        with self._lock:
            return tuple(self._touched)

    def packet(self, number: int, *, ahead: bool = False) -> Bytes:
        """
        Return the bytes of a packet, zero pages included, as a read-only array.

        :param ahead: nobody asked for it yet
        :raises CorruptSnapshotError: it is damaged; others who wait for it get the same error
        """
        with self._lock:
            found = self._kept.get(number)
            if found is not None:
                self._kept.move_to_end(number)
                if not ahead:
                    self._touch(number)
                return found
            is_mine = number not in self._underway
            future = self._underway.setdefault(number, Future[Bytes]())
        if is_mine:
            self._load({number: future}, ahead=ahead)
        content = future.result()
        if not ahead and not self.is_empty(content):
            with self._lock:
                self._touch(number)
        return content

    def _touch(self, number: int) -> None:
        self._touched.setdefault(number)
        self._forget(number)

    def _forget(self, number: int) -> None:
        # It takes no room of those that nobody asked for any more.
        if number in self._unasked:
            self._unasked.remove(number)
            self._room.notify_all()

    def wait_for_room(self) -> None:
        """Wait until less than a quarter of the packets kept are such that nobody asked for yet."""
        with self._room:
            self._room.wait_for(lambda: self._let_go or 4 * len(self._unasked) < self.capacity)

    def let_go(self) -> None:
        """End all waiting for room."""
        with self._room:
            self._let_go = True
            self._room.notify_all()

    def is_empty(self, content: Bytes) -> bool:
        """Return True for the bytes of a packet without pages, or a part of them."""
        return content.base is self._zeros

    def fetch(self, numbers: Iterable[int]) -> None:
        """
        Decode packets that nobody asked for yet, together, without those decoded already.

        Who asks for a damaged one gets its error.
        """
        with self._lock:
            missing = [each for each in numbers if each not in self._kept]
            mine = {each: Future[Bytes]() for each in missing if each not in self._underway}
            self._underway.update(mine)
        if mine:
            self._load(mine, ahead=True)

    def _load(self, mine: dict[int, Future[Bytes]], *, ahead: bool) -> None:
        try:
            for number, content in self._decode(sorted(mine)):
                with self._lock:
                    del self._underway[number]
                    if not isinstance(content, SnapmigError):
                        self._keep(number, content, ahead=ahead)
                _settle(mine.pop(number), content)
        except BaseException as error:
            with self._lock:
                for number in mine:
                    del self._underway[number]
            for future in mine.values():
                _settle(future, error)
            if not isinstance(error, SnapmigError | OSError):
                raise

    def _keep(self, number: int, content: Bytes, *, ahead: bool) -> None:
        if self.is_empty(content):
            return
        self.decoded += 1
        self._kept[number] = content
        if ahead:
            self._unasked.add(number)
        while len(self._kept) > self.capacity:
            self._forget(self._kept.popitem(last=False)[0])

    def _decode(self, numbers: Sequence[int]) -> Iterator[tuple[int, Bytes | SnapmigError]]:
        with self._turns:
            reader = self._take_reader()
            try:
                found: list[StoredPacket] = []
                for number in numbers:
                    try:
                        found += reader.entries(number, 1)
                    except (CorruptSnapshotError, UnreadableError) as error:
                        yield number, error
                for packet in found:
                    if not packet.pages:
                        yield (
                            packet.packet,
                            self._zeros[: self._geometry.place(packet.packet).length],
                        )
                for loaded in reader.load_all(found):
                    yield loaded.packet.packet, self._content(loaded)
            finally:
                self._readers.put(reader)

    def _content(self, loaded: Loaded) -> Bytes | SnapmigError:
        if loaded.pages is None:
            return loaded.error or SnapmigError("no pages and no reason")
        place = self._geometry.place(loaded.packet.packet)
        pages = np.zeros((place.pages, PAGE_SIZE), np.uint8)
        pages[loaded.packet.in_use[: place.pages]] = loaded.pages
        content = pages.reshape(-1)[: place.length]
        content.flags.writeable = False
        return content

    def _take_reader(self) -> ChainReader:
        try:
            return self._readers.get_nowait()
        except Empty:
            return self._open_reader()

    def clear(self) -> None:
        """Forget all packets, and close the files of readers that have nothing to do."""
        with self._lock:
            self._kept.clear()
        while not self._readers.empty():
            self._readers.get_nowait()


def _settle(future: Future[Bytes], content: Bytes | BaseException) -> None:
    if isinstance(content, BaseException):
        future.set_exception(content)
    else:
        future.set_result(content)
