"""Facts about guests that run while QEMU migrates them to us: their pause, and what is left."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import snapmig
from snapmig.errors import NoSpaceError, SnapmigError
from snapmig.guests.guest import Guest
from snapmig.guests.limits import LiveLimits
from snapmig.guests.outgoing import migrating
from tests.support import filesystems
from tests.support import program as snapmig_program
from tests.support.guests import migration
from tests.support.guests.private import (
    migration_settings,
    private_memory,
    ram_of,
    require_live,
    status,
)
from tests.support.guests.qemu import CUT_OFF, REFUSED
from tests.support.guests.resume import Monitored, make_monitored
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import Layout
from tests.support.outcome import Outcome
from tests.support.processes import caught, wait_for
from tests.support.sweep import sweep

pytestmark = pytest.mark.guest

BUSY = Layout(ram=128 << 20, ticks=0)
"""All of it is written in each pass, so that a live save without limits may never end."""
LONG_S = 3600

both = pytest.mark.parametrize("options", [(), ("--live",)], ids=["paused", "live"])


@pytest.fixture(scope="module")
def guest(program: str, shared_shm: Path) -> Iterator[Monitored]:
    """Give a guest that writes to all of its memory all the time, with settings of its owner's."""
    with make_monitored(program, shared_shm, private_memory(BUSY), BUSY) as guest:
        guest.expected_words = CUT_OFF
        migration.prepare(
            guest,
            ("auto-converge",),
            max_bandwidth=77 << 20,
            downtime_limit=123,
            multifd_channels=5,
        )
        tiny.wait_passes(guest, 1)
        yield guest


@pytest.fixture
def busy(guest: Monitored) -> Iterator[Monitored]:
    """Give that guest, whose settings and state must be the same after the test."""
    before = migration_settings(guest)
    yield guest
    wait_for(lambda: status(guest) == "running")
    wait_for(lambda: migration_settings(guest) == before)
    assert tiny.wait_passes(guest, 1)


@pytest.mark.parametrize("live", [False, True])
def test_settings_are_as_before(busy: Monitored, shm: Path, live: bool) -> None:
    """A save leaves QEMU's settings for migrations as their owner had set them."""
    require_live(live=live)
    result = snapmig.save(busy.monitor, shm / "snap", jobs=2, live=live, pause_after=0.5)
    assert result.via == "multifd"


@pytest.mark.root
@pytest.mark.parametrize("live", [False, True])
def test_settings_are_as_before_on_a_full_disk(busy: Monitored, tmp_path: Path, live: bool) -> None:
    """A save without room leaves the guest, its settings and the disk as they were."""
    require_live(live=live)
    with filesystems.mounted("tmpfs", tmp_path / "full", "size=1M") as full:
        with pytest.raises(NoSpaceError):
            snapmig.save(busy.monitor, full / "snap", jobs=2, live=live)
        assert [*full.iterdir()] == []


def receiving(guest: Monitored, path: Path, *options: object) -> Any:
    """Start a save of a busy guest; return it while QEMU sends."""

    def start() -> Any:
        path.unlink(missing_ok=True)
        return snapmig_program.start("save", guest.monitor, path, "-j", 2, *options)

    return caught(start, lambda _: guest.execute("query-migrate").get("status") == "active")


@both
@pytest.mark.parametrize(
    "number",
    sweep([signal.SIGINT, signal.SIGTERM], lambda number: number == signal.SIGINT),
    ids=lambda number: number.name,
)
def test_settings_are_as_before_after_a_signal(
    busy: Monitored, shm: Path, options: tuple[str, ...], number: signal.Signals
) -> None:
    """An interrupted save cancels the migration, and leaves no file."""
    require_live(live=bool(options))
    process = receiving(busy, shm / "snap", *options)
    try:
        process.send_signal(number)
        outcome = snapmig_program.end(process, timeout=30)
    finally:
        process.kill()
        process.communicate()
    # Some QEMUs begin before the partial file is there.
    removed = f"the partial file of {shm / 'snap'} was removed; "
    outcome.fails(128 + number)
    said = f"snapmig: interrupted by {number.name}; the guest runs on\n"
    assert outcome.err.replace(removed, "") == said
    assert [*shm.iterdir()] == []


@both
def test_settings_are_as_before_after_a_kill(
    busy: Monitored, shm: Path, options: tuple[str, ...]
) -> None:
    """A guest whose snapmig is killed while it receives runs on, and QEMU's settings are back."""
    require_live(live=bool(options))
    process = receiving(busy, shm / "snap", *options)
    process.kill()
    process.communicate()
    assert not (shm / "snap").exists()


def test_qemu_outlives_channels_that_end(busy: Monitored, shm: Path) -> None:
    """
    Settings are not put back before QEMU has cleaned up after a migration that fails.

    QEMU 10 and 11 end themselves by an assertion if they are.
    """
    require_live()
    for number in range(20):
        with socket.socket(socket.AF_UNIX) as listening, ExitStack() as stack:
            listening.bind(str(shm / f"{number}"))
            listening.listen(3)
            saved = stack.enter_context(Guest(busy.monitor.removeprefix("qmp:")))
            live = LiveLimits(pause_after_s=LONG_S)
            with migrating(saved, f"unix:{shm / str(number)}", 2, live):
                connections = [listening.accept()[0] for _ in range(3)]
                wait_for(lambda: busy.execute("query-migrate")["status"] == "active")
                time.sleep(0.05)  # nobody reads, so that all channels are full
                for each in connections:
                    each.close()


def test_a_guest_that_writes_all_the_time_is_stopped_in_time(
    busy: Monitored, shm: Path, cli: Callable[..., Outcome]
) -> None:
    """A live save that QEMU would never end is ended after the seconds given for it."""
    require_live()
    limits = ("--max-downtime", 0, "--pause-after", 1)
    found = cli("save", "--json", busy.monitor, shm / "snap", "--live", "-j", 2, *limits).json

    assert found["seconds"] >= 1
    assert found["pause_seconds"] < found["seconds"]
    assert found["rounds"] >= 2
    assert found["rewritten_size"] > 0
    assert ram_of(shm / "snap", shm, BUSY).number >= 1


def test_a_long_downtime_ends_a_live_save(busy: Monitored, shm: Path) -> None:
    """A guest that may stand still for long is stopped as soon as QEMU sees that this suffices."""
    require_live()
    started = time.monotonic()
    result = snapmig.save(
        busy.monitor, shm / "snap", live=True, jobs=2, max_downtime=60_000, pause_after=LONG_S
    )
    assert time.monotonic() - started < LONG_S
    assert (result.rounds or 0) >= 2
    assert snapmig.verify(shm / "snap").problems == ()


@pytest.mark.sweep
@pytest.mark.parametrize("live", [True, False])
def test_packets_with_a_limit_on_writes(busy: Monitored, shm: Path, live: bool) -> None:
    """A save that must write slowly is right, and does not hang."""
    require_live(live=live)
    snapmig.save(busy.monitor, shm / "snap", jobs=2, live=live, bwlimit="60M", pause_after=2)
    assert ram_of(shm / "snap", shm, BUSY).number >= 1


def test_a_destination_that_exists(busy: Monitored, shm: Path) -> None:
    """A snapshot that is there is not replaced, and the guest is not touched."""
    require_live()
    (shm / "snap").write_bytes(b"here")
    with pytest.raises(SnapmigError, match="exists"):
        snapmig.save(busy.monitor, shm / "snap", live=True)
    assert (shm / "snap").read_bytes() == b"here"


@pytest.mark.qemu("10.0")  # an older one ends in postmigrate
def test_a_stopped_guest_saved_live_stays_stopped(program: str, shm: Path) -> None:
    """A guest stopped by its owner is saved live like any other, twice, and does not run."""
    with make_monitored(program, shm, private_memory()) as guest:
        guest.expected_words = REFUSED
        tiny.wait_passes(guest, 2)
        guest.stop()
        states = []
        for number in range(2):
            result = snapmig.save(guest.monitor, shm / f"{number}", live=True, jobs=2)
            states.append((result.via, status(guest)))
        assert states == [("multifd", "paused")] * 2
        guest.cont()
        tiny.wait_passes(guest, 1)
    assert ram_of(shm / "0", shm) == ram_of(shm / "1", shm)
