"""Facts about saves over multifd that are interrupted while QEMU is still opening its channels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

import snapmig
from snapmig.guests.monitor import Monitor
from snapmig.migration import connections
from tests.support.guests.private import migration_settings, private_memory, status
from tests.support.guests.resume import Monitored, make_monitored
from tests.support.guests.tiny import guest as tiny

pytestmark = pytest.mark.guest

ENDED_BY_QEMU = re.compile("^(?!.*(Failed to connect|has already quit|Connection reset))")
"""Whatever QEMU writes of connections that it shuts itself, but nothing of those that we do."""
TIMES = 5

Interrupt = Callable[[pytest.MonkeyPatch], None]


def at_the_first_channel(patch: pytest.MonkeyPatch) -> None:
    """Interrupt a save when the first of its channels has come."""

    def interrupt(*_args: object) -> NoReturn:
        raise KeyboardInterrupt

    patch.setattr(connections, "unpack_hello", interrupt)


def before_the_answer(patch: pytest.MonkeyPatch) -> None:
    """Interrupt a save before QEMU has said that it migrates."""
    execute = Monitor.execute

    def interrupt(self: Monitor, command: str, **arguments: Any) -> Any:
        if command != "migrate":
            return execute(self, command, **arguments)
        self.begin(dict, command, **arguments)
        raise KeyboardInterrupt

    patch.setattr(Monitor, "execute", interrupt)


@pytest.fixture
def guest(program: str, shm: Path) -> Iterator[Monitored]:
    """Give a running guest with memory of QEMU's own."""
    with make_monitored(program, shm, private_memory()) as guest:
        guest.expected_words = ENDED_BY_QEMU
        tiny.wait_passes(guest, 1)
        yield guest


@pytest.mark.parametrize("interrupt", [at_the_first_channel, before_the_answer])
def test_qemu_ends_its_channels_itself(
    guest: Monitored, shm: Path, monkeypatch: pytest.MonkeyPatch, interrupt: Interrupt
) -> None:
    """
    All channels come into being and end by QEMU's own doing, and the guest can be saved again.

    If some of them fail, QEMU 7.2 may wait for the others for ever, or crash.
    """
    before = migration_settings(guest)
    for _ in range(TIMES):
        with monkeypatch.context() as patch:
            interrupt(patch)
            with pytest.raises(KeyboardInterrupt):
                snapmig.save(guest.monitor, shm / "snap", via="multifd", jobs=8)
        assert guest.execute("query-migrate")["status"] == "cancelled"
        assert (status(guest), migration_settings(guest)) == ("running", before)

    assert snapmig.save(guest.monitor, shm / "snap", via="multifd", jobs=8).via == "multifd"
