"""Facts about the offload daemon for Cloud Hypervisor, with a program in its place."""

import json
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemons.conftest import MIB, SIZE
from tests.support import program
from tests.support.processes import SOON_S
from tests.support.vmm import cloud_hypervisor as theirs


class Theirs:
    """The program in Cloud Hypervisor's place."""

    def __init__(self, **words):
        command = [sys.executable, "-m", "tests.support.vmm.cloud_hypervisor", json.dumps(words)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def result(self):
        """Return what it found."""
        out, _ = self.process.communicate(timeout=SOON_S)
        return json.loads(out.splitlines()[-1])


@pytest.fixture
def ours(tmp_path):
    """Give a function that starts a save and waits until it listens."""
    started = []

    def start(*words, **more):
        path = tmp_path / "save.sock"
        command = ("daemon", "cloud-hypervisor", "--listen", path, *words)
        started.append(program.start(*command, **more))
        line = started[-1].stderr.readline()
        assert "waiting for Cloud Hypervisor" in line, line + started[-1].stderr.read()
        return started[-1], path

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def waiting(tmp_path, image):
    """Give a function that starts a receiver and waits until it listens."""
    started = []

    def start(**words):
        path = tmp_path / "in.sock"
        own = Theirs(do="receive", socket=str(path), reference=str(image), **words)
        started.append(own)
        assert own.process.stdout.readline() == "listening\n"
        return own, path

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()


@pytest.fixture(scope="module")
def saved(image, tmp_path_factory):
    """Give a snapshot of a guest that was handed over."""
    folder = tmp_path_factory.mktemp("saved")
    path, target = folder / "s", folder / "guest.snap"
    words = ("--listen", path, "--packet-size", "64K")
    process = program.start("daemon", "cloud-hypervisor", *words, target)
    process.stderr.readline()
    found = Theirs(do="send", socket=str(path), reference=str(image)).result()
    program.end(process, SOON_S).ok()
    assert all(found["answers"])
    return target


def test_a_guest_is_saved_while_it_is_handed_over(saved, image, tmp_path):
    """The snapshot is that of a directory: it is restored to one, with all bytes and both files."""
    folder = tmp_path / "out"
    program.run("restore", saved, folder).ok()
    config = json.loads((folder / "config.json").read_bytes())

    assert (folder / "memory-ranges").read_bytes() == image.read_bytes()
    assert (folder / "state.json").read_bytes() == theirs.state(SIZE)
    assert config == json.loads(theirs.migration_config(SIZE))["vm_config"]


@pytest.mark.sweep
def test_a_directory_and_a_hand_over_have_the_same_contents(saved, tmp_path):
    """A later save of the guest's directory builds on the snapshot, and stores nothing."""
    folder = tmp_path / "out"
    program.run("restore", saved, folder).ok()
    words = ("--follow-remote-parents", "--parent", saved, "--json")
    outcome = program.run("save", *words, folder, tmp_path / "next.snap").ok(err=None)

    assert outcome.json["same_pages"] == outcome.json["data_pages"]


@pytest.mark.sweep
def test_a_sealed_snapshot_is_handed_back_filled(ours, waiting, image, tmp_path):
    """An encrypted incremental save is handed over with all memory in place, and right."""
    key, child = tmp_path / "key", tmp_path / "child.snap"
    program.run("key", "new", key).ok()
    process, path = ours("--encrypt", "--key-file", key, child)
    assert all(Theirs(do="send", socket=str(path), reference=str(image)).result()["answers"])
    program.end(process, SOON_S).ok()
    receiver, path = waiting()
    program.run(
        "daemon", "cloud-hypervisor", "--connect", path, "--paused", "--key-file", key, child
    ).ok("is paused")
    found = receiver.result()

    assert (found["wrong"], found["pages"]) == (0, SIZE // 4096)
    assert found["order"] == [1, 7, 7, 2, 3, 8]
    assert found["config"].encode() == theirs.migration_config(SIZE)
    assert found["state"].encode() == theirs.state(SIZE)


@pytest.mark.root
def test_pages_asked_for_are_right_and_never_written_twice(saved, waiting):
    """A running guest gets every page, keeps what it changed, and finds zeros where it gave up."""
    receiver, path = waiting(postcopy=True)
    outcome = program.run(
        "daemon", "cloud-hypervisor", "--connect", path, "--postcopy", "--json", saved
    )
    found = receiver.result()

    assert (found["wrong"], found["order"]) == (0, [1, 7, 7, 2, 3, 5])
    assert outcome.json["faults"] == found["asked"]


@pytest.mark.root
@pytest.mark.sweep
def test_a_guest_gets_all_its_memory_in_the_background(saved, waiting):
    """While the guest touches a tenth, the rest is asked for, and the daemon ends by itself."""
    receiver, path = waiting(postcopy=True, background=True, touched=300)
    program.run("daemon", "cloud-hypervisor", "--connect", path, "--postcopy", saved).ok(
        "runs", err=None
    )
    found = receiver.result()

    assert (found["wrong"], found["refused"]) == (0, 0)
    assert found["asked"] >= SIZE // 4096


@pytest.mark.root
def test_a_damaged_packet_is_an_error_and_not_a_page(saved, waiting, tmp_path):
    """The guest that touches it ends, as Cloud Hypervisor does; the exit code is 3."""
    damaged = tmp_path / "damaged.snap"
    content = bytearray(saved.read_bytes())
    content[6 * MIB + 100] ^= 1
    damaged.write_bytes(content)
    receiver, path = waiting(postcopy=True)
    program.run("daemon", "cloud-hypervisor", "--connect", path, "--postcopy", damaged).fails(
        3, "packet"
    )

    assert receiver.process.wait(SOON_S) == 9


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("words", "error"),
    [
        ({"abandon": theirs.STATE}, "abandons the guest's migration after CONFIG"),
        ({"die": theirs.STATE}, "Cloud Hypervisor"),
    ],
    ids=["abandoned", "died"],
)
def test_a_guest_that_does_not_come_leaves_nothing(ours, image, tmp_path, words, error):
    """A migration that is abandoned, or whose sender dies, is an error, and makes no file."""
    target = tmp_path / "none.snap"
    process, path = ours(target)
    sender = Theirs(do="send", socket=str(path), reference=str(image), **words)
    sender.process.communicate(timeout=SOON_S)
    program.end(process, SOON_S).fails(1, error)

    assert not target.exists()


def test_a_failed_save_leaves_the_guest_to_its_hypervisor(ours, saved, image, tmp_path):
    """A parent of another guest is refused, Cloud Hypervisor is told, and nothing is made."""
    other = tmp_path / "other.ram"
    other.write_bytes(image.read_bytes()[: 6 * MIB])
    target = tmp_path / "none.snap"
    process, path = ours("--parent", saved, "--follow-remote-parents", target)
    found = Theirs(do="send", socket=str(path), reference=str(other)).result()
    program.end(process, SOON_S).fails(2)

    assert found["answers"][-1] is False
    assert not target.exists()


@pytest.mark.sweep
def test_a_refused_guest_ends_the_hand_over(saved, waiting):
    """A receiver that refuses the state is named with it."""
    receiver, path = waiting(refuse=theirs.STATE)
    program.run("daemon", "cloud-hypervisor", "--connect", path, saved).fails(1, "refuses STATE")
    receiver.process.communicate(timeout=SOON_S)


START = struct.pack("<H6xQ", 1, 0)
FD = struct.pack("<H6xQ", 7, 4)
HOSTILE = {
    "version": (struct.pack("<HHIQ", 1, 3, 0, 0), "version 3"),
    "kind": (struct.pack("<H6xQ", 77, 0), "kind 77"),
    "remote": (START + struct.pack("<H6xQ", 2, 0), "needs local=on"),
    "early": (struct.pack("<H6xQ", 3, 9), "expected START"),
    "no-fd": (START + FD + b"0000", "no descriptor"),
    "cut": (START[:7], "early"),
    "size": (struct.pack("<H6xQ", 1, 1 << 60), "expected at most 0"),
}


@pytest.mark.parametrize(
    "kind",
    [kind if kind in ("no-fd", "size") else pytest.param(kind, marks=pytest.mark.sweep)
     for kind in HOSTILE],
)  # fmt: skip
def test_hostile_requests_are_refused(ours, tmp_path, kind):
    """Whatever is out of order is one sentence, and no file."""
    raw, error = HOSTILE[kind]
    target = tmp_path / "none.snap"
    process, path = ours(target)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(path))
        stranger.sendall(raw)
        stranger.shutdown(socket.SHUT_WR)
        program.end(process, SOON_S).fails(1, error)

    assert not target.exists()


def _handed(path, files, config, state):
    # Send a guest by hand, and return the answers.
    answers = []
    with socket.socket(socket.AF_UNIX) as sender:
        sender.connect(str(path))
        theirs.request(sender, theirs.START)
        answers.append(theirs.answered(sender))
        for slot, fd in files:
            sender.sendall(FD)
            socket.send_fds(sender, [struct.pack("<I", slot)], [fd])
            answers.append(theirs.answered(sender))
        for command, payload in ((2, config), (3, state), (5, b"")):
            theirs.request(sender, command, payload)
            answers.append(theirs.answered(sender))
    return answers


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("size", "error"),
    [(4 * MIB, "file of slot 7 has 4194304 bytes, expected"), (None, "no regular file")],
)
def test_files_too_small_are_refused(ours, tmp_path, size, error):
    """A slot's file that is too small, or none, is refused before it is mapped."""
    process, path = ours(tmp_path / "none.snap")
    if size is None:
        fd = Path("/dev/zero").open("rb")  # noqa: SIM115
    else:
        fd = (tmp_path / "small").open("w+b")
        fd.truncate(size)
    with fd:
        files = [(7, fd.fileno()), (6, fd.fileno())]
        answers = _handed(path, files, theirs.migration_config(SIZE), theirs.state(SIZE))
    program.end(process, SOON_S).fails(1, error)

    assert answers[-1] is False


@pytest.mark.sweep
def test_an_interrupted_save_is_told(ours, tmp_path):
    """A signal before the guest is there ends the save with 128 and its number."""
    process, _ = ours(tmp_path / "none.snap")
    process.send_signal(signal.SIGINT)
    program.end(process, SOON_S).fails(128 + signal.SIGINT)


def test_options_of_the_other_direction_are_refused(cli):
    """Options of a save with --connect, and the other way round, are errors of usage."""
    both = ("daemon", "cloud-hypervisor")
    cli(*both, "--connect", "s", "--encrypt", "x.snap").fails(2, "--encrypt is for --listen only")
    cli(*both, "--listen", "s", "--postcopy", "x.snap").fails(2, "--postcopy is for --connect only")
