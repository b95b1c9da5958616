"""Handlers of page faults, and programs in the hypervisors' places, as processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support import program
from tests.support.outcome import Outcome
from tests.support.processes import SOON_S


class Handler:
    """``snapmig daemon firecracker`` as a process."""

    def __init__(self, process: subprocess.Popen[str], socket: Path) -> None:
        self.process = process
        self.socket = socket

    @classmethod
    def start(cls, socket: Path, snapshot: object, *options: object, **more: Any) -> Handler:
        """Start one, and wait until it listens."""
        words = ("daemon", "firecracker", "--listen", socket, *options, snapshot)
        process = program.start(*words, **more)
        line = process.stderr.readline()
        assert line.startswith("snapmig: serving "), line + process.stderr.read()
        return cls(process, socket)

    def end(self) -> Outcome:
        """Wait for its end."""
        return program.end(self.process, SOON_S)


class Vmm:
    """The program in Firecracker's place."""

    def __init__(self, words: dict[str, Any]) -> None:
        command = [sys.executable, "-m", "tests.support.vmm.firecracker", json.dumps(words)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def line(self) -> str:
        """Return its next line."""
        return self.process.stdout.readline()

    def result(self) -> dict[str, Any]:
        """Return what it found."""
        line = self.line()
        return json.loads(self.line() if line == "connected\n" else line)

    def go_on(self) -> dict[str, Any]:
        """Let it go on, and return what it found then."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.result()

    def memory(self) -> int:
        """Return the bytes of memory that it has in pages of its own."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) << 10

    def ended(self) -> int:
        """Return its exit code once it has ended."""
        return self.process.wait(SOON_S)
