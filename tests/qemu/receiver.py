"""The program ``snapmig receive`` while it waits for a migration."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support import program as snapmig_program
from tests.support.outcome import Outcome

WAITING = re.compile(r"waiting for a migration at (\S+), with")
END_S = 60


@dataclass
class Receiver:
    """
    A running ``snapmig receive``.

    :ivar address: where it listens
    """

    process: subprocess.Popen[str]
    address: str

    def end(self, timeout: float = END_S) -> Outcome:
        """Return its end."""
        return snapmig_program.end(self.process, timeout=timeout)


@contextmanager
def receiving(
    listen: str, snapshot: Path, *options: object, before: Sequence[str] = ()
) -> Iterator[Receiver]:
    """Start the program, and wait until it listens."""
    command = [*before, *snapmig_program.PROGRAM, "receive", "--listen", listen, snapshot, *options]
    process = subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=snapmig_program.ENVIRONMENT,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = WAITING.search(line)
        assert found, f"it says {line!r}"
        yield Receiver(process, found[1])
    finally:
        process.kill()
        process.communicate()
