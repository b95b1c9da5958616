"""A server of runs under the shim, and what they are given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.crashes.scenarios import Given
from tests.crashes.shim import CHANGES, Action, Call, Control, build

ROOT = Path(__file__).parents[2]


POINTS: Counter[str] = Counter()
"""Kills, cuts and failures of this session."""


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tell how many there were."""
    for kind, count in POINTS.items():
        terminalreporter.write_line(f"{kind}: {count}")


class Ended(NamedTuple):
    """A run that has ended."""

    code: int
    out: str
    err: str
    left: int


@dataclass
class Runs:
    """Runs of the program in the folder ``work``."""

    process: subprocess.Popen[str]
    control: Control
    given: Given
    work: Path

    def run(
        self,
        words: list[object],
        action: Action = Action.NOTHING,
        at: int = 0,
        *,
        last: int = 0,
        number: int = 0,
        calls: tuple[Call, ...] = CHANGES,
        logging: bool = False,
        folder: Path | None = None,
    ) -> Ended:
        """
        Run the program; at the call ``at`` do an action.

        :param folder: to watch instead of ``work``
        """
        self.control.set(
            folder or self.work,
            at=at,
            last=last,
            action=action,
            number=number,
            calls=calls,
            logging=logging,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([str(word) for word in words]), file=self.process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.control.watch_no_more()
        return Ended(**answer)


@pytest.fixture(scope="session")
def runs() -> Iterator[Runs]:
    """Give the server."""
    with tempfile.TemporaryDirectory(prefix="snapmig-test-", dir="/dev/shm") as name:
        folder = Path(name)
        (folder / "given").mkdir()
        control = Control(folder / "control")
        environment = {
            **os.environ,
            "LD_PRELOAD": str(build(folder)),
            "SNAPMIG_SHIM": str(folder / "control"),
            "XDG_STATE_HOME": str(folder / "state"),
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-m", "tests.crashes.server", str(folder)]
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=ROOT
        ) as process:
            yield Runs(process, control, Given(folder / "given"), folder / "work")
            process.stdin.close()
