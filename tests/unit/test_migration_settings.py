"""Facts about QEMU's settings for a migration, and the moment when they are put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from snapmig.guests import settings
from snapmig.guests.monitor import Monitor
from tests.support.guests.fake_monitor import FakeMonitor

MIGRATION = {"type": "migration"}
CHARDEV = {"type": "chardev", "id": "compat_monitor0"}


@pytest.fixture
def fake(shm: Path) -> Iterator[FakeMonitor]:
    """Give a monitor without a QEMU."""
    with FakeMonitor(shm / "monitor") as monitor:
        yield monitor


@pytest.fixture(
    params=[
        lambda monitor: settings.capabilities(monitor, "multifd"),
        lambda monitor: settings.parameters(monitor, {"multifd-channels": 7}),
    ],
    ids=["capabilities", "parameters"],
)
def change(request: pytest.FixtureRequest) -> Callable[[Monitor], AbstractContextManager[None]]:
    """Give a change of settings for the time of a block."""
    found: Callable[[Monitor], AbstractContextManager[None]] = request.param
    return found


def test_put_back_when_qemu_has_cleaned_up(
    fake: FakeMonitor, change: Callable[[Monitor], AbstractContextManager[None]]
) -> None:
    """QEMU reads them again when it ends the channels of a migration that has failed."""
    answers = [[CHARDEV, MIGRATION], [MIGRATION], [CHARDEV]]

    def query_yank(_: Any) -> list[dict[str, str]]:
        return answers.pop(0)

    fake.answers["query-yank"] = query_yank
    with Monitor(str(fake.path)) as monitor, change(monitor):
        fake.migration = "failed"
        asked = len(fake.names)
    *before, last = [name for name in fake.names[asked:] if name != "query-migrate"]
    assert before == ["query-yank"] * 3
    assert last.startswith("migrate-set-")


def test_left_while_a_migration_is_set_up(
    fake: FakeMonitor, change: Callable[[Monitor], AbstractContextManager[None]]
) -> None:
    """Settings of a QEMU that still waits for its guest are not touched."""
    fake.answers["query-yank"] = [MIGRATION]
    with Monitor(str(fake.path)) as monitor, change(monitor):
        fake.migration = "setup"
        asked = len(fake.names)
    assert {*fake.names[asked:]} == {"query-yank", "query-migrate"}
