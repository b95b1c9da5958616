"""Facts about the servers that tests start."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.support.processes import all_gone, start_server, wait_for

STARTS = """\
import signal, sys
from tests.support.processes import start_server
print(start_server(["sleep", "300"], start_new_session=True).pid, flush=True)
signal.pause()
"""
ROOT = Path(__file__).parents[2]


def command_line(pid: int) -> bytes:
    """Return the command of a process, with zeros between its words."""
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_server_ends_with_a_killed_run() -> None:
    """A process that a killed one was to end is not left over."""
    command = [sys.executable, "-c", STARTS]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        server = int(run.stdout.readline())
        wait_for(lambda: command_line(server).startswith(b"sleep"))
        run.send_signal(signal.SIGKILL)

    assert all_gone([server])


def test_a_server_is_the_process_that_was_started() -> None:
    """Its process id is that of the program, for who sends it signals."""
    server = start_server(["sleep", "300"])
    try:
        wait_for(lambda: command_line(server.pid) == b"sleep\x00300\x00")
    finally:
        server.kill()

    assert server.wait() == -signal.SIGKILL
