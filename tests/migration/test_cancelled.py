"""Facts about the end of a save whose migration over channels is cancelled."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

import snapmig
from snapmig.errors import SnapmigError
from tests.support.guests.fake_monitor import FakeMonitor
from tests.support.multifd import wire

LEFT = bytes(8 << 20)
"""More than a socket holds."""


class Source:
    """
    A QEMU whose main connection says nonsense, and whose channel goes on after the cancellation.

    :ivar error: of the channel, None if everything was taken
    """

    def __init__(self, monitor: FakeMonitor) -> None:
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._monitor = monitor
        self.error: OSError | None = None
        monitor.suppress_vmdesc = False
        monitor.answers |= {
            "migrate": self._migrate,
            "migrate_cancel": self._cancel,
            "query-yank": self._list,
        }

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _migrate(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._address = asked["uri"].removeprefix("unix:")
        self._monitor.migration = "active"
        self._thread.start()
        return {}

    def _cancel(self, _: Any) -> dict[str, Any]:
        self._monitor.migration = "cancelled"
        self._cancelled.set()
        return {}

    def _list(self, _: Any) -> list[dict[str, Any]]:
        return [{"type": "migration"}] if self._thread.is_alive() else []

    def _run(self) -> None:
        with socket.socket(socket.AF_UNIX) as main, socket.socket(socket.AF_UNIX) as channel:
            main.connect(self._address)
            channel.connect(self._address)
            channel.sendall(wire.init(0))
            main.sendall(b"QEVM" + b"\xff" * 100)
            assert self._cancelled.wait(30)
            try:
                channel.sendall(LEFT)
            except OSError as error:
                self.error = error


def test_channels_are_read_to_their_end(shm: Path) -> None:
    """No channel ends before QEMU itself closes it, because a QEMU may hang then."""
    (shm / "ram").write_bytes(bytes(1 << 20))
    with FakeMonitor(shm / "monitor", shm / "ram") as monitor:
        source = Source(monitor)
        with pytest.raises(SnapmigError, match="version"):
            snapmig.save(f"qmp:{monitor.path}", shm / "snap", via="multifd", jobs=1)
        source.join()
    assert source.error is None
