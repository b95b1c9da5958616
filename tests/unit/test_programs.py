"""Facts about running other programs."""

import os
import signal
import subprocess
import sys

import pytest

from snapmig.system import programs
from snapmig.system.programs import ProgramError, run_program
from tests.support.processes import all_gone, wait_for

ENVIRONMENT = {"PATH": os.environ["PATH"], "FACT": "a b"}


def shell(script, timeout=60.0):
    """Run a shell's script."""
    run_program(["sh", "-c", script], ENVIRONMENT, timeout)


def test_arguments_arrive_as_they_are(tmp_path):
    """No shell reads a program's arguments."""
    run_program(["touch", str(tmp_path / "a b;$HOME")], ENVIRONMENT, 60)

    assert [path.name for path in tmp_path.iterdir()] == ["a b;$HOME"]


def test_the_environment_is_what_was_given(tmp_path):
    """A program sees the facts that it is given."""
    shell(f'printf "$FACT" > {tmp_path}/fact')

    assert (tmp_path / "fact").read_text() == "a b"


def test_output_goes_to_standard_error(capfd):
    """Output of a program is not mixed into our results."""
    shell("echo out; echo err >&2")

    assert capfd.readouterr() == ("", "out\nerr\n")


def test_there_is_nothing_to_read():
    """A program that reads its input finds its end, and does not wait for a person."""
    shell("! read line")


def test_an_exit_status_is_an_error():
    """A program that fails is named with its status."""
    with pytest.raises(ProgramError, match="sh failed: exit status 3"):
        shell("exit 3")


def test_an_end_by_a_signal_is_an_error():
    """A program that was killed is named with the signal."""
    with pytest.raises(ProgramError, match="sh was ended by SIGKILL"):
        shell("kill -9 $$")


@pytest.mark.parametrize(
    ("name", "reason"), [("/none", "No such file or directory"), ("/etc", "Permission denied")]
)
def test_what_can_not_be_started_is_an_error(name, reason):
    """The system's reason is in the sentence."""
    with pytest.raises(ProgramError, match=f"{name} can't be started: {reason}"):
        run_program([name], ENVIRONMENT, 60)


def test_a_program_that_takes_too_long_is_ended(tmp_path):
    """After its time a program is ended with all that it started, and can clean up."""
    script = f"trap 'echo undone > {tmp_path}/end; exit' TERM; sleep 300 & echo $! > {tmp_path}/pid"
    with pytest.raises(ProgramError, match=r"sh took longer than 2 s"):
        shell(f"{script}; wait", 2)

    assert (tmp_path / "end").read_text() == "undone\n"
    assert all_gone([int((tmp_path / "pid").read_text())])


def test_a_program_that_will_not_end_is_killed(tmp_path, monkeypatch):
    """SIGTERM is asked politely and SIGKILL follows."""
    monkeypatch.setattr("snapmig.system.programs._GRACE_S", 0.1)
    with pytest.raises(ProgramError, match="took longer"):
        shell(f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 1; done", 2)

    assert all_gone([int((tmp_path / "pid").read_text())])


def test_a_program_can_be_ended_while_our_signals_wait():
    """A program is not born with the signals blocked that we block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        # Not a shell, which may unblock signals itself.
        script = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
        with pytest.raises(ProgramError, match="was ended by SIGTERM"):
            run_program([sys.executable, "-c", script], ENVIRONMENT, 60)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


LEAVE = """\
import signal, sys
from snapmig.system import programs
from snapmig.system.programs import run_program
def leave(*_): raise SystemExit(9)
signal.signal(signal.SIGTERM, leave)
run_program(["sh", "-c", "sleep 300 & echo $$ $! > " + sys.argv[1] + "; wait"], {}, 300)
"""


def test_a_program_ends_with_whoever_leaves(tmp_path):
    """An exception of a signal handler ends the program too."""
    path = tmp_path / "pids"
    process = subprocess.Popen([sys.executable, "-c", LEAVE, path])
    wait_for(lambda: path.exists() and path.read_text().endswith("\n"))
    pids = [int(pid) for pid in path.read_text().split()]
    process.send_signal(signal.SIGTERM)

    assert (process.wait(30), all_gone(pids)) == (9, True)


def test_a_signal_just_after_the_start_ends_a_program(monkeypatch):
    """It may come before the number of the process is known here, and waits until it is."""
    spawn, started = programs._spawn, []

    def spawn_and_be_told(*arguments):
        started.append(spawn(*arguments))
        os.kill(os.getpid(), signal.SIGTERM)
        return started[0]

    def leave(*_):
        raise InterruptedError("told to end")

    before = signal.signal(signal.SIGTERM, leave)
    monkeypatch.setattr(programs, "_spawn", spawn_and_be_told)
    try:
        with pytest.raises(InterruptedError, match="told to end"):
            shell("sleep 300")
    finally:
        signal.signal(signal.SIGTERM, before)

    assert all_gone(started)


def test_a_program_does_not_keep_our_files(tmp_path):
    """Descriptors of ours, such as a lock, are not the program's."""
    with (tmp_path / "file").open("w"):
        shell(f"ls -l /proc/self/fd > {tmp_path}/fds")

    assert str(tmp_path / "file") not in (tmp_path / "fds").read_text()
