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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snapmig.errors import SnapmigError
from snapmig.guests.memory import GuestMemory, find_memory
from snapmig.guests.monitor import Monitor, MonitorError
from snapmig.guests.wait import USUAL_WAIT, MonitorWait
from snapmig.system.signals import HeldSignals

__all__ = ("Guest", "GuestFacts", "Pause")

_CAPABILITIES = ("x-ignore-shared", "mapped-ram", "multifd")
_POLL_S = 0.002
_STATE_S = 600.0
_CANCEL_S = 30.0
_LONGEST_DOWNTIME_MS = 2_000_000
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
    :param wait: for each answer
    :raises MonitorError: no monitor answers there
    """

    def __init__(self, path: str, wait: MonitorWait = USUAL_WAIT) -> None:
        self.monitor = Monitor(path, wait)
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
    def shares_memory(self) -> bool:
        """Whether all of its RAM is in shared files, which QEMU leaves out of its state."""
        memory = self.facts.memory
        return bool(memory) and all(item.shared and item.path is not None for item in memory)

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
        with self._capabilities("x-ignore-shared"):
            self.monitor.send_descriptor(fd, "getfd", fdname="snapmig-state")
            self._migrate("migrate", "fd:snapmig-state")

    def load_state(self, fd: int) -> None:
        """
        Have a waiting QEMU read a device state, its RAM being in place already.

        :param fd: a file that holds it
        :raises MonitorError: QEMU could not, with its reason
        """
        with self._capabilities("x-ignore-shared"):
            self.monitor.send_descriptor(fd, "getfd", fdname="snapmig-state")
            self._migrate("migrate-incoming", "fd:snapmig-state")

    def save_file(self, path: Path, channels: int) -> None:
        """Have QEMU stop the guest and write all of it to a mapped-ram file."""
        with self._capabilities("mapped-ram", "multifd"):
            wanted = {
                "multifd-channels": channels,
                "max-bandwidth": 0,  # unlimited
                "downtime-limit": _LONGEST_DOWNTIME_MS,  # stop at once, write each page once
            }
            with self._parameters(wanted):
                self._migrate("migrate", f"file:{path}")

    def load_file(self, path: Path) -> None:
        """Have a waiting QEMU read a mapped-ram file."""
        with self._capabilities("mapped-ram"):
            self._migrate("migrate-incoming", f"file:{path}")

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

    @contextmanager
    def _capabilities(self, *names: str) -> Iterator[None]:
        # What snapmig does not want is off meanwhile, and all is as before afterwards.
        known = {
            item["capability"]: bool(item["state"])
            for item in self.monitor.execute("query-migrate-capabilities")
        }
        if missing := [name for name in names if name not in known]:
            message = f"QEMU {self.facts.qemu_version} has no migration capability {missing[0]}"
            raise MonitorError(message, path=self.monitor.path)
        self._set({name: name in names for name in known if known[name] or name in names})
        try:
            yield
        finally:
            with suppress(MonitorError):  # QEMU may have gone; its own reason matters more
                self._set({name: known[name] for name in known if known[name] or name in names})

    @contextmanager
    def _parameters(self, wanted: dict[str, int]) -> Iterator[None]:
        known = self.monitor.execute("query-migrate-parameters")
        self.monitor.execute("migrate-set-parameters", **wanted)
        try:
            yield
        finally:
            with suppress(MonitorError):
                before = {name: known[name] for name in wanted}
                self.monitor.execute("migrate-set-parameters", **before)

    def _set(self, states: dict[str, bool]) -> None:
        # Off before on: some exclude each other.
        ordered = sorted(states.items(), key=lambda item: item[1])
        listed = [{"capability": name, "state": state} for name, state in ordered]
        self.monitor.execute("migrate-set-capabilities", capabilities=listed)

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
