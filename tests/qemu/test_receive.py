"""Facts about ``snapmig receive``: guests that their owners migrate to it with a real QEMU."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import snapmig
from tests.qemu.receiver import END_S, receiving
from tests.support import certificates, network
from tests.support.guests import migration
from tests.support.guests.migration import MULTIFD
from tests.support.guests.private import private_memory, ram_of, status
from tests.support.guests.qemu import CUT_OFF, Guest
from tests.support.guests.resume import Monitored, goes_on, make_monitored
from tests.support.guests.tiny import guest as tiny
from tests.support.outcome import Outcome
from tests.support.processes import wait_for
from tests.support.sweep import sweep

pytestmark = pytest.mark.guest

LOCAL = "tcp:127.0.0.1:0"
ACKNOWLEDGED = (MULTIFD, "return-path")
FAILED = re.compile(
    rf"{CUT_OFF.pattern}|[Tt][Ll][Ss]|[Hh]andshake|certificate|ram_save_setup failed"
)
"""What QEMU says of a migration that its destination does not take."""
OVER = ("completed", "failed", "cancelled")
GIVE_UP_S = 10.0


@pytest.fixture(scope="module")
def source(program: str, shared_shm: Path) -> Iterator[Monitored]:
    """Give a guest with memory of QEMU's own."""
    with make_monitored(program, shared_shm, private_memory()) as guest:
        guest.expected_words = FAILED
        tiny.wait_passes(guest, 2)
        yield guest


@pytest.fixture
def guest(source: Monitored) -> Iterator[Monitored]:
    """Give that guest, running, with QEMU's own settings for migrations."""
    yield source
    names = source.execute("query-migrate-capabilities")
    states = [{"capability": item["capability"], "state": False} for item in names]
    bring_to_rest(source)
    source.execute("migrate-set-capabilities", capabilities=states)
    source.execute(
        "migrate-set-parameters",
        multifd_channels=2,
        multifd_compression="none",
        tls_creds="",
        downtime_limit=300,
    )
    if status(source) != "running":
        source.cont()


def is_at_rest(guest: Guest) -> bool:
    """Return True if QEMU is done with a migration; it reports a failed one a moment before."""
    busy = any(item["type"] == "migration" for item in guest.execute("query-yank"))
    return migration_status(guest) in (None, "none", *OVER) and not busy


def bring_to_rest(guest: Guest) -> None:
    """Wait for that; a QEMU that goes on waiting for a refused channel is told to give up."""
    try:
        wait_for(lambda: is_at_rest(guest), GIVE_UP_S)
    except AssertionError:
        guest.execute("migrate_cancel")
        wait_for(lambda: is_at_rest(guest))


def migrate(guest: Guest, address: str, capabilities: Sequence[str], **settings: Any) -> None:
    """Migrate a guest as its owner would do, to the end; the guest stands still afterwards."""
    begin(guest, address, capabilities, **settings)
    wait_for(lambda: migration_status(guest) in OVER, END_S)
    assert migration_status(guest) == "completed"


def begin(
    guest: Guest, address: str, capabilities: Sequence[str] = ACKNOWLEDGED, **settings: Any
) -> None:
    """Begin a migration, of a guest that stands still where QEMU would miss what it writes."""
    if guest.version < (8, 0):
        guest.stop()
    migration.prepare(guest, capabilities, **settings)
    guest.execute("migrate", uri=address)


def is_as_before(guest: Guest) -> bool:
    """Return True if a guest whose migration failed is in the state in which that began."""
    return status(guest) == ("paused" if guest.version < (8, 0) else "running")


def migration_status(guest: Guest) -> str | None:
    """Return the status of the last migration."""
    found: str | None = guest.execute("query-migrate").get("status")
    return found


def counts_on(program: str, folder: Path, snapshot: Path) -> bool:
    """Return True if a received guest is loaded by a new QEMU from a stream, and counts on."""
    snapmig.restore(snapshot, folder / "stream", format="qemu-stream", jobs=2)
    state = ram_of(snapshot, folder)
    return goes_on(program, folder, f"file:{folder / 'stream'}", state)


PLACES = ["unix", "tcp"]
LONG = {"downtime_limit": 60_000}


@pytest.mark.parametrize(
    ("place", "channels"),
    sweep(
        [(place, channels) for place in PLACES for channels in (1, 2, 4)],
        lambda way: way[1] == 2,
    ),
)
def test_a_guest_is_received(
    guest: Monitored, program: str, shm: Path, place: str, channels: int
) -> None:
    """A guest that ran while it was migrated is stored when QEMU is told so, and counts on."""
    listen = f"unix:{shm / 'socket'}" if place == "unix" else LOCAL
    options = ("--channels", channels, "-j", 2, "--json")
    with receiving(listen, shm / "snap", *options) as receiver:
        migrate(guest, receiver.address, ACKNOWLEDGED, multifd_channels=channels)
        assert (shm / "snap").exists()
        found = receiver.end().ok(err=None).json
    assert found["via"] == "multifd"
    assert not (shm / "socket").exists()
    assert snapmig.verify(shm / "snap").problems == ()
    assert counts_on(program, shm, shm / "snap")


@pytest.mark.parametrize("names", [(), ("return-path",)], ids=["alone", "acknowledged"])
def test_a_plain_stream(guest: Monitored, program: str, shm: Path, names: tuple[str, ...]) -> None:
    """Without multifd all of a guest comes over one connection."""
    options = ("--channels", 0, "-j", 2, "--json")
    with receiving(f"unix:{shm / 'socket'}", shm / "snap", *options) as receiver:
        migrate(guest, receiver.address, names)
        found = receiver.end().ok(err=None).json
    assert found["via"] == "stream"
    assert counts_on(program, shm, shm / "snap")


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_compressed_channels(guest: Monitored, program: str, shm: Path, compression: str) -> None:
    """Pages that QEMU compresses on the way are stored like others."""
    with receiving(LOCAL, shm / "snap", "-j", 2) as receiver:
        settings = {"multifd_compression": compression, **LONG}
        migrate(guest, receiver.address, ACKNOWLEDGED, **settings)
        receiver.end().ok(err=None)
    assert counts_on(program, shm, shm / "snap")


def test_without_a_return_path(guest: Monitored, program: str, shm: Path) -> None:
    """A QEMU that does not wait for the last word is received, too."""
    with receiving(LOCAL, shm / "snap", "-j", 2) as receiver:
        migrate(guest, receiver.address, (MULTIFD,))
        receiver.end().ok(err=None)
    assert counts_on(program, shm, shm / "snap")


@pytest.mark.parametrize(
    ("given", "sent", "words"),
    [
        (1, 2, "more than"),
        (0, 2, "more than"),
        pytest.param(2, None, "in 60 s there came", marks=pytest.mark.sweep),
    ],
)
def test_another_number_of_channels(
    guest: Monitored, shm: Path, given: int, sent: int | None, words: str
) -> None:
    """Channels other than those awaited are one sentence, and the guest runs on."""
    with receiving(LOCAL, shm / "snap", "--channels", given, "-j", 1) as receiver:
        names = ACKNOWLEDGED if sent else ("return-path",)
        begin(guest, receiver.address, names, multifd_channels=sent or 2)
        receiver.end(timeout=90).fails(1, words, lines=1)
    wait_for(lambda: is_as_before(guest))
    assert [*shm.iterdir()] == []


def test_nothing_comes(shm: Path) -> None:
    """A migration that nobody begins is awaited as long as was said."""
    with receiving(f"unix:{shm / 'socket'}", shm / "snap", "--timeout", 1) as receiver:
        receiver.end().fails(1, "no migration came in 1 s", lines=1)
    assert [*shm.iterdir()] == []


def test_a_second_one_at_the_same_path(
    guest: Monitored, shm: Path, cli: Callable[..., Outcome]
) -> None:
    """A path that is in use is refused, and whoever uses it still gets its guest."""
    listen = f"unix:{shm / 'socket'}"
    with receiving(listen, shm / "snap", "-j", 1) as receiver:
        second = cli("receive", "--listen", listen, shm / "second")
        second.fails(1, f"can't listen at {listen}", lines=1)
        migrate(guest, receiver.address, ACKNOWLEDGED)
        receiver.end().ok(err=None)
    assert [item.name for item in shm.iterdir()] == ["snap"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_while_it_waits(shm: Path, number: signal.Signals) -> None:
    """An interrupted wait leaves nothing."""
    with receiving(f"unix:{shm / 'socket'}", shm / "snap") as receiver:
        receiver.process.send_signal(number)
        outcome = receiver.end()
    outcome.fails(128 + number, err=f"snapmig: interrupted by {number.name}\n")
    assert [*shm.iterdir()] == []


SLOW = {"max_bandwidth": 2 << 20}


def is_sending(guest: Guest) -> bool:
    """Return True if some of a guest's memory was sent."""
    return bool(guest.execute("query-migrate").get("ram", {}).get("transferred", 0) > 1 << 20)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_a_signal_while_it_receives(guest: Monitored, shm: Path, number: signal.Signals) -> None:
    """The migration fails when its destination goes, and the guest runs on."""
    with receiving(LOCAL, shm / "snap", "-j", 2) as receiver:
        begin(guest, receiver.address, **SLOW)
        wait_for(lambda: is_sending(guest))
        receiver.process.send_signal(number)
        outcome = receiver.end()
    assert outcome.code == (130 if number == signal.SIGINT else -9)
    wait_for(lambda: migration_status(guest) == "failed")
    wait_for(lambda: is_as_before(guest))
    assert not (shm / "snap").exists()


def test_a_migration_that_its_owner_cancels(guest: Monitored, shm: Path) -> None:
    """A migration that is given up is one sentence, and leaves no file."""
    with receiving(LOCAL, shm / "snap", "-j", 2) as receiver:
        begin(guest, receiver.address, **SLOW)
        wait_for(lambda: is_sending(guest))
        guest.execute("migrate_cancel")
        receiver.end().fails(1, "connection", lines=1)
    assert [*shm.iterdir()] == []


def test_a_qemu_that_is_killed(program: str, shm: Path) -> None:
    """A source that goes is one sentence, and leaves no file."""
    (shm / "guest").mkdir()
    with (
        receiving(LOCAL, shm / "snap", "-j", 2) as receiver,
        make_monitored(program, shm / "guest", private_memory()) as guest,
    ):
        tiny.wait_passes(guest, 1)
        begin(guest, receiver.address, **SLOW)
        wait_for(lambda: is_sending(guest))
        os.kill(guest.pid, signal.SIGKILL)
        receiver.end().fails(1, "connection", lines=1)
    assert [item.name for item in shm.iterdir()] == ["guest"]


def test_other_hosts_need_tls(shm: Path, cli: Callable[..., Outcome]) -> None:
    """An address that other hosts reach is refused without certificates."""
    cli("receive", "--listen", "tcp:0.0.0.0:0", shm / "snap").fails(2, "certificates", lines=1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an authority."""
    return certificates.make_authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def ends(authority: Path) -> Path:
    """Give certificates for this host and a guest."""
    return certificates.make_ends(authority, authority.parent / "ends", "127.0.0.1")


@contextmanager
def credentials(guest: Guest, folder: Path) -> Iterator[str]:
    """Give QEMU a folder of certificates as credentials, and take them back."""
    name = "tls0"
    facts = {"qom_type": "tls-creds-x509", "endpoint": "client", "sanity_check": False}
    guest.execute("object-add", id=name, dir=str(folder), **facts)
    try:
        yield name
    finally:
        guest.execute("migrate-set-parameters", tls_creds="")
        guest.execute("object-del", id=name)


@pytest.mark.parametrize("channels", sweep([0, 1, 2, 4], lambda channels: channels == 2))
def test_a_guest_is_received_by_tls(
    guest: Monitored, program: str, shm: Path, ends: Path, channels: int
) -> None:
    """With certificates of one authority a guest comes encrypted, and counts on."""
    options = ("--tls", ends, "--channels", channels, "-j", 2)
    with receiving(LOCAL, shm / "snap", *options) as receiver, credentials(guest, ends) as tls:
        names = ACKNOWLEDGED if channels else ("return-path",)
        migrate(guest, receiver.address, names, multifd_channels=max(1, channels), tls_creds=tls)
        receiver.end().ok(err=None)
    assert counts_on(program, shm, shm / "snap")


@pytest.fixture(scope="module")
def strangers(authority: Path) -> Path:
    """Give certificates of another authority."""
    other = certificates.make_authority(authority.parent / "other")
    return certificates.make_ends(other, authority.parent / "strangers", "127.0.0.1")


@pytest.fixture(scope="module")
def impostor(ends: Path, strangers: Path) -> Path:
    """Give a stranger's certificates with the right authority to check others by."""
    folder = ends.parent / "impostor"
    folder.mkdir()
    for path in strangers.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "ca-cert.pem").write_bytes((ends / "ca-cert.pem").read_bytes())
    return folder


@pytest.mark.parametrize("who", ["strangers", "impostor", "nobody"])
def test_a_source_without_a_valid_certificate(
    guest: Monitored, shm: Path, ends: Path, strangers: Path, impostor: Path, who: str
) -> None:
    """A source of another authority, and one without TLS, is refused, and its guest runs on."""
    with receiving(LOCAL, shm / "snap", "--tls", ends, "-j", 1) as receiver:
        with credentials(guest, strangers if who == "strangers" else impostor) as tls:
            begin(guest, receiver.address, tls_creds="" if who == "nobody" else tls)
            wait_for(lambda: migration_status(guest) in OVER)
        receiver.end().fails(1, "no TLS connection", lines=1)
    wait_for(lambda: is_as_before(guest))
    assert [*shm.iterdir()] == []


@pytest.mark.root
@pytest.mark.parametrize(
    ("loss", "channels"), sweep([(0.005, 2), (0.0, 1), (0.02, 4)], lambda way: way[1] == 2)
)
def test_a_guest_of_another_host(
    program: str, shm: Path, authority: Path, loss: float, channels: int
) -> None:
    """Over a network that delays and loses packets a guest comes whole, by TLS, and counts on."""
    (shm / "guest").mkdir()
    elsewhere = make_monitored(program, shm / "guest", private_memory())
    with network.bad_link(0.005, loss) as link:
        here = link.addresses[1]
        ends = certificates.make_ends(authority, shm / "ends", here)
        elsewhere.config.before = link.command(0)
        options = ("--tls", ends, "--channels", channels, "-j", 2)
        with (
            receiving(f"tcp:{here}:0", shm / "snap", *options, before=link.command(1)) as receiver,
            elsewhere as guest,
            credentials(guest, ends) as tls,
        ):
            tiny.wait_passes(guest, 2)
            settings = {"multifd_channels": channels, "tls_creds": tls, **LONG}
            migrate(guest, receiver.address, ACKNOWLEDGED, **settings)
            receiver.end().ok(err=None)
    assert link.carried > 1000
    assert (link.lost > 0) == (loss > 0)
    assert counts_on(program, shm, shm / "snap")
