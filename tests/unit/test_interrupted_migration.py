"""Facts about signals that come while a command is given to QEMU."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qemu.qmp import QMPClient

from snapmig.guests.guest import Guest
from snapmig.guests.monitor import Monitor
from snapmig.guests.outgoing import migrating
from tests.support.guests.fake_monitor import FakeMonitor


class Interrupted(BaseException):
    """Raised by the handler of a signal, as the program's does."""


@pytest.fixture
def fake(shm: Path) -> Iterator[FakeMonitor]:
    """Give a monitor without a QEMU, and a handler for SIGTERM that raises."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    (shm / "ram").write_bytes(bytes(4096))
    before = signal.signal(signal.SIGTERM, interrupt)
    with FakeMonitor(shm / "monitor", shm / "ram") as monitor:
        yield monitor
    signal.signal(signal.SIGTERM, before)


def test_as_a_migration_begins(fake: FakeMonitor) -> None:
    """QEMU cleans up, and takes its settings back, once our end is closed after a cancellation."""
    closed: list[str] = []

    def migrate(_: Any) -> dict[str, Any]:
        fake.migration = "active"
        signal.raise_signal(signal.SIGTERM)
        return {}

    fake.answers["migrate"] = migrate
    fake.answers["query-yank"] = lambda _: [] if closed else [{"type": "migration"}]
    with (
        Guest(str(fake.path)) as guest,
        pytest.raises(Interrupted),
        migrating(guest, "unix:socket", 2, None, lambda: closed.append(fake.names[-1])),
    ):
        pass
    assert closed == ["migrate_cancel"]
    assert fake.names[-1] == "migrate-set-parameters"


def test_as_a_command_is_made(fake: FakeMonitor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command made in that moment is given, so that Python tells of no coroutine left over."""
    execute = QMPClient.execute

    def interrupted(*arguments: Any) -> Any:
        work = execute(*arguments)
        signal.raise_signal(signal.SIGTERM)
        return work

    with Monitor(str(fake.path)) as monitor:
        monkeypatch.setattr(QMPClient, "execute", interrupted)
        with pytest.raises(Interrupted):
            monitor.execute("query-status")
        gc.collect()
        assert fake.names == ["qmp_capabilities", "query-status"]
