"""
A guest running under QEMU, or a QEMU waiting for an incoming guest.

Its RAM is read and written through its mapped files. QEMU itself writes and reads only its device
state (capability x-ignore-shared), into a memfd we hand over, so no path, no permission and no disk
is in the way.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from snapmig.guests.answers import Name, Status, Version
from snapmig.guests.backing import open_backings
from snapmig.guests.guard import Guard
from snapmig.guests.handover import hand_over
from snapmig.guests.memory import GuestMemory, find_memory
from snapmig.guests.monitor import Domain, Monitor, MonitorError, Peer, Stop, words
from snapmig.guests.refusal import CAPABILITY as RETURN_PATH
from snapmig.guests.refusal import copy_and_refuse
from snapmig.guests.settings import (
    BACKGROUND,
    Commands,
    capabilities,
    known_capabilities,
    parameters,
    settings_now,
)
from snapmig.guests.wait import USUAL_WAIT, MonitorWait
from snapmig.guests.watch import AT_REST, POLL_S, Watch, migration_of
from snapmig.system.signals import HeldSignals

__all__ = ("LONGEST_DOWNTIME_MS", "MOST_CHANNELS", "Guest", "GuestFacts", "Pause")

_CANCEL_S = 30.0
LONGEST_DOWNTIME_MS = 2_000_000
MOST_CHANNELS = 255
_MAPPED, _STREAM = "mapped-ram", "qemu-stream"
_SEES_ALL_WRITES = (8, 0)
"""
Seen with 7.2: emulated guests migrated while they ran lacked pages at QEMU's own destination, too.
"""
_ENDS_TRACKING = (8, 2)
_HIDDEN = "the process that must prove to be QEMU is hidden from here"
_ONLY_NAMED_FILES = (8, 1)
"""From this version on x-ignore-shared leaves out only shared memory in files with a path."""


@dataclass(frozen=True, slots=True)
class GuestFacts:
    """
    Facts about a guest, needed to resume it.

    :param command_line: QEMU's, empty if its process is hidden from us
    """

    machine: str
    qemu_version: str
    command_line: tuple[str, ...]
    memory: tuple[GuestMemory, ...]


@dataclass
class Pause:
    """
    A pause of a guest, and its length.

    :param stops: number of stops before it, during the monitor's connection
    """

    was_running: bool
    stops: int = 0
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    end: Callable[[], None] = lambda: None
    """Ends it now: resumes the guest before the end of the block."""


class Guest:
    """
    A guest behind a monitor.

    :param source: the monitor's socket, or a domain of libvirt's
    :param wait: limit for each answer
    :raises MonitorError: no monitor answers there
    """

    def __init__(self, source: str | Domain, wait: MonitorWait = USUAL_WAIT) -> None:
        self.monitor = Monitor(source, wait)
        self._refuse = False
        try:
            self.facts = self._learn()
        except BaseException:
            self.monitor.close()
            raise

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.monitor.close()

    @property
    def unshared(self) -> str | None:
        """The reason why QEMU must write RAM itself; None if its state leaves out all RAM."""
        memory = self.facts.memory
        if not memory:
            return "QEMU lists no memory backend"
        for item in memory:
            if not item.shared:
                return f"RAM block {item.name!r} is not in a shared file"
            if item.path is None and self.version >= _ONLY_NAMED_FILES:
                return (
                    f"RAM block {item.name!r} is a memfd, and QEMU {self.facts.qemu_version} "
                    "leaves only files that have a path out of its device state"
                )
        if self.monitor.peer is None:
            return _HIDDEN
        return None

    def open_memory(self, access: int) -> AbstractContextManager[tuple[int, ...]]:
        """
        Open the files of the guest's memory, in the order of its facts, and close them afterwards.

        :param access: ``os.O_RDONLY`` or ``os.O_RDWR``
        :raises SnapmigError: a file named by QEMU is not the memory of its process
        """
        return open_backings(self.facts.memory, self.process, access)

    @property
    def process(self) -> Peer:
        """
        QEMU's process.

        :raises MonitorError: it is hidden
        """
        if self.monitor.peer is None:
            raise MonitorError(_HIDDEN, path=self.monitor.path)
        return self.monitor.peer

    @property
    def process_now(self) -> Peer:
        """
        QEMU's process with its present user: it may have given up root's rights meanwhile.

        :raises MonitorError: it is hidden
        """
        peer = self.process
        try:
            status = Path(f"/proc/{peer.pid}/status").read_text("utf-8", "replace")
        except OSError:
            return peer
        return peer._replace(uid=int(status.partition("\nUid:")[2].split(maxsplit=2)[1]))

    @property
    def status(self) -> str:
        """QEMU's run state, for example ``running``, ``paused`` or ``inmigrate``."""
        return self.monitor.ask(Status, "query-status").status

    def check_can_be_saved(self) -> None:
        """
        Refuse a guest that QEMU would not save now, or that is being migrated by somebody else.

        :raises MonitorError: with a remedy
        """
        if (state := migration_of(self.monitor).status) not in AT_REST:
            message = (
                f"a migration of this guest is under way: {words(state)}, expected none; wait "
                "for its end, or send the monitor migrate_cancel"
            )
            raise MonitorError(message, path=self.monitor.path)
        if self.status == "postmigrate":
            message = (
                "the guest has been paused since a migration, or since a killed save, and "
                f"QEMU {self.facts.qemu_version} can save it again only after it has run: unless "
                "it runs elsewhere now, send the monitor cont"
            )
            raise MonitorError(message, path=self.monitor.path)

    @contextmanager
    def paused(self, stream: socket.socket | None = None, *, private: str = "") -> Iterator[Pause]:
        """
        Keep the guest paused inside the block, and resume it afterwards in every case.

        If we are killed, or QEMU does not answer, a guard process resumes it; it is started first.

        :param stream: a connection that the guard must read to its end then, instead of cancelling
            the migration over it
        :param private: a path of a socket that the guard removes then, with its folder
        :raises MonitorError: QEMU would not save it now, or does not resume it
        :raises SnapmigError: the guard can't be started
        """
        with HeldSignals() as signals:
            self.check_can_be_saved()
            pause = Pause(self.status == "running", len(self.monitor.stops()))
            self._refuse = not pause.was_running and self._can_be_refused()
            undo = settings_now(self.monitor)
            guard = Guard(
                self.monitor,
                resume=pause.was_running,
                undo=undo,
                stream=stream,
                private=private,
            )
            pause.started = time.monotonic()
            let_go = once(partial(self._let_go, pause, guard, undo))

            def end() -> None:
                with HeldSignals():
                    let_go()

            pause.end = end
            try:
                with signals.let_in():
                    yield pause
            finally:
                let_go()

    @property
    def must_end_snapshots(self) -> bool:
        """
        True if a background snapshot must come to its end.

        Otherwise QEMU leaves memory write-protected, and the guest stands still for ever. Seen with
        7.2; by its source 8.2 is free of it.
        """
        return self.version < _ENDS_TRACKING

    def stop_of(self, pause: Pause) -> Stop | None:
        """Return the first stop of a pause, over or under way, None if there is none."""
        self.monitor.execute("query-status")  # events of before come with the answer
        return next(iter(self.monitor.stops()[pause.stops :]), None)

    @property
    def keeps_state(self) -> bool:
        """True if a migration must be refused at its end: the guest's owner had stopped it."""
        return self._refuse

    @property
    def multifd_problem(self) -> str | None:
        """The reason why QEMU can't migrate over channels to us, None if it can."""
        if self.monitor.peer is None:
            return _HIDDEN
        return self._lacks("multifd", RETURN_PATH)

    def stream_problem(self, *, background: bool) -> str | None:
        """
        Return the reason why QEMU can't send a stream to us, None if it can.

        :param background: of the guest as it is at the start, while it runs on
        """
        return self._lacks(BACKGROUND if background else RETURN_PATH)

    @property
    def live_problem(self) -> str | None:
        """The reason why QEMU can't migrate the guest while it runs, None if it can."""
        if self.version >= _SEES_ALL_WRITES:
            return None
        if self.monitor.ask(dict[str, Any], "query-kvm").get("enabled"):
            return None
        version = self.facts.qemu_version
        return f"QEMU {version} misses writes of an emulated guest that runs meanwhile"

    def save_state(self, fd: int) -> None:
        """
        Have QEMU stop the guest and write its device state, without shared RAM.

        If the guest's owner had stopped it, the migration is refused at its end, so that the guest
        keeps its state.

        :param fd: an empty file to write to
        :raises MonitorError: QEMU could not, with its reason
        """
        if self._refuse:
            self._migrate_refused(fd, "x-ignore-shared")
            return
        with capabilities(self.monitor, "x-ignore-shared"), self._file(fd, os.O_WRONLY) as uri:
            self._migrate("migrate", uri)

    def load_state(self, fd: int) -> None:
        """
        Have a waiting QEMU read a device state; RAM must be in place already.

        :param fd: the file to read
        :raises MonitorError: QEMU could not, with its reason
        """
        with capabilities(self.monitor, "x-ignore-shared"), self._file(fd, os.O_RDONLY) as uri:
            self._migrate("migrate-incoming", uri)

    @cached_property
    def file_format(self) -> str:
        """Format of files written and read by this QEMU: classic before QEMU 9.0."""
        known = known_capabilities(self.monitor)
        return _MAPPED if "mapped-ram" in known else _STREAM

    def save_file(self, fd: int, channels: int) -> str:
        """
        Have QEMU stop the guest and write all of it; return the format of the file.

        If the guest's owner had stopped it, the migration is refused at its end, so that the guest
        keeps its state.

        :param fd: an empty file to write to
        :param channels: number of QEMU's writing threads, if the format has them
        :raises MonitorError: QEMU could not, with its reason
        """
        wanted = {
            "multifd-channels": min(channels, MOST_CHANNELS),
            "multifd-compression": "none",
            "direct-io": False,  # needs a descriptor of its own
            "max-bandwidth": 0,  # unlimited
            "downtime-limit": LONGEST_DOWNTIME_MS,  # stop at once, write each page once
        }
        with parameters(self.monitor, wanted):
            if self._refuse:
                self._migrate_refused(fd)
                return _STREAM
            mapped = self.file_format == _MAPPED
            with (
                capabilities(self.monitor, *(("mapped-ram", "multifd") if mapped else ())),
                self._file(fd, os.O_WRONLY) as uri,
            ):
                self._migrate("migrate", uri)
        return self.file_format

    def load_file(self, fd: int) -> None:
        """
        Have a waiting QEMU read a whole guest.

        :param fd: the file to read, in :attr:`file_format`
        :raises MonitorError: QEMU could not, with its reason
        """
        mapped = self.file_format == _MAPPED
        with (
            capabilities(self.monitor, *(("mapped-ram",) if mapped else ())),
            parameters(self.monitor, {"direct-io": False}),
            self._file(fd, os.O_RDONLY) as uri,
        ):
            self._migrate("migrate-incoming", uri)

    def run(self) -> None:
        """Let the guest run."""
        if self.status != "running":
            self.monitor.execute("cont")

    def _let_go(self, pause: Pause, guard: Guard, undo: Commands) -> None:
        try:
            self._end_migration()
            if pause.was_running:
                self._resume(pause)
            stop = self.stop_of(pause) if pause.was_running else None
            exact = None if stop is None else stop.seconds
            pause.seconds = time.monotonic() - pause.started if exact is None else exact
            for command, values in undo:  # once more, because QEMU refuses it during a migration
                self.monitor.execute(command, **values)
        except BaseException as error:
            guard.take_over()
            if not isinstance(error, MonitorError):
                raise
            message = f"{error.message}; process {guard.pid} will resume the guest"
            raise MonitorError(message, path=error.path) from error
        guard.dismiss()

    def _end_migration(self) -> None:
        deadline = time.monotonic() + _CANCEL_S
        while (state := migration_of(self.monitor).status) not in AT_REST:
            if time.monotonic() > deadline:
                message = f"QEMU's migration is still {words(state)} {_CANCEL_S:.0f} s after "
                raise MonitorError(f"{message}it was cancelled", path=self.monitor.path)
            self.monitor.execute("migrate_cancel")
            time.sleep(POLL_S)

    def _resume(self, pause: Pause) -> None:
        # If it ended meanwhile, or its owner stopped it, it is left alone.
        if self._is_left_stopped(pause):
            self.monitor.execute("cont")
        deadline = time.monotonic() + _CANCEL_S
        while (status := self.status) in ("finish-migrate", "postmigrate"):
            if time.monotonic() > deadline:
                message = f"the guest is still {status} after {_CANCEL_S:.0f} s"
                raise MonitorError(message, path=self.monitor.path)
            if status == "postmigrate":
                self.monitor.execute("cont")
            time.sleep(POLL_S)

    def _is_left_stopped(self, pause: Pause) -> bool:
        # QEMU stops a guest for a background snapshot, and leaves it so if that fails then.
        stop = self.stop_of(pause)
        return (
            stop is not None
            and stop.resumed_ns is None
            and self.status == "paused"
            and migration_of(self.monitor).status == "failed"
        )

    def _lacks(self, *names: str) -> str | None:
        if missing := set(names) - known_capabilities(self.monitor).keys():
            return f"this QEMU has no migration capability {min(missing)}"
        if not self._describes_devices:
            return "its machine has suppress-vmdesc=on, so the stream's end can't be recognised"
        return None

    def _learn(self) -> GuestFacts:
        monitor = self.monitor
        machine = monitor.ask(Name, "qom-get", path="/machine", property="type")
        return GuestFacts(
            machine=machine.removesuffix("-machine"),
            qemu_version=str(monitor.ask(Version, "query-version")),
            command_line=_command_line(monitor.peer),
            memory=find_memory(monitor),
        )

    def _file(self, fd: int, access: int) -> AbstractContextManager[str]:
        return hand_over(self.monitor, fd, access, self.version)

    @property
    def version(self) -> tuple[int, ...]:
        """QEMU's version."""
        return tuple(int(part) for part in self.facts.qemu_version.split("."))

    def _migrate(self, command: str, uri: str) -> None:
        self.monitor.execute(command, uri=uri)
        watch = Watch(self.monitor, command)
        # QEMU reports this a moment before it is done with the guest.
        while watch.look().status != "completed" or self.status == "finish-migrate":
            time.sleep(POLL_S)

    def _can_be_refused(self) -> bool:
        return RETURN_PATH in known_capabilities(self.monitor) and self._describes_devices

    @property
    def _describes_devices(self) -> bool:
        # The end of a stream is recognisable only if it has a description of all devices.
        place = {"path": "/machine", "property": "suppress-vmdesc"}
        return not self.monitor.ask(bool, "qom-get", **place)

    def _migrate_refused(self, fd: int, *names: str) -> None:
        with capabilities(self.monitor, RETURN_PATH, *names):
            copy_and_refuse(self.monitor, fd)
            deadline = time.monotonic() + _CANCEL_S
            while migration_of(self.monitor).status not in AT_REST and time.monotonic() < deadline:
                time.sleep(POLL_S)


def once(work: Callable[[], None]) -> Callable[[], None]:
    """Return a function that does some work when it is called first, and never again."""
    left = [work]
    return lambda: left.pop()() if left else None


def _command_line(peer: Peer | None) -> tuple[str, ...]:
    if peer is None:
        return ()
    try:
        raw = Path(f"/proc/{peer.pid}/cmdline").read_bytes()
    except OSError:  # hidden from this user, or in a container
        return ()
    return tuple(os.fsdecode(part) for part in raw.split(b"\0")[:-1])
