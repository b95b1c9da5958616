"""Facts about guests sent into a waiting QEMU with memory of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from qemu.qmp import QMPError

import snapmig
from snapmig import WireName
from snapmig.container.format import Encoding
from snapmig.container.reader import SnapshotFile
from snapmig.encodings import deflate
from snapmig.errors import CorruptSnapshotError, SnapmigError, UsageError
from tests.support import program as snapmig_program
from tests.support.guests.qemu import Guest
from tests.support.guests.resume import LAYOUT, Monitored, file_memory, make_monitored
from tests.support.guests.saves import PRIVATE, SAVES, Saved
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.versions import require_qemu
from tests.support.processes import wait_for
from tests.support.sweep import sweep

pytestmark = pytest.mark.guest

COMPRESSED = (Encoding.DEFLATE, Encoding.ZSTD)
WIRES = ("none", "zstd", "zlib")
WAYS = [(kind, jobs, wire) for kind in SAVES for jobs in (1, 2, 4) for wire in WIRES]
ESSENTIAL = [("shared", 2, "none"), ("multifd", 2, "zlib"), ("zstd", 2, "zstd")]


@pytest.mark.parametrize(("kind", "jobs", "wire"), sweep(WAYS, lambda way: way in ESSENTIAL))
def test_counts_on(
    saved: Callable[[str], Saved], program: str, shm: Path, kind: str, jobs: int, wire: str
) -> None:
    """A guest sent over channels continues from its saved state, with every page right."""
    if kind == "shared":
        require_qemu("8.1")  # older ones get a file
    found = saved(kind)
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        result = snapmig.restore(found.path, guest.monitor, jobs=jobs, wire=wire)
        counted = tiny.wait_passes(guest, 2, before=0)
    assert (result.via, tiny.goes_on(counted, found.state, LAYOUT)) == ("multifd", True)


@pytest.mark.parametrize("via", ["multifd", "mapped-ram"])
def test_a_way_on_request(saved: Callable[[str], Saved], program: str, shm: Path, via: str) -> None:
    """A QEMU with shared memory is restored over channels, or through a file, if so asked."""
    found = saved("multifd")
    with make_monitored(program, shm, file_memory(shm / "new"), incoming=True) as guest:
        result = snapmig.restore(found.path, guest.monitor, jobs=2, via=via)
        counted = tiny.wait_passes(guest, 2, before=0)
    assert (result.via, tiny.goes_on(counted, found.state, LAYOUT)) == (via, True)


def test_no_shared_memory_to_write(saved: Callable[[str], Saved], program: str, shm: Path) -> None:
    """Memory that is not shared can't be written, and the QEMU is still waiting afterwards."""
    found = saved("shared")
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        with pytest.raises(UsageError, match="via shared: RAM block 'ram' is not in a shared file"):
            snapmig.restore(found.path, guest.monitor, via="shared")
        assert status(guest) == "inmigrate"


def test_settings_are_put_back(saved: Callable[[str], Saved], program: str, shm: Path) -> None:
    """QEMU's capabilities and number of channels are as before."""
    found = saved("multifd")
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        before = settings(guest)
        snapmig.restore(found.path, guest.monitor, jobs=3, wire="zstd")
        assert settings(guest) == before


def test_streams_without_an_end_of_their_own(
    saved: Callable[[str], Saved], program: str, shm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deflate streams that can't be parts of a longer one are decoded and compressed again."""
    found = saved("multifd")
    monkeypatch.setattr(deflate, "without_end", lambda _stream: None)
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        snapmig.restore(found.path, guest.monitor, jobs=2, wire="zlib")
        counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, found.state, LAYOUT)


def test_a_stream_that_qemu_can_not_continue(
    saved: Callable[[str], Saved], program: str, shm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU notices, and the restore fails."""
    found = saved("multifd")
    monkeypatch.setattr(deflate, "without_end", memoryview)
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        guest.expected_words = re.compile("")
        with pytest.raises(SnapmigError):
            snapmig.restore(found.path, guest.monitor, jobs=2, wire="zlib")
    guest.expected_words = None
    assert guest.unexpected_lines()


@pytest.mark.parametrize(("kind", "wire"), [("zstd", "zstd"), ("multifd", "zlib")])
def test_a_damaged_packet_is_not_sent(
    saved: Callable[[str], Saved], program: str, shm: Path, kind: str, wire: WireName
) -> None:
    """A packet passed on undecoded is checked like any other."""
    path = shm / "damaged.snap"
    path.write_bytes(saved(kind).path.read_bytes())
    packet = damage(path)
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        guest.expected_words = re.compile("")
        with pytest.raises(CorruptSnapshotError, match=f"packet {packet}") as error:
            snapmig.restore(path, guest.monitor, jobs=2, wire=wire)
    assert error.value.path == str(path)


def damage(path: Path) -> int:
    """Change a stored byte of the first compressed packet, and return its number."""
    with SnapshotFile(str(path)) as snapshot:
        places = map(snapshot.geometry.place, range(snapshot.geometry.packet_count))
        packets = map(snapshot.packet, places)
        packet = next(each for each in packets if each.encoding in COMPRESSED)
    with path.open("r+b") as file:
        file.seek(packet.offset)
        byte = file.read(1)
        file.seek(packet.offset)
        file.write(bytes([byte[0] ^ 1]))
    return packet.packet


def status(guest: Guest) -> str:
    """Return QEMU's run state."""
    return str(guest.execute("query-status")["status"])


def state_or_end(guest: Guest) -> str:
    """Return QEMU's run state, ``ended`` if it goes meanwhile."""
    try:
        return status(guest)
    except (QMPError, OSError):
        return "ended"


def settings(guest: Guest) -> object:
    """Return QEMU's settings for migrations."""
    commands = ("query-migrate-capabilities", "query-migrate-parameters")
    return [guest.execute(command) for command in commands]


@contextmanager
def slowly(saved: Callable[[str], Saved], guest: Monitored) -> Iterator[subprocess.Popen[str]]:
    """Start a restore in a process of its own, and give it when some pages have been sent."""
    path, monitor = saved("multifd").path, guest.monitor
    process = snapmig_program.start("restore", path, monitor, "--bwlimit", "2M", "-j", 2)
    try:
        wait_for(lambda: guest.execute("query-migrate").get("status") == "active")
        yield process
    finally:
        process.kill()
        process.communicate()


CUT_OFF = re.compile("")
"""What QEMU says of a migration that does not come to its end: anything."""


def test_a_destination_that_is_killed(
    saved: Callable[[str], Saved], program: str, shm: Path
) -> None:
    """Its end is one sentence, and the snapshot is as it was."""
    before = saved("multifd").path.read_bytes()
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        guest.expected_words = CUT_OFF
        with slowly(saved, guest) as process:
            os.kill(guest.pid, signal.SIGKILL)
            snapmig_program.end(process, timeout=60).fails(1, start="snapmig: ", lines=1)
    assert saved("multifd").path.read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda one: one.name)
def test_a_source_that_goes(
    saved: Callable[[str], Saved], program: str, shm: Path, number: signal.Signals
) -> None:
    """QEMU sees a migration that has failed, and ends or waits, but runs no half guest."""
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        guest.expected_words = CUT_OFF
        with slowly(saved, guest) as process:
            process.send_signal(number)
            outcome = snapmig_program.end(process, timeout=60)
        wait_for(lambda: not guest.is_running() or migration_status(guest) == "failed")
        assert state_or_end(guest) in ("ended", "inmigrate")
        assert guest.read_serial() == ""
    assert outcome.code in (130, -signal.SIGKILL)


def test_no_folder_while_pages_are_sent(
    saved: Callable[[str], Saved], program: str, shm: Path
) -> None:
    """The socket's folder is removed once all are connected, so a kill leaves none."""
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        guest.expected_words = CUT_OFF
        with slowly(saved, guest):
            socket = Path(guest.execute("query-migrate")["socket-address"][0]["path"])
            wait_for(lambda: not socket.parent.exists())
            assert (socket.name, migration_status(guest)) == ("migration", "active")


def migration_status(guest: Guest) -> str | None:
    """Return the state of a migration; None if QEMU has gone meanwhile."""
    try:
        return str(guest.execute("query-migrate").get("status"))
    except QMPError:
        return None
