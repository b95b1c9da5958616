"""
A guest that runs under QEMU, or a QEMU that waits for one.

Its RAM is read and written by whoever maps its files; QEMU itself writes and reads only its device
state (capability x-ignore-shared), into a memfd that it is given: no path, no permission and no
disk is in the way.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from snapmig.errors import SnapmigError
from snapmig.guests.backing import open_backings
from snapmig.guests.handover import hand_over
from snapmig.guests.memory import GuestMemory, find_memory
from snapmig.guests.monitor import Monitor, MonitorError
from snapmig.guests.settings import capabilities, known_capabilities, parameters
from snapmig.system.signals import HeldSignals

__all__ = ("Guest", "GuestFacts", "Pause")

_POLL_S = 0.002
_STATE_S = 600.0
_CANCEL_S = 30.0
_LONGEST_DOWNTIME_MS = 2_000_000
_MOST_CHANNELS = 255
_ONLY_NAMED_FILES = (8, 1)
"""From this version on x-ignore-shared leaves out no shared memory but files that have a path."""
_UNDER_WAY = ("setup", "active", "device", "pre-switchover", "cancelling")


@dataclass(frozen=True, slots=True)
class GuestFacts:
    """What a guest is, for whoever resumes it."""

    machine: str
    qemu_version: str
    command_line: tuple[str, ...]
    memory: tuple[GuestMemory, ...]


@dataclass
class Pause:
    """How long a guest stood still."""

    was_running: bool
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0


class Guest:
    """
    A guest behind a monitor's socket.

    :param path: the socket
    :raises MonitorError: no monitor answers there
    """

    def __init__(self, path: str) -> None:
        self.monitor = Monitor(path)
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
    def pid(self) -> int:
        """QEMU's process."""
        return self.monitor.peer.pid

    @property
    def unshared(self) -> str | None:
        """Why QEMU must write RAM itself, in words; None where it leaves all out of its state."""
        memory = self.facts.memory
        if not memory:
            return "QEMU lists no memory backend"
        for item in memory:
            if not item.shared:
                return f"RAM block {item.name!r} is not in a shared file"
            if item.path is None and self._version >= _ONLY_NAMED_FILES:
                version = self.facts.qemu_version
                return (
                    f"RAM block {item.name!r} is a memfd, and QEMU {version} leaves only files that "
                    "have a path out of its device state"
                )
        return None

    def open_memory(self, access: int) -> AbstractContextManager[tuple[int, ...]]:
        """
        Open the files of the guest's memory, in the order of its facts, and close them afterwards.

        :param access: ``os.O_RDONLY`` or ``os.O_RDWR``
        :raises SnapmigError: QEMU names a file that is not the memory of its process
        """
        return open_backings(self.facts.memory, self.monitor.peer, access)

    @property
    def status(self) -> str:
        """QEMU's run state, for example ``running``, ``paused`` or ``inmigrate``."""
        return str(self.monitor.execute("query-status")["status"])

    @contextmanager
    def paused(self) -> Iterator[Pause]:
        """Keep the guest still inside, and let it go on afterwards in every case."""
        with HeldSignals() as signals:
            pause = Pause(was_running=self.status == "running")
            try:
                with signals.let_in():
                    yield pause
            finally:
                self._let_go(pause)
                pause.seconds = time.monotonic() - pause.started

    def save_state(self, fd: int) -> None:
        """
        Have QEMU stop the guest and write its device state, without shared RAM.

        :param fd: an empty file that takes it
        :raises MonitorError: QEMU could not, with its reason
        """
        with capabilities(self.monitor, "x-ignore-shared"), self._file(fd, os.O_WRONLY) as uri:
            self._migrate("migrate", uri)

    def load_state(self, fd: int) -> None:
        """
        Have a waiting QEMU read a device state, its RAM being in place already.

        :param fd: a file that holds it
        :raises MonitorError: QEMU could not, with its reason
        """
        with capabilities(self.monitor, "x-ignore-shared"), self._file(fd, os.O_RDONLY) as uri:
            self._migrate("migrate-incoming", uri)

    @cached_property
    def file_format(self) -> str:
        """The format of the files that this QEMU writes and reads: classic before QEMU 9.0."""
        known = known_capabilities(self.monitor)
        return "mapped-ram" if "mapped-ram" in known else "qemu-stream"

    def save_file(self, fd: int, channels: int) -> None:
        """
        Have QEMU stop the guest and write all of it.

        :param fd: an empty file that takes it, in :attr:`file_format`
        :param channels: threads of QEMU that write, where the format has such
        :raises MonitorError: QEMU could not, with its reason
        """
        mapped = self.file_format == "mapped-ram"
        with (
            capabilities(self.monitor, *(("mapped-ram", "multifd") if mapped else ())),
            parameters(
                self.monitor,
                {
                    "multifd-channels": min(channels, _MOST_CHANNELS),
                    "multifd-compression": "none",
                    "direct-io": False,  # needs a descriptor of its own
                    "max-bandwidth": 0,  # unlimited
                    "downtime-limit": _LONGEST_DOWNTIME_MS,  # stop at once, write each page once
                },
            ),
            self._file(fd, os.O_WRONLY) as uri,
        ):
            self._migrate("migrate", uri)

    def load_file(self, fd: int) -> None:
        """
        Have a waiting QEMU read all of a guest.

        :param fd: a file that holds it, in :attr:`file_format`
        :raises MonitorError: QEMU could not, with its reason
        """
        mapped = self.file_format == "mapped-ram"
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

    def _let_go(self, pause: Pause) -> None:
        deadline = time.monotonic() + _CANCEL_S
        while self.monitor.execute("query-migrate").get("status") in _UNDER_WAY:
            self.monitor.execute("migrate_cancel")
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
        if pause.was_running and self.status != "running":
            self.monitor.execute("cont")

    def _learn(self) -> GuestFacts:
        execute = self.monitor.execute
        version = execute("query-version")["qemu"]
        return GuestFacts(
            machine=str(execute("qom-get", path="/machine", property="type")).removesuffix(
                "-machine"
            ),
            qemu_version=f"{version['major']}.{version['minor']}.{version['micro']}",
            command_line=_command_line(self.pid),
            memory=find_memory(self.monitor),
        )

    def _file(self, fd: int, access: int) -> AbstractContextManager[str]:
        return hand_over(self.monitor, fd, access, self._version)

    @property
    def _version(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.facts.qemu_version.split("."))

    def _migrate(self, command: str, uri: str) -> None:
        self.monitor.execute(command, uri=uri)
        deadline = time.monotonic() + _STATE_S
        while True:
            answer: dict[str, Any] = self.monitor.execute("query-migrate")
            state = answer.get("status", "none")
            # It says so a moment before it is done with the guest.
            if state == "completed" and self.status != "finish-migrate":
                return
            if state in ("failed", "cancelled"):
                reason = answer.get("error-desc", "it does not say why")
                message = f"QEMU could not {command.replace('-', ' ')}: {reason}"
                raise MonitorError(message, path=self.monitor.path)
            if time.monotonic() > deadline:
                message = f"QEMU did not finish in {_STATE_S:.0f} s, it is {state}"
                raise MonitorError(message, path=self.monitor.path)
            time.sleep(_POLL_S)


def _command_line(pid: int) -> tuple[str, ...]:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError as error:
        message = f"command line of QEMU's process {pid} can't be read: {error.strerror}"
        raise SnapmigError(message) from error
    return tuple(os.fsdecode(part) for part in raw.split(b"\0")[:-1])
