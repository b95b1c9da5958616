"""Facts about the scripted source: QEMU takes it for another QEMU, and sends as it does."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.guests import migration
from tests.support.guests.migration import MULTIFD
from tests.support.guests.qemu import Guest
from tests.support.guests.resume import LAYOUT, make
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import State
from tests.support.multifd import plan, reader, talk
from tests.support.multifd.dialects import (
    DIALECTS,
    QEMU_7_2,
    QEMU_8_2,
    QEMU_9_0,
    QEMU_9_1,
    QEMU_9_2,
    QEMU_10,
    QEMU_10_OLD_MACHINE,
    Dialect,
)
from tests.support.multifd.play import play
from tests.support.multifd.recorder import Recorder
from tests.support.multifd.wire import SWITCHOVER_START
from tests.support.sweep import sweep

pytestmark = pytest.mark.guest

CHANNELS = 2
OLD_MACHINE = "pc-q35-7.2"
"""Every QEMU here has it, and a newer one speaks to it as QEMU 7.2 does."""
DEPRECATED = re.compile("Machine type '.*' is deprecated")


@dataclass(frozen=True)
class Recording:
    """A live migration from one QEMU to another."""

    version: tuple[int, int]
    main: reader.Main
    channels: list[reader.Channel]
    ends: list[int | str]
    memory: bytes
    state: State

    @property
    def ram(self) -> dict[str, bytes]:
        """The RAM as a plain receiver gets it."""
        return reader.restored(self.main, self.channels)

    @property
    def guest(self) -> talk.Guest:
        """What the stream has besides RAM."""
        main = self.main
        return talk.Guest(main.machine, main.before, main.after, main.description,
                          section=main.section)  # fmt: skip


def incoming(program: str, folder: Path, machine: str) -> Guest:
    """Return a guest that waits for a migration."""
    return _made(program, folder, machine=machine, incoming=True)


def _made(program: str, folder: Path, **options: Any) -> Guest:
    guest = make(program, folder, **options)
    guest.expected_words = DEPRECATED
    return guest


def listen(guest: Guest, compression: str = "none") -> str:
    """Have a waiting guest listen for a migration; return its address."""
    migration.prepare(guest, (MULTIFD,), multifd_channels=CHANNELS, multifd_compression=compression)
    guest.execute("migrate-incoming", uri=f"unix:{guest.folder / 'in'}")
    return f"unix:{guest.folder / 'in'}"


def wait_loaded(guest: Guest) -> None:
    """Wait until a guest has been loaded."""
    end = time.monotonic() + migration.SECONDS
    while (found := guest.execute("query-migrate")).get("status") != "completed":
        assert found.get("status") != "failed", found
        assert time.monotonic() < end, found
        time.sleep(migration.POLL_SECONDS)


def record(program: str, folder: Path, shm: Path, machine: str) -> Recording:
    """Migrate a running guest from one QEMU to another."""
    with (
        _made(program, folder, memory=shm / "ram", machine=machine) as source,
        incoming(program, folder, machine) as target,
    ):
        tiny.wait_passes(source, 2)
        listen(target)
        migration.prepare(
            source,
            (MULTIFD, "return-path"),
            multifd_channels=CHANNELS,
            max_bandwidth=60 << 20,
            downtime_limit=200,
        )
        with Recorder(source.folder / "in", target.folder / "in") as recorder:
            if source.version < (8, 0):
                source.stop()  # it misses writes of an emulated guest while it is migrated
            migration.save_to(source, f"unix:{recorder.path}")
            wait_loaded(target)
        main = reader.read_main(recorder.main)
        channels = [reader.read_channel(one) for one in recorder.channels]
        state = tiny.check_image(shm / "ram", LAYOUT)
        memory = (shm / "ram").read_bytes()
        (shm / "ram").unlink()
        return Recording(source.version, main, channels, recorder.ends, memory, state)


@pytest.fixture(scope="module", params=["q35", OLD_MACHINE])
def recording(request, program, tmp_path_factory, shared_shm) -> Iterator[Recording]:
    """Give a live migration, with the newest machine type and with an old one."""
    return record(program, tmp_path_factory.mktemp("recording"), shared_shm, request.param)


@pytest.fixture(scope="module")
def newest(program, tmp_path_factory, shared_shm) -> Recording:
    """Give a live migration with the newest machine type."""
    return record(program, tmp_path_factory.mktemp("newest"), shared_shm, "q35")


def dialect_of(recording: Recording) -> Dialect:
    """Return the dialect for a release of QEMU and its machine type."""
    if recording.main.machine == OLD_MACHINE.encode() or recording.version < (8, 1):
        return QEMU_7_2 if recording.version < (8, 1) else QEMU_10_OLD_MACHINE
    known = {(8, 1): QEMU_8_2, (8, 2): QEMU_8_2, (9, 0): QEMU_9_0, (9, 1): QEMU_9_1,
             (9, 2): QEMU_9_2}  # fmt: skip
    return known.get(recording.version, QEMU_10)


def test_the_plain_receiver_gets_the_guests_memory(recording):
    """Rounds applied barrier by barrier make the memory of the source when it stopped."""
    assert recording.ram["ram"] == recording.memory


def test_qemu_closes_channels_after_the_last_word_came_back(recording):
    """With a return path no connection ends before the receiver said that all is well."""
    ends = recording.ends
    assert max(at for at, what in enumerate(ends) if what == "word back") < min(
        at for at, what in enumerate(ends) if what != "word back"
    )


def test_marks_and_syncs_are_as_the_dialect_has_them(recording):
    """SYNC packets, marks, and the command at the switch-over are those of the release."""
    dialect, main = dialect_of(recording), recording.main
    ends = main.words[-1].count("end"), main.flushes
    syncs = {channel.syncs for channel in recording.channels}
    lacking = dialect.end_sync and not dialect.end_mark and not dialect.per_section

    assert ends == (1, not dialect.per_section)
    assert syncs == {main.marks + lacking}
    assert (SWITCHOVER_START in main.commands) == dialect.switchover
    assert any(main.zeros) != dialect.zeros_in_packets


def test_pages_are_sent_as_the_dialect_has_them(recording):
    """Zero pages disorder those of newer releases; only older ones join pages and SYNC."""
    dialect = dialect_of(recording)
    found = recording.channels
    # With a barrier per section, a packet may hold the end of one round and the start of the next.
    disordered = dialect.zeros_in_packets or dialect.per_section

    assert sum(zero for one in found for _, zero in one.sizes) > 0 or not dialect.zeros_in_packets
    assert dialect.sync_with_pages or not any(one.sync_with_pages for one in found)
    assert dialect.stale_size or not any(one.stale for one in found)
    assert disordered or not any(one.disordered for one in found)
    assert dialect.repeats or not any(epoch.repeated for one in found for epoch in one.epochs)


def load(program: str, folder: Path, recording: Recording, dialect: Dialect, compression: str):
    """Play the recorded guest as a scripted source; return its passes as a QEMU resumes it."""
    made = talk.write(
        plan.real(recording.ram, CHANNELS),
        dialect,
        compression=compression,
        guest=recording.guest,
    )
    machine = recording.main.machine.decode()
    with incoming(program, folder, machine) as target:
        report = play(made, listen(target, compression))
        wait_loaded(target)
        target.cont()
        if recording.version >= (8, 0):  # an older one may close channels with a barrier unread
            ends = (report.shut, report.pongs, report.failures, report.unfinished)
            assert ends == (0, [1], {}, [])
        return tiny.wait_passes(target, 2, before=0)


def test_qemu_resumes_a_guest_of_the_scripted_source(program, tmp_path, recording):
    """A QEMU loads what is written in its own dialect; the guest finds every page right."""
    found = load(program, tmp_path, recording, dialect_of(recording), "none")

    assert tiny.goes_on(found, recording.state, LAYOUT)


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_qemu_resumes_a_guest_from_compressed_channels(program, tmp_path, newest, compression):
    """It inflates each channel as one stream."""
    found = load(program, tmp_path, newest, dialect_of(newest), compression)

    assert tiny.goes_on(found, newest.state, LAYOUT)


@pytest.mark.qemu("10.0")
@pytest.mark.parametrize(
    "dialect",
    sweep([one for one in DIALECTS if not one.per_section], lambda one: one is QEMU_9_2),
    ids=lambda one: one.name,
)
def test_qemu_10_takes_the_dialects_before_it(program, tmp_path, newest, dialect):
    """Whatever release is said to be the source, a new QEMU understands it."""
    found = load(program, tmp_path, newest, dialect, "none")

    assert tiny.goes_on(found, newest.state, LAYOUT)
