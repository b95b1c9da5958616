"""Facts about ``snapmig key``: slots are listed, added, removed and replaced, and never lost."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.requirements import requires
from tests.support.secrets import words

pytestmark = pytest.mark.usefixtures("place")

KEY, OTHER = ("--key-file", "key"), ("--key-file", "other")
TABLE_AT, COPY = 4096, 65536
KILLED = """
import os, signal, sys
import snapmig.sealing.table_file
from snapmig.commands import main
real, left = os.pwrite, [{writes}]
def pwrite(fd, data, offset):
    data = data[:{size}] if left[0] == 1 else data
    done = real(fd, data, offset)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return done
os.pwrite = pwrite
main(sys.argv[1:])
"""
"""The program, killed after some writes, the last of which is cut short."""


@pytest.fixture
def snap(cli, place):
    """Give a snapshot locked with ``key``."""
    cli("save", "guest0.ram", "s.snap", "--encrypt", *KEY).ok()
    return place / "s.snap"


def opens(cli, *keys):
    """Return which of several key files open the snapshot."""
    return [key for key in keys if cli("verify", "s.snap", "--quick", "--key-file", key).code == 0]


def tables(path):
    """Return both copies of the key table."""
    raw = path.read_bytes()
    return raw[TABLE_AT : TABLE_AT + COPY], raw[TABLE_AT + COPY : TABLE_AT + 2 * COPY]


def test_added_listed_and_removed(cli, snap):
    """An added key opens, the list has its label, and removed it opens no more."""
    cli("key", "add", snap, *KEY, "--new-key-file", "other", "--label", "of tests").ok("of tests")
    found = cli("key", "list", snap, *OTHER, "--json").ok().json
    assert [(slot["slot"], slot["label"]) for slot in found["slots"]] == [
        (0, "key"),
        (1, "of tests"),
    ]
    assert found["proved"]
    assert opens(cli, "key", "other") == ["key", "other"]

    cli("key", "remove", snap, *OTHER, "0").ok()
    assert opens(cli, "key", "other") == ["other"]


def test_a_list_without_a_key_is_not_proved(cli, snap):
    """The list without a key says that nothing proves it."""
    cli("key", "list", snap).ok("no key was given to prove this list")


def test_rotated(cli, snap):
    """A rotated key opens no more, the new one does, and all the rest of the file is as before."""
    root = cli("info", snap, "--json").json["root"]
    before = snap.read_bytes()
    cli("key", "rotate", snap, *KEY, "--new-key-file", "other").ok()
    after = snap.read_bytes()

    assert opens(cli, "key", "other") == ["other"]
    assert after[:TABLE_AT] + after[TABLE_AT + 2 * COPY :] == (
        before[:TABLE_AT] + before[TABLE_AT + 2 * COPY :]
    )
    assert cli("info", snap, "--json").json["root"] == root


def test_a_table_can_be_full(cli, snap):
    """Sixteen slots are possible, each opens, the next is refused, and a rotation goes on."""
    for number in range(15):
        Path(f"more{number}").write_bytes(bytes([number]) * 32)
        cli("key", "add", snap, *KEY, "--new-key-file", f"more{number}").ok()
    before = snap.read_bytes()
    cli("key", "add", snap, *KEY, "--new-key-file", "other").fails(
        2, err=f"snapmig: {snap}: has 16 key slots at most, remove one first\n"
    )
    assert snap.read_bytes() == before
    cli("key", "rotate", snap, *KEY, "--new-key-file", "other").ok()

    names = ["other", *(f"more{number}" for number in range(15))]
    assert opens(cli, "key", *names) == names


def test_the_last_slot_stays(cli, snap):
    """The last slot is not removed."""
    cli("key", "remove", snap, *KEY, "0").fails(
        2, "has no other key slot: without one nobody could open it again", lines=1
    )
    cli("key", "remove", snap, *KEY, "3").fails(2, "has no key slot 3", lines=1)
    cli("key", "remove", snap, *KEY, "--", "-1").fails(2, "has no key slot -1", lines=1)
    assert opens(cli, "key") == ["key"]


@pytest.mark.parametrize("verb", ["add", "rotate"])
def test_a_wrong_key_changes_nothing(cli, snap, verb):
    """Without a key that opens it nothing is changed."""
    before = snap.read_bytes()
    cli("key", verb, snap, *OTHER, "--new-key-file", "other").fails(
        1, "none of the given keys fits", lines=1
    )
    cli("key", verb, snap, "--new-key-file", "other").fails(1, "needs a key", lines=1)
    assert snap.read_bytes() == before


@pytest.mark.parametrize(
    ("label", "shown"), [("a\x1b[31mb", "'a\\x1b[31mb'"), ("a\nb", "'a\\nb'"), ("é" * 65, "é")]
)
def test_a_label_is_printable_and_short(cli, snap, label, shown):
    """Labels with control characters, and too long ones, are refused and shown safely."""
    command = ("key", "add", snap, *KEY, "--new-key-file", "other", "--label", label)
    cli(*command).fails(2, shown, "expected at most 128 printable bytes", lines=1)
    assert opens(cli, "key", "other") == ["key"]


def test_a_label_of_a_files_name_is_clean(cli, snap):
    """A file's name with control characters gives a label without them."""
    Path("od\x1b[1md\n").write_bytes(bytes(32))
    cli("key", "add", snap, *KEY, "--new-key-file", "od\x1b[1md\n").ok()
    slots = cli("key", "list", snap, "--json").json["slots"]
    assert slots[1]["label"] == "od[1md"


@pytest.mark.parametrize("name", ["fifo", ".", "missing", "guest0.ram", "plain.snap"])
def test_what_has_no_slots(cli, name):
    """What is no sealed snapshot is refused in one sentence, and a FIFO isn't waited for."""
    os.mkfifo("fifo")
    cli("save", "guest0.ram", "plain.snap").ok()
    for verb in (("list",), ("add", "--new-key-file", "other"), ("remove",)):
        rest = ("0",) if verb == ("remove",) else ()
        outcome = cli("key", *verb, name, *KEY, *rest)
        outcome.fails(outcome.code or 99, start=f"snapmig: {name}: ", lines=1)
        assert outcome.code in (1, 2, 3)


def test_an_object_is_refused(cli):
    """The keys of an object can't be changed, and that is said before anything is asked."""
    cli("key", "add", "s3://bucket/x.snap", *KEY, "--new-key-file", "other").fails(
        2, err="snapmig: s3://bucket/x.snap: its keys can be changed in a file, not in an object\n"
    )


def test_one_change_at_a_time(cli, snap):
    """A change while another process has the table is refused in one sentence."""
    with snap.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        cli("key", "add", snap, *KEY, "--new-key-file", "other").fails(
            1, err=f"snapmig: {snap}: another process changes its keys\n"
        )
        assert opens(cli, "key") == ["key"]


def test_a_file_that_can_only_be_read(cli, snap):
    """In a read-only file nothing is changed, and the sentence says why."""
    try:
        subprocess.run(["chattr", "+i", snap], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        requires("chattr +i in /dev/shm")
    try:
        cli("key", "add", snap, *KEY, "--new-key-file", "other").fails(
            1, start=f"snapmig: {snap}: ", lines=1
        )
        cli("key", "list", snap, *KEY).ok()
    finally:
        subprocess.run(["chattr", "-i", snap], check=True)


@pytest.mark.parametrize("size", [COPY, 16, 4096 + 100])
@pytest.mark.parametrize("writes", [1, 2])
def test_killed_between_the_writes(cli, snap, writes, size):
    """Killed in or after the write of either copy, it opens, and can be changed again."""
    script = KILLED.format(writes=writes, size=size)
    command = ["key", "rotate", str(snap), *KEY, "--new-key-file", "other"]
    done = subprocess.run([sys.executable, "-c", script, *command], check=False)
    assert done.returncode == -signal.SIGKILL

    (opening,) = opens(cli, "key", "other")
    assert opening == ("other" if writes == 2 else "key")  # a torn first copy: the second is new
    Path("third").write_bytes(b"3" * 40)
    cli("key", "add", snap, "--key-file", opening, "--new-key-file", "third").ok()
    assert opens(cli, "third") == ["third"]
    assert tables(snap)[0] == tables(snap)[1]


@pytest.mark.parametrize("writes", [1, 2])
def test_killed_again_while_one_copy_is_torn(cli, snap, writes):
    """A second change that is killed leaves a copy whole, whichever the first one tore."""
    raw = bytearray(snap.read_bytes())
    raw[TABLE_AT + 100] ^= 1
    snap.write_bytes(raw)
    script = KILLED.format(writes=writes, size=4096 + 100)
    command = ["key", "add", str(snap), *KEY, "--new-key-file", "other"]
    subprocess.run([sys.executable, "-c", script, *command], check=False)

    assert opens(cli, "key") == ["key"]


def test_a_new_key_file(cli):
    """``key new`` makes a key file for its owner, another one each time, over none."""
    cli("key", "new", "one").ok()
    cli("key", "new", "two").ok()
    assert Path("one").stat().st_mode & 0o777 == 0o600
    assert Path("one").read_bytes() != Path("two").read_bytes()
    assert len(bytes.fromhex(Path("one").read_text())) == 32
    cli("key", "new", "one").fails(
        1, "one: exists already, and a key is never overwritten", lines=1
    )
    cli("save", "guest0.ram", "s.snap", "--sign", "--key-file", "one").ok()


def test_an_ssh_recipient_is_added(cli, snap):
    """A recipient is added without its private key, which opens it."""
    cli("key", "add", snap, *KEY, "--new-recipient", *words(("@ssh.pub",))).ok("ssh-ed25519")
    cli("verify", snap, "--identity", "ssh").ok("proved")
