"""Guests that come to a socket, each served by a thread of its own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

from snapmig.daemons.fault_server import FaultServer, ServedFaults
from snapmig.daemons.faulting_memory import FaultingMemory
from snapmig.daemons.handshake import receive_handshake
from snapmig.daemons.listener import Listener, is_readable
from snapmig.daemons.packet_source import PacketSource
from snapmig.daemons.peer import Peer
from snapmig.daemons.regions import parse_regions
from snapmig.errors import SnapmigError
from snapmig.system.signals import HeldSignals
from snapmig.system.userfaultfd import Userfault
from snapmig.units import format_count

__all__ = ("FaultService",)

_MOST_GUESTS = 256
_CHECK_MS = 200


class FaultService:
    """
    The page-fault handler of all guests of one snapshot.

    :param allowed: uids whose processes are served
    :param first: packets to fill before they are asked for
    :param fill: fill all others, too, and let guests go on alone
    :param report: called with a sentence about each guest
    :param ended: called with what was served to each guest
    """

    def __init__(
        self,
        source: PacketSource,
        allowed: frozenset[int],
        *,
        first: Sequence[int],
        fill: bool,
        jobs: int,
        report: Callable[[str], None],
        ended: Callable[[ServedFaults], None],
    ) -> None:
        self._source = source
        self._allowed = allowed
        self._first = first
        self._fill = fill
        self._jobs = jobs
        self._report = report
        self._ended = ended
        self._lock = threading.Lock()
        self._servers: set[FaultServer] = set()
        self._threads: list[threading.Thread] = []
        self._error: BaseException | None = None
        self._served = self._leaving = False

    def run(self, listener: Listener, shown: str, *, once: bool) -> None:
        """
        Serve guests until interrupted; those that are there get all of their memory then.

        :param shown: the snapshot's display name
        :param once: serve one guest, and raise its error
        """
        try:
            self._report(f"serving {shown} at {listener.path}")
            while not (once and self._served):
                self._wait(listener)
                # A guest that was accepted and not served would hang.
                with HeldSignals():
                    thread = self._begin(listener)
                while once and thread.is_alive():
                    thread.join(_CHECK_MS / 1000)  # signals come between
        finally:
            self._leave(listener)
        if self._error is not None:
            raise self._error

    def _wait(self, listener: Listener) -> None:
        while not is_readable(listener, _CHECK_MS):
            pass

    def _begin(self, listener: Listener) -> threading.Thread:
        thread = threading.Thread(target=self._serve, args=(listener.accept(),))
        self._threads = [each for each in self._threads if each.is_alive()]
        self._threads.append(thread)
        thread.start()
        return thread

    def _leave(self, listener: Listener) -> None:
        while is_readable(listener, 0):
            self._begin(listener)
        listener.close()
        with self._lock:
            self._leaving = True
            waiting = len(self._servers)
            for server in self._servers:
                server.leave()
        if waiting:
            guests = format_count(waiting, "guest")
            self._report(f"{guests} get the rest of their memory before the end")
        for thread in self._threads:
            thread.join()

    def _serve(self, connection: socket.socket) -> None:
        with ExitStack() as stack:
            stack.callback(connection.close)
            try:
                peer = stack.enter_context(closing(Peer(connection, self._allowed)))
                if len(self._threads) > _MOST_GUESTS:
                    raise SnapmigError(f"{_MOST_GUESTS} guests are served already")
                userfault, raw = receive_handshake(connection)
            except (SnapmigError, OSError) as error:
                self._report(f"a connection was refused: {error}")
                return
            stack.callback(userfault.close)
            self._served = True
            try:
                served = self._serve_process(peer, userfault, raw)
                self._tell(served)
                self._ended(served)
            except BaseException as error:  # noqa: BLE001 - nobody else could tell
                self._report(f"process {peer.pid} can't be served: {error}")
                if self._error is None:
                    self._error = error

    def _serve_process(self, peer: Peer, userfault: Userfault, raw: bytes) -> ServedFaults:
        geometry = self._source.geometry
        try:
            regions = parse_regions(raw, geometry)
        except BaseException:
            peer.kill()  # it waits for memory that nobody can give it
            raise
        memory = FaultingMemory(userfault, regions, self._source)
        server = FaultServer(
            peer,
            userfault,
            memory,
            first=self._first,
            packets=geometry.packet_count,
            jobs=self._jobs,
            report=self._report,
        )
        with self._lock:
            self._servers.add(server)
            if self._leaving:
                server.leave()
            elif self._fill:
                server.complete()
        self._report(f"serving process {peer.pid}")
        try:
            return server.serve()
        finally:
            with self._lock:
                self._servers.discard(server)

    def _tell(self, served: ServedFaults) -> None:
        how = "has all of its memory" if served.complete else "has ended"
        faults = format_count(served.faults, "fault")
        self._report(f"process {served.pid} {how}; it waited for {faults}")
