"""
``python -m snapmig.commands.remote PID ...``: the program, started by a worker of a cluster.

It is told to end, as by a user, when what started it is gone: then there is nobody who would.
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
    return main(arguments)


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
