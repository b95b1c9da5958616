"""One guest's page faults, answered from a snapshot until it ends or has all of its memory."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import NamedTuple

from snapmig.daemons.faulting_memory import FaultingMemory, MemoryGoneError, Unit
from snapmig.daemons.peer import Peer
from snapmig.errors import SnapmigError
from snapmig.system.userfaultfd import Userfault

__all__ = ("FaultServer", "ServedFaults")

_STEP = 4096
_CALM_S = 0.003
_LONGEST_S = 0.03
"""Only a working set is filled ahead until this long after a fault, or this long at most. 2 GiB
filled on a loaded machine while a thread touched pages: the median of its faults was 4.0 to 9.5 ms
before, and 2.2 to 2.8 ms with it."""


class ServedFaults(NamedTuple):
    """
    The end of a guest's service.

    :ivar removed: bytes that it gave up
    :ivar complete: it has all of its memory and goes on without us; otherwise it has ended
    :ivar asked: packets that it asked for, in the order of the first requests
    """

    pid: int
    faults: int
    removed: int
    complete: bool
    asked: tuple[int, ...]


class FaultServer:
    """
    The service of one guest; :meth:`serve` does it, in a thread of the caller.

    :param first: packets to fill before they are asked for, in this order
    :param packets: number of all packets
    :param jobs: threads that answer faults, and as many that fill what nobody waits for
    :param report: called with sentences about packets that can't be filled before they are needed
    """

    def __init__(
        self,
        peer: Peer,
        userfault: Userfault,
        memory: FaultingMemory,
        *,
        first: Sequence[int],
        packets: int,
        jobs: int,
        report: Callable[[str], None],
    ) -> None:
        self._peer = peer
        self._userfault = userfault
        self._memory = memory
        self._jobs = jobs
        self._report = report
        self._faults = 0
        self._last_fault = 0.0
        self._gives_way = False
        self._asked: dict[int, None] = {}
        self._empty: set[int] = set()
        self._error: BaseException | None = None
        self._all_wanted = threading.Event()
        self._unread: SnapmigError | None = None
        self._stopping = self._leaving = self._all_tried = False
        self._ahead = self._packets_ahead(first, packets)
        self._turn = threading.Lock()
        self._fillers = [threading.Thread(target=self._fill_ahead) for _ in range(jobs)]
        self._filling = jobs
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def complete(self) -> None:
        """Fill the rest and let the guest go on alone; may be called by any thread."""
        self._all_wanted.set()

    def leave(self) -> None:
        """Do so, and end a guest for which it is impossible."""
        self._leaving = True
        self._all_wanted.set()
        self._wake()

    def serve(self) -> ServedFaults:
        """
        Answer faults to the end. A guest that can't be served any more is ended.

        :raises SnapmigError: it was; with the reason
        """
        with ExitStack() as stack:
            stack.callback(os.close, self._wake_read)
            stack.callback(os.close, self._wake_write)
            answers = ThreadPoolExecutor(self._jobs, "fault")
            stack.callback(answers.shutdown, cancel_futures=True)
            stack.callback(self._stop)
            for filler in self._fillers:
                filler.start()
            try:
                complete = self._loop(answers)
            except MemoryGoneError:
                complete = False
            except BaseException:
                self._peer.kill()  # a guest without its memory would hang for ever
                raise
        asked = tuple(number for number in self._asked if number not in self._empty)
        return ServedFaults(self._peer.pid, self._faults, self._memory.removed, complete, asked)

    def _loop(self, answers: ThreadPoolExecutor) -> bool:
        # Return True once the guest has everything, False if it has ended.
        poll = select.poll()
        for fd in (self._userfault.fd, self._peer.fd, self._wake_read):
            poll.register(fd, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if self._peer.fd in ready:
                return False
            if self._error is not None:
                raise self._error
            if self._all_tried and self._unread is None:
                self._memory.release()
                return True
            if self._all_tried and self._leaving and self._unread is not None:
                raise self._unread
            with suppress(BlockingIOError):
                os.read(self._wake_read, _STEP)
            for page in self._memory.faults():
                self._faults += 1
                self._last_fault = time.monotonic()
                self._asked.setdefault(self._memory.packet_of(page))
                answers.submit(self._answer, page)

    def _answer(self, page: Unit) -> None:
        try:
            if not self._memory.fill(self._memory.whole(page), page.first):
                self._empty.add(self._memory.packet_of(page))
            self._last_fault = time.monotonic()
        except BaseException as error:  # noqa: BLE001 - raised again by the loop
            self._fail(error)

    def _packets_ahead(self, first: Sequence[int], packets: int) -> Iterator[int]:
        yield from first
        self._gives_way = True
        self._all_wanted.wait()
        yield from range(packets)

    def _fill_ahead(self) -> None:
        try:
            while (number := self._next_ahead()) is not None:
                if self._gives_way:
                    self._give_way()
                self._fill_packet(number)
        except BaseException as error:  # noqa: BLE001 - raised again by the loop
            self._fail(error)
        with self._turn:
            self._filling -= 1
            if not self._filling and not self._stopping:
                self._all_tried = True
                self._wake()

    def _give_way(self) -> None:
        # A guest that faults all the time is filled, too, if slowly.
        deadline = time.monotonic() + _LONGEST_S
        while not self._stopping and self._last_fault + _CALM_S > time.monotonic() < deadline:
            time.sleep(_CALM_S)

    def _fill_packet(self, number: int) -> None:
        try:
            for unit in self._memory.units(number):
                if not self._memory.is_filled(unit):
                    self._memory.fill(unit)
        except MemoryGoneError:
            raise
        except SnapmigError as error:
            # A guest that never touches it needs it not.
            if self._unread is None:
                self._unread = error
                self._report(f"process {self._peer.pid} can't get all of its memory: {error}")

    def _next_ahead(self) -> int | None:
        with self._turn:
            return None if self._stopping else next(self._ahead, None)

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._wake_write, b"!")

    def _stop(self) -> None:
        self._stopping = True
        self._memory.abandon()
        self._all_wanted.set()
        for filler in self._fillers:
            if filler.ident is not None:
                filler.join()
