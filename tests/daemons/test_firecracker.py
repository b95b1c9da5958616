"""Facts about the page-fault handler for Firecracker, with a program in Firecracker's place."""

import signal
import socket
import sys
from contextlib import suppress

import pytest

from tests.daemons.conftest import MIB, SIZE
from tests.support import program
from tests.support.filesystems import huge_pages
from tests.support.processes import SOON_S, wait_for

pytestmark = pytest.mark.root  # userfaultfd for faults inside the kernel

REGIONS = [[0, 5 * MIB + 4096 * 3], [5 * MIB + 4096 * 3, 7 * MIB - 4096 * 3]]


def test_every_page_touched_has_its_contents(handler, snapshot, vmm):
    """All pages of two regions, touched by four threads in random order, are right."""
    service = handler(snapshot, "--once", "--json")
    found = vmm(service, regions=REGIONS).result()
    outcome = service.end().ends(0, "has ended")

    assert (found["wrong"], found["touched"]) == (0, SIZE // 4096)
    assert outcome.json["packets_decoded"] < found["touched"] / 8


def test_pages_given_up_are_zero_while_others_are_touched(handler, snapshot, vmm):
    """Pages given up, touched and given up again are zero from then on, and no other is."""
    service = handler(snapshot, "--fill", "--once", "--json")
    found = vmm(service, removes=600).result()
    outcome = service.end()

    assert found["wrong"] == 0
    assert outcome.json["removed_size"] > 0


@pytest.mark.sweep
def test_a_filled_guest_goes_on_alone(handler, snapshot, vmm):
    """After --fill the handler ends, and all memory is right without it, given up or not."""
    service = handler(snapshot, "--fill", "--once")
    guest = vmm(service, pages=300, removes=100, stay=True)
    first = guest.result()
    service.end().ends(0, "has all of its memory")

    assert (first["wrong"], guest.go_on()["wrong"]) == (0, 0)


def test_an_interrupted_handler_gives_guests_the_rest(handler, snapshot, vmm):
    """SIGTERM ends the handler with 143, and the guest has all of its memory."""
    service = handler(snapshot)
    guest = vmm(service, pages=50, stay=True)
    first = guest.result()
    service.process.send_signal(signal.SIGTERM)
    service.end().ends(128 + signal.SIGTERM, "1 guest get", "has all of its memory")

    assert (first["wrong"], guest.go_on()["wrong"]) == (0, 0)
    assert not service.socket.exists()


@pytest.mark.sweep
def test_two_guests_share_decoded_packets(handler, snapshot, vmm):
    """Two guests of one snapshot are served at once."""
    service = handler(snapshot)
    guests = [vmm(service, seed=seed) for seed in (1, 2)]

    assert [guest.result()["wrong"] for guest in guests] == [0, 0]


@pytest.mark.sweep
def test_a_guest_of_a_chain_and_a_sealed_snapshot(handler, image, snapshot, vmm, tmp_path):
    """An incremental, encrypted snapshot is served like any other."""
    key, child = tmp_path / "key", snapshot.with_name("child.snap")
    changed = tmp_path / "changed.ram"
    content = bytearray(image.read_bytes())
    content[3 * MIB : 3 * MIB + 9000] = b"changed".ljust(9000, b"!")
    changed.write_bytes(content)
    program.run("key", "new", key).ok()
    words = ("--encrypt", "--key-file", key, "--mixed-chain", "--parent", snapshot)
    program.run("save", *words, changed, child).ok()
    service = handler(child, "--once", "--key-file", key)
    found = vmm(service, reference=str(changed)).result()
    service.end().ends(0)

    assert found["wrong"] == 0


@pytest.mark.sweep
def test_first_touches_are_kept_and_filled_before_they_are_asked_for(
    handler, snapshot, vmm, tmp_path
):
    """A second start has packets of the first before it touches any, and asks for fewer."""
    kept = tmp_path / "kept"
    words = ("--working-set", kept, "--once", "--json")
    first = handler(snapshot, *words)
    vmm(first, pages=200).result()
    asked = first.end().json["packets_asked_for"]
    second = handler(snapshot, *words)
    guest = vmm(second, pages=200, seed=1, pause=True)
    assert guest.line() == "connected\n"
    before = guest.memory()
    wait_for(lambda: guest.memory() > before + asked * 65536 // 4)
    found = guest.go_on()
    again = second.end().json["packets_asked_for"]

    assert found["wrong"] == 0
    assert kept.exists()
    assert again < asked


def test_a_damaged_packet_ends_the_guest(handler, snapshot, vmm, tmp_path):
    """A guest that touches a damaged packet is killed, never given wrong bytes."""
    damaged = tmp_path / "damaged.snap"
    content = bytearray(snapshot.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    service = handler(damaged, "--once")
    guest = vmm(service)
    code = guest.ended()
    service.end().fails(3, "can't be served", "packet", "checksum")

    assert code == -signal.SIGKILL


@pytest.mark.sweep
def test_damage_that_nobody_touches_ends_no_guest(handler, snapshot, vmm, tmp_path):
    """A damaged packet found by --fill is told, and ends the guest only when the handler ends."""
    damaged = tmp_path / "damaged.snap"
    content = bytearray(snapshot.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    service = handler(damaged, "--fill")
    guest = vmm(service, pages=1, stay=True)
    found = guest.result()
    lines = [service.process.stderr.readline() for _ in range(2)]
    assert "can't get all of its memory" in lines[1]
    assert guest.process.poll() is None
    service.process.send_signal(signal.SIGTERM)
    service.end().fails(128 + signal.SIGTERM, "can't be served")

    assert (found["wrong"], guest.ended()) == (0, -signal.SIGKILL)


@pytest.mark.sweep
def test_a_killed_guest_ends_its_service(handler, snapshot, vmm):
    """A guest killed while it is served ends the handler without an error."""
    service = handler(snapshot, "--once")
    guest = vmm(service, stay=True, pages=10)
    guest.result()
    guest.process.kill()

    service.end().ends(0, "has ended")


@pytest.mark.sweep
def test_faults_outside_of_what_was_told_end_the_guest(handler, snapshot, vmm):
    """A process whose faults are elsewhere than it said would hang, so it is ended."""
    service = handler(snapshot, "--once")
    guest = vmm(service, changes={"base_host_virt_addr": 1 << 40})
    code = guest.ended()
    service.end().fails(1, "outside of all memory regions")

    assert code == -signal.SIGKILL


@pytest.mark.sweep
def test_a_guest_that_comes_with_the_signal_is_served(handler, snapshot, vmm):
    """A guest that connected before the handler stopped listening gets all of its memory."""
    service = handler(snapshot)
    service.process.send_signal(signal.SIGSTOP)
    guest = vmm(service, pages=20, stay=True)
    assert guest.line() == "connected\n"
    service.process.send_signal(signal.SIGTERM)
    service.process.send_signal(signal.SIGCONT)
    service.end().fails(128 + signal.SIGTERM, "has all of its memory")

    assert (guest.result()["wrong"], guest.go_on()["wrong"]) == (0, 0)


def test_a_guest_of_another_size_is_ended(handler, snapshot, vmm):
    """Regions that are not those of the snapshot end their process, which could only hang."""
    service = handler(snapshot, "--once")
    guest = vmm(service, regions=[[0, 4 * MIB]])
    code = guest.ended()
    service.end().fails(1, f"memory regions have {4 * MIB} bytes, the snapshot's RAM {SIZE}")

    assert code == -signal.SIGKILL


@pytest.mark.parametrize(
    "message",
    [b"[]", *(pytest.param(raw, marks=pytest.mark.sweep)
              for raw in (b"", b"{", b'"' + b"x" * 300_000))],
    ids=len,
)  # fmt: skip
def test_a_stranger_is_refused(handler, snapshot, vmm, message):
    """A message without a descriptor, or without sense, is refused, and the next guest served."""
    service = handler(snapshot, "--once")
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(service.socket))
        stranger.sendall(message)
        stranger.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):  # closed with bytes unread
            assert stranger.recv(1) == b""
    found = vmm(service, pages=50).result()
    service.end().ends(0, "a connection was refused")

    assert found["wrong"] == 0


@pytest.mark.sweep
def test_another_descriptor_is_refused(handler, snapshot):
    """A descriptor that is no userfaultfd is refused."""
    service = handler(snapshot)
    with socket.socket(socket.AF_UNIX) as stranger, open("/dev/null") as other:  # noqa: PTH123
        stranger.connect(str(service.socket))
        socket.send_fds(stranger, [b"[]"], [other.fileno()])
        assert stranger.recv(1) == b""

    assert "expected one of userfaultfd" in service.process.stderr.readline()


@pytest.mark.sweep
def test_another_users_process_is_refused(handler, snapshot, tmp_path):
    """The socket has mode 0600; who gets past that as another user is refused all the same."""
    tmp_path.chmod(0o755)
    service = handler(snapshot)
    assert service.socket.stat().st_mode & 0o777 == 0o600
    service.socket.chmod(0o777)
    code = (
        "import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX); "
        "s.connect(sys.argv[1]); s.recv(1)"
    )
    for folder in service.socket.parents[:-2]:
        folder.chmod(folder.stat().st_mode | 0o111)
    program.call([sys.executable, "-c", code, service.socket], timeout=SOON_S)

    assert "runs as user 65534, expected 0" in service.process.stderr.readline()


@pytest.mark.sweep
def test_a_dead_ones_socket_is_replaced_and_a_live_ones_is_not(handler, snapshot, vmm):
    """A socket left by a killed handler is taken over; one in use, or another file, is refused."""
    first = handler(snapshot)
    program.run("daemon", "firecracker", "--listen", first.socket, snapshot).fails(
        1, "another process listens there"
    )
    first.process.kill()
    first.process.wait()
    second = handler(snapshot, "--once")
    assert vmm(second, pages=10).result()["wrong"] == 0
    program.run("daemon", "firecracker", "--listen", snapshot, snapshot).fails(
        1, "exists and is not a socket"
    )


@pytest.mark.sweep
def test_huge_pages_are_filled_whole(handler, snapshot, vmm):
    """Memory in pages of 2 MiB is right, given-up pages included."""
    with huge_pages(SIZE // (2 * MIB)):
        service = handler(snapshot, "--once")
        found = vmm(service, page=2 * MIB, removes=2).result()
        service.end().ends(0)

    assert found["wrong"] == 0
