"""A QEMU that waits for a migration, as its monitor shows it, with a scripted destination."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.guests.fake_monitor import FakeMonitor
from tests.support.multifd.destination import Destination
from tests.support.multifd.plan import Block

UUID = "00112233-4455-6677-8899-aabbccddeeff"
CAPABILITIES = ("return-path", "multifd", "x-ignore-shared")


class WaitingQemu(FakeMonitor):
    """
    The monitor of such a QEMU; a context manager.

    :param machine: its type
    :param memory: blocks of anonymous memory
    :param reason: of QEMU's for a failure, None if it does not tell of one
    """

    def __init__(
        self,
        path: Path,
        destination: Destination,
        memory: Sequence[Block],
        machine: bytes,
        reason: str | None = None,
    ) -> None:
        backends = [{"id": one.name.decode(), "size": one.size, "share": False} for one in memory]
        found: dict[str, Any] = {
            "query_memdev": backends,
            "query_uuid": {"UUID": UUID},
            "query_migrate": lambda _: self._progress(),
            "qom_list": [
                {"name": one["id"], "type": "child<memory-backend-ram>"} for one in backends
            ],
            "qom_get": lambda asked: self._value(machine, asked),
            "migrate_incoming": self._listen,
            "query_migrate_parameters": {"multifd-channels": 2, "multifd-compression": "none"},
        }
        super().__init__(path, **found)
        self.status = "inmigrate"
        self.parameters: dict[str, Any] = {}
        self._destination = destination
        self._reason = reason

    @property
    def ran(self) -> bool:
        """True if the guest was started."""
        return "cont" in self.names

    def _listen(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.migration = "active"
        self._destination.listen(asked["uri"])
        return {}

    def _progress(self) -> dict[str, Any]:
        if self.migration == "active" and self._reason is not None and self._destination.broken:
            return {"status": "failed", "error-desc": self._reason}
        if self._destination.answered:
            self._become("paused", "completed")
        return {} if self.migration == "none" else {"status": self.migration}

    @staticmethod
    def _value(machine: bytes, asked: dict[str, Any]) -> Any:
        if asked.get("property") == "type":
            return f"{machine.decode()}-machine"
        return False if asked.get("property") == "suppress-vmdesc" else None
