"""Facts about ``snapmig send``: snapshots sent into a QEMU that its owner has made ready."""

from __future__ import annotations

import filecmp
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import snapmig
from tests.qemu.receiver import receiving
from tests.qemu.test_restore_multifd import damage
from tests.support import certificates, network
from tests.support import program as snapmig_program
from tests.support.guests import migration
from tests.support.guests.migration import MULTIFD
from tests.support.guests.private import MEMORIES, private_memory, ram_of
from tests.support.guests.qemu import Guest
from tests.support.guests.resume import (
    LAYOUT,
    Memory,
    Monitored,
    file_memory,
    make_monitored,
)
from tests.support.guests.saves import SAVES, Saved
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import State
from tests.support.guests.versions import require_qemu
from tests.support.outcome import Outcome
from tests.support.processes import all_gone, children, wait_for
from tests.support.sweep import sweep

pytestmark = pytest.mark.guest

UNIX, LOCAL = "unix", "tcp:127.0.0.1:0"
ANYTHING = re.compile("")
"""For a QEMU whose incoming migration fails, which says so in its own words."""


@contextmanager
def waiting(
    program: str, folder: Path, memory: Memory | None = None, **options: Any
) -> Iterator[Monitored]:
    """Start a QEMU that waits for its owner to say where a migration comes."""
    with make_monitored(
        program, folder, memory or private_memory(), incoming=True, **options
    ) as guest:
        yield guest


def listen(
    guest: Guest, place: str = UNIX, channels: int = 2, wire: str = "none", **more: Any
) -> str:
    """Have a QEMU listen as its owner would do, and return the address."""
    settings = {"multifd_channels": channels, "multifd_compression": wire} if channels else {}
    migration.prepare(guest, (MULTIFD,) if channels else (), **settings, **more)
    if place == UNIX:
        place = f"unix:{guest.folder / 'in'}"
    guest.execute("migrate-incoming", uri=place)
    if not place.endswith(":0"):
        return place
    (found,) = guest.execute("query-migrate")["socket-address"]
    return f"tcp:{found['host']}:{found['port']}"


def counts_on(guest: Guest, state: State) -> bool:
    """Return True if a guest that has arrived checks all of its pages and counts on."""
    guest.cont()
    return tiny.goes_on(tiny.wait_passes(guest, 2, before=0), state, LAYOUT)


def send(*arguments: object, **options: Any) -> Outcome:
    """Run ``snapmig send``."""
    return snapmig_program.run("send", *arguments, **options)


def is_catching_signals(process: subprocess.Popen[str]) -> bool:
    """Return True if the program has begun with its work."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    caught = re.search(r"^SigCgt:\t(\w+)", text, re.M)
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


WIRES = ("none", "zstd", "zlib")
WAYS = [(place, n, wire) for place in (UNIX, LOCAL) for n in (1, 2, 4) for wire in WIRES]


@pytest.mark.parametrize(
    ("place", "channels", "wire"),
    sweep(WAYS, lambda way: way in ((UNIX, 2, "none"), (LOCAL, 2, "zstd"))),
)
def test_over_channels(
    saved: Callable[[str], Saved],
    program: str,
    shm: Path,
    place: str,
    channels: int,
    wire: str,
) -> None:
    """A guest sent over channels continues from its saved state, with every page right."""
    found = saved("zstd")
    with waiting(program, shm) as guest:
        address = listen(guest, place, channels, wire)
        outcome = send("--channels", channels, "--wire", wire, "--json", found.path, address)
        result = outcome.ok().json
        assert counts_on(guest, found.state)
    assert (result["via"], result["jobs"], result["wire"]) == ("multifd", channels, wire)


@pytest.mark.parametrize("place", sweep([UNIX, LOCAL], lambda place: place == UNIX))
def test_over_one_connection(
    saved: Callable[[str], Saved], program: str, shm: Path, place: str
) -> None:
    """Without multifd all of a guest goes over one connection."""
    found = saved("multifd")
    with waiting(program, shm) as guest:
        address = listen(guest, place, channels=0)
        result = send("--channels", 0, "--json", found.path, address).ok().json
        assert counts_on(guest, found.state)
    assert (result["via"], result["jobs"]) == ("stream", 1)


@pytest.mark.parametrize("channels", [0, 2])
@pytest.mark.parametrize("kind", sweep(SAVES, lambda kind: kind == "shared"))
def test_every_kind_of_snapshot(
    saved: Callable[[str], Saved], program: str, shm: Path, kind: str, channels: int
) -> None:
    """Whatever a guest was saved from, it counts on where it is sent to."""
    if kind == "shared" and channels:
        require_qemu("8.1")
    found = saved(kind)
    with waiting(program, shm) as guest:
        address = listen(guest, channels=channels)
        send("--channels", channels, found.path, address).ok()
        assert counts_on(guest, found.state)


@pytest.mark.parametrize("channels", [0, 2])
def test_memory_with_other_contents(
    saved: Callable[[str], Saved], program: str, shm: Path, channels: int
) -> None:
    """Pages that are zero in the snapshot become zero where the destination's file is not."""
    found = saved("multifd")
    (shm / "new").write_bytes(os.urandom(LAYOUT.ram))
    with waiting(program, shm, file_memory(shm / "new")) as guest:
        address = listen(guest, channels=channels)
        send("--channels", channels, found.path, address).ok()
        assert counts_on(guest, found.state)


@pytest.mark.sweep
@pytest.mark.parametrize("memory", [name for name in MEMORIES if name != "huge pages"])
@pytest.mark.parametrize("channels", [0, 2])
def test_every_memory(program: str, shm: Path, memory: str, channels: int) -> None:
    """A guest with memory of any kind is sent into a QEMU with the same."""
    (shm / "source").mkdir()
    (shm / "new").mkdir()
    with make_monitored(program, shm / "source", MEMORIES[memory](shm / "source")) as guest:
        tiny.wait_passes(guest, 1)
        snapmig.save(guest.monitor, shm / "snap", jobs=2, via="multifd")
    with waiting(program, shm / "new", MEMORIES[memory](shm / "new")) as guest:
        send("--channels", channels, shm / "snap", listen(guest, channels=channels)).ok()
        assert counts_on(guest, ram_of(shm / "snap", shm))


def test_pages_in_the_device_state_need_new_machine_types(program: str, shm: Path) -> None:
    """What an old machine type can't be sent over channels is refused before it is connected to."""
    with make_monitored(program, shm, file_memory(shm / "ram"), machine="pc-q35-7.2") as guest:
        guest.expected_words = re.compile("deprecated")
        tiny.wait_passes(guest, 1)
        snapmig.save(guest.monitor, shm / "snap", jobs=2, via="shared")
    outcome = send(shm / "snap", f"unix:{shm / 'nobody'}", "--timeout", 9)
    outcome.fails(4, "machine type pc-q35-7.2", "expected channels 0", lines=1)


def test_a_snapshot_without_a_guest(shm: Path) -> None:
    """RAM alone can't be sent, which is said before anybody is connected to."""
    (shm / "ram").write_bytes(bytes(1 << 20))
    snapmig.save(shm / "ram", shm / "snap")
    outcome = send(shm / "snap", f"unix:{shm / 'nobody'}")
    outcome.fails(2, f"{shm / 'snap'}: ", "device state", lines=1)


def test_nobody_listens(saved: Callable[[str], Saved], shm: Path) -> None:
    """A destination that never listens is one sentence."""
    address = f"unix:{shm / 'nobody'}"
    outcome = send("--timeout", 1, saved("multifd").path, address)
    outcome.fails(1, err=f"snapmig: can't connect to {address}: No such file or directory\n")


def test_a_destination_that_is_late(saved: Callable[[str], Saved], program: str, shm: Path) -> None:
    """A QEMU may begin to listen after the send has begun."""
    found = saved("multifd")
    with waiting(program, shm) as guest:
        process = snapmig_program.start("send", found.path, f"unix:{guest.folder / 'in'}")
        wait_for(lambda: is_catching_signals(process))
        listen(guest)
        snapmig_program.end(process, 60).ok()
        assert counts_on(guest, found.state)


IDENTITY = "12345678-1234-1234-1234-123456789abc"


def test_a_guest_with_a_uuid(saved: Callable[[str], Saved], program: str, shm: Path) -> None:
    """The UUID of the waiting guest is sent on each channel."""
    found = saved("multifd")
    with waiting(program, shm, extra=("-uuid", IDENTITY)) as guest:
        send("--uuid", IDENTITY, found.path, listen(guest)).ok()
        assert counts_on(guest, found.state)


WRONG: dict[str, tuple[Sequence[object], dict[str, Any], str]] = {
    "UUID": (("--uuid", IDENTITY), {}, "another UUID"),
    "fewer channels": (("--channels", 1), {}, "another number of channels"),
    "more channels": (("--channels", 3), {}, "another number of channels"),
    "no channels": (("--channels", 0), {}, "another number of channels"),
    "channels without multifd": ((), {"channels": 0}, "another number of channels"),
    "frames": (("--wire", "zstd"), {}, "another compression"),
    "no frames": ((), {"wire": "zstd"}, "another compression"),
}


USUAL = ("UUID", "fewer channels", "more channels", "frames")


@pytest.mark.parametrize("kind", sweep(WRONG, lambda kind: kind in USUAL))
def test_other_settings_than_the_destination(
    saved: Callable[[str], Saved], program: str, shm: Path, kind: str
) -> None:
    """Settings that are not the destination's are one sentence."""
    options, settings, words = WRONG[kind]
    with waiting(program, shm) as guest:
        guest.expected_words = ANYTHING
        address = listen(guest, **settings)
        outcome = send("--timeout", 3, *options, saved("multifd").path, address)
    outcome.fails(1, words, lines=1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an authority."""
    return certificates.make_authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def ends(authority: Path) -> Path:
    """Give certificates for both ends, the server's for this host."""
    return certificates.make_ends(authority, authority.parent / "ends", "127.0.0.1")


def listen_by_tls(guest: Guest, folder: Path, **settings: Any) -> str:
    """Have a QEMU listen with certificates."""
    facts = {"qom_type": "tls-creds-x509", "endpoint": "server", "verify_peer": True}
    guest.execute("object-add", id="tls0", dir=str(folder), sanity_check=False, **facts)
    return listen(guest, **{"place": LOCAL, "tls_creds": "tls0", **settings})


@pytest.mark.parametrize(
    ("channels", "wire"),
    sweep(
        [(0, "none"), *((n, wire) for n in (1, 2, 4) for wire in ("none", "zstd"))],
        lambda way: way in ((0, "none"), (2, "none")),
    ),
)
def test_by_tls(
    saved: Callable[[str], Saved], program: str, shm: Path, ends: Path, channels: int, wire: str
) -> None:
    """With certificates of one authority a guest goes encrypted, and counts on."""
    found = saved("zstd")
    with waiting(program, shm) as guest:
        address = listen_by_tls(guest, ends, channels=channels, wire=wire)
        options = ("--tls", ends, "--channels", channels, "--wire", wire)
        send(*options, found.path, address).ok()
        assert counts_on(guest, found.state)


def test_postcopy_by_tls(
    saved: Callable[[str], Saved], program: str, shm: Path, ends: Path
) -> None:
    """Requests and pages of a guest that runs already go encrypted, too."""
    found = saved("zstd")
    with waiting(program, shm) as guest:
        wanted = [{"capability": "postcopy-ram", "state": True}]
        guest.execute("migrate-set-capabilities", capabilities=wanted)
        address = listen_by_tls(guest, ends, channels=0)
        send("--postcopy", "--tls", ends, found.path, address).ok()
        assert counts_on(guest, found.state)


@pytest.fixture(scope="module")
def folders(authority: Path, ends: Path) -> dict[str, Path]:
    """Give folders of certificates that do not fit the destination's, by the fault."""
    other = certificates.make_authority(authority.parent / "other")
    strangers = certificates.make_ends(other, authority.parent / "strangers", "127.0.0.1")
    impostor = authority.parent / "impostor"
    impostor.mkdir()
    for path in strangers.iterdir():
        (impostor / path.name).write_bytes(path.read_bytes())
    (impostor / "ca-cert.pem").write_bytes((ends / "ca-cert.pem").read_bytes())
    elsewhere = certificates.make_ends(authority, authority.parent / "elsewhere", "127.0.0.2")
    return {"another authority": strangers, "a stranger": impostor, "another host": elsewhere}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("another authority", "no TLS connection: "),
        ("a stranger", "connection"),
        ("another host", "certificate is not valid: IP address mismatch"),
    ],
)
def test_certificates_that_do_not_fit(
    saved: Callable[[str], Saved],
    program: str,
    shm: Path,
    ends: Path,
    folders: dict[str, Path],
    kind: str,
    words: str,
) -> None:
    """Nothing is sent to a destination that is not who it should be, nor taken from a stranger."""
    server, client = (folders[kind], ends) if kind == "another host" else (ends, folders[kind])
    with waiting(program, shm) as guest:
        guest.expected_words = ANYTHING
        address = listen_by_tls(guest, server)
        outcome = send("--tls", client, "--timeout", 5, saved("multifd").path, address)
    outcome.fails(1, words, lines=1)


@pytest.mark.parametrize("tls", [True, False])
def test_only_one_end_has_tls(
    saved: Callable[[str], Saved], program: str, shm: Path, ends: Path, tls: bool
) -> None:
    """TLS at one end only is one sentence."""
    with waiting(program, shm) as guest:
        guest.expected_words = ANYTHING
        address = listen(guest, LOCAL) if tls else listen_by_tls(guest, ends)
        options = ("--tls", ends) if tls else ()
        outcome = send(*options, "--timeout", 5, saved("multifd").path, address)
    outcome.fails(1, "TLS", lines=1)


def test_other_hosts_need_tls(saved: Callable[[str], Saved], cli: Callable[..., Outcome]) -> None:
    """An address of another host is refused without certificates."""
    outcome = cli("send", saved("multifd").path, "tcp:192.0.2.7:4444")
    outcome.fails(2, "certificates", lines=1)


def slow(saved: Saved, address: str, *options: object) -> subprocess.Popen[str]:
    """Start to send, at a rate that takes a while."""
    return snapmig_program.start("send", "--bwlimit", "2M", *options, saved.path, address)


def wait_until_sending(process: subprocess.Popen[str]) -> None:
    """Wait until some of the pages are sent, and not all."""
    assert process.stderr is not None
    for line in process.stderr:
        if json.loads(line)["done_bytes"]:
            return


@pytest.mark.parametrize("channels", sweep([0, 2], bool))
def test_a_destination_that_is_killed(
    saved: Callable[[str], Saved], program: str, shm: Path, channels: int
) -> None:
    """A destination that goes is one sentence, and no process is left."""
    with waiting(program, shm) as guest:
        address = listen(guest, channels=channels)
        options = ("--channels", channels, "--progress", "json")
        process = slow(saved("multifd"), address, *options)
        wait_until_sending(process)
        workers = children(process.pid)
        os.kill(guest.pid, signal.SIGKILL)
        outcome = snapmig_program.end(process, 60)
    last = outcome.err.splitlines()[-1]
    assert (outcome.code, "connection" in last) == (1, True)
    assert all_gone(workers)


def test_a_worker_that_is_killed(saved: Callable[[str], Saved], program: str, shm: Path) -> None:
    """A worker that dies ends the send, because its channel is lost with it."""
    with waiting(program, shm) as guest:
        guest.expected_words = ANYTHING
        process = slow(saved("multifd"), listen(guest), "--progress", "json")
        wait_until_sending(process)
        workers = children(process.pid)
        os.kill(workers[0], signal.SIGKILL)
        outcome = snapmig_program.end(process, 60)
    assert (outcome.code, "SIGKILL" in outcome.err) == (5, True)
    assert all_gone(workers)


@pytest.mark.parametrize("channels", [0, 2])
def test_a_damaged_packet(
    saved: Callable[[str], Saved], program: str, shm: Path, channels: int
) -> None:
    """A packet that differs from its checksum ends the send by its number, and that QEMU."""
    damaged = shm / "damaged.snap"
    damaged.write_bytes(saved("zstd").path.read_bytes())
    packet = damage(damaged)
    with waiting(program, shm) as guest:
        guest.expected_words = ANYTHING
        wire = "zstd" if channels else "none"
        address = listen(guest, channels=channels, wire=wire)
        outcome = send("--channels", channels, "--wire", wire, damaged, address)
        wait_for(lambda: not guest.is_running())
    outcome.fails(3, f"damaged.snap: packet {packet}: ", lines=1)


@pytest.mark.parametrize(
    "number",
    sweep([signal.SIGINT, signal.SIGTERM], lambda number: number == signal.SIGINT),
    ids=lambda number: number.name,
)
def test_a_signal_while_it_sends(
    saved: Callable[[str], Saved], program: str, shm: Path, number: signal.Signals
) -> None:
    """An interrupted send ends the waiting QEMU's migration, and leaves no process."""
    with waiting(program, shm) as guest:
        guest.expected_words = ANYTHING
        process = slow(saved("multifd"), listen(guest), "--progress", "json")
        wait_until_sending(process)
        workers = children(process.pid)
        process.send_signal(number)
        outcome = snapmig_program.end(process, 60)
        wait_for(lambda: not guest.is_running())
    assert outcome.code == 128 + number
    told = f"snapmig: interrupted by {number.name}; the migration was broken off\n"
    assert outcome.err.endswith(told)
    assert all_gone(workers)


def test_a_signal_while_it_waits(saved: Callable[[str], Saved], shm: Path) -> None:
    """Waiting for a destination can be interrupted."""
    process = snapmig_program.start("send", saved("multifd").path, f"unix:{shm / 'nobody'}")
    wait_for(lambda: is_catching_signals(process))
    process.send_signal(signal.SIGINT)
    snapmig_program.end(process, 60).fails(130, err="snapmig: interrupted by SIGINT\n")


@pytest.mark.parametrize("channels", sweep([0, 2], bool))
def test_into_a_receiving_snapmig(
    saved: Callable[[str], Saved], program: str, shm: Path, channels: int
) -> None:
    """A snapshot is migrated to another snapmig, and has the same guest there."""
    found = saved("multifd")
    options = ("--channels", channels)
    with receiving(f"unix:{shm / 'in'}", shm / "snap", *options, "-j", 2) as receiver:
        send(*options, found.path, receiver.address).ok()
        receiver.end().ok(err=None)
    for name, path in (("before", found.path), ("after", shm / "snap")):
        snapmig.restore(path, shm / name, format="raw")
    assert filecmp.cmp(shm / "before", shm / "after", shallow=False)
    with waiting(program, shm) as guest:
        send(*options, shm / "snap", listen(guest, channels=channels)).ok()
        assert counts_on(guest, found.state)


@pytest.mark.root
@pytest.mark.sweep
@pytest.mark.parametrize(("loss", "channels"), [(0.005, 2), (0.0, 0), (0.02, 4)])
def test_to_another_host(
    saved: Callable[[str], Saved],
    program: str,
    shm: Path,
    authority: Path,
    loss: float,
    channels: int,
) -> None:
    """Over a network that delays and loses packets a guest arrives whole, by TLS, and counts on."""
    found = saved("multifd")
    elsewhere = make_monitored(program, shm, private_memory(), incoming=True)
    with network.bad_link(0.005, loss) as link:
        there = link.addresses[1]
        ends = certificates.make_ends(authority, shm / "ends", there)
        elsewhere.config.before = link.command(1)
        with elsewhere as guest:
            place = f"tcp:{there}:0"
            address = listen_by_tls(guest, ends, place=place, channels=channels)
            command = [*link.command(0), *snapmig_program.PROGRAM, "send", "--tls", ends]
            command += ["--channels", channels, found.path, address]
            snapmig_program.call(command, timeout=100, env=snapmig_program.ENVIRONMENT).ok()
            assert counts_on(guest, found.state)
    assert link.carried > 1000
    assert (link.lost > 0) == (loss > 0)
