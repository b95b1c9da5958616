"""
``python -m snapmig.commands.remote PID ...``: the program, started by a worker of a cluster.

The kernel ends it with SIGTERM, as a user would, after the death of its parent.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from snapmig.commands.main import main
from snapmig.system.libc import die_with_parent

__all__ = ("start",)


def start(words: Sequence[str]) -> int:
    """
    Run the program for a parent process.

    :param words: the parent's process id, then the program's arguments
    """
    parent, *arguments = words
    die_with_parent(signal.SIGTERM)
    if os.getppid() != int(parent):
        return 128 + signal.SIGTERM
    return main(arguments, way="force = true")  # what its people write: a batch's file


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
