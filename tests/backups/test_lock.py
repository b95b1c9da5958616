"""Facts about the lock of a guest."""

import os
import subprocess
import sys
import time

import pytest

from snapmig.backups.lock import LOCK_NAME, LockedError, locked

HOLD = """\
import sys
from pathlib import Path
from snapmig.backups.lock import locked
with locked(Path(sys.argv[1]), 0):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Give another process that holds the lock until its input ends."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", HOLD, tmp_path]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_lock_says_who_has_it(tmp_path):
    """Its file names process, host and time, while it is held."""
    with locked(tmp_path, 0):
        facts = (tmp_path / LOCK_NAME).read_text()

    assert (f'"pid": {os.getpid()}' in facts, f'"host": "{os.uname().nodename}"' in facts) == (
        True,
        True,
    )
    assert (tmp_path / LOCK_NAME).read_text() == ""


def test_a_lock_that_is_held_is_refused_with_its_holder(tmp_path, holder):
    """A run that does not get the lock names its holder, and disturbs nothing."""
    for _ in range(2):
        with (
            pytest.raises(LockedError, match=f"locked by process {holder.pid} on .* since 20"),
            locked(tmp_path, 0),
        ):
            pass

    assert LockedError.exit_code == 7


def test_a_lock_is_waited_for(tmp_path, holder):
    """A waiting run gets the lock when it is given back."""
    holder.stdin.close()
    with locked(tmp_path, 30):
        assert holder.wait(30) == 0


def test_waiting_ends(tmp_path, holder):
    """After the time that was given the refusal says how long it was."""
    started = time.monotonic()
    with (
        pytest.raises(LockedError, match=r"still so after 0\.2 s"),
        locked(tmp_path, 0.2),
    ):
        pass

    assert (time.monotonic() - started >= 0.2, holder.poll()) == (True, None)


@pytest.mark.usefixtures("tmp_path")
def test_a_killed_holder_leaves_no_lock(tmp_path, holder):
    """The lock is the kernel's: it ends with its process."""
    holder.kill()
    holder.wait(30)

    with locked(tmp_path, 0):
        assert (tmp_path / LOCK_NAME).exists()


def test_nobody_else_reads_the_lock(tmp_path):
    """The lock file is its owner's."""
    with locked(tmp_path, 0):
        assert (tmp_path / LOCK_NAME).stat().st_mode & 0o777 == 0o600
