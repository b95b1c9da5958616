"""A guest running under QEMU, or a QEMU waiting for an incoming guest: facts, and possible ways."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snapmig.geometry import PAGE_SIZE
from snapmig.guests.answers import Name, Status, Version
from snapmig.guests.backing import open_backings
from snapmig.guests.memory import GuestMemory, find_memory
from snapmig.guests.monitor import Domain, Monitor, MonitorError, Peer, words
from snapmig.guests.refusal import CAPABILITY as RETURN_PATH
from snapmig.guests.settings import BACKGROUND, known_capabilities
from snapmig.guests.wait import USUAL_WAIT, MonitorWait
from snapmig.guests.watch import AT_REST, migration_of

__all__ = ("LONGEST_DOWNTIME_MS", "MOST_CHANNELS", "Guest", "GuestFacts")

LONGEST_DOWNTIME_MS = 2_000_000
MOST_CHANNELS = 255
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

    def page_size(self, block: str) -> int:
        """Return the bytes of the host's pages behind a RAM block, as far as it is known."""
        # Machine types before 4.0 name a backend's block by its path.
        sizes = {item.name: item.page_size for item in self.memory}
        return sizes.get(block.removeprefix("/objects/"), PAGE_SIZE)


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

    @property
    def must_end_snapshots(self) -> bool:
        """
        True if a background snapshot must come to its end.

        Otherwise QEMU leaves memory write-protected, and the guest stands still for ever. Seen with
        7.2; by its source 8.2 is free of it.
        """
        return self.version < _ENDS_TRACKING

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

    def run(self) -> None:
        """Let the guest run."""
        if self.status != "running":
            self.monitor.execute("cont")

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

    @property
    def version(self) -> tuple[int, ...]:
        """QEMU's version."""
        return tuple(int(part) for part in self.facts.qemu_version.split("."))

    @property
    def can_be_refused(self) -> bool:
        """True if a migration can be refused at its end, so that the guest keeps its state."""
        return RETURN_PATH in known_capabilities(self.monitor) and self._describes_devices

    @property
    def _describes_devices(self) -> bool:
        # The end of a stream is recognisable only if it has a description of all devices.
        place = {"path": "/machine", "property": "suppress-vmdesc"}
        return not self.monitor.ask(bool, "qom-get", **place)


def _command_line(peer: Peer | None) -> tuple[str, ...]:
    if peer is None:
        return ()
    try:
        raw = Path(f"/proc/{peer.pid}/cmdline").read_bytes()
    except OSError:  # hidden from this user, or in a container
        return ()
    return tuple(os.fsdecode(part) for part in raw.split(b"\0")[:-1])
