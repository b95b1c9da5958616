"""
Code that runs in a Dask worker: one snapmig in a process of its own.

Its messages are plain dictionaries, because they travel to the client as Dask events.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from snapmig.system.children import run_child

__all__ = ("GRACE_S", "run_snapmig")

GRACE_S = 55.0
"""Seconds for a cancelled snapmig to let its guest go and to clean up."""


def run_snapmig(
    arguments: Sequence[str], progress: Callable[[dict[str, Any]], None], wanted: Callable[[], bool]
) -> dict[str, Any]:
    """
    Run ``snapmig`` and return its outcome: ``code``, ``result``, ``message``.

    The process gets SIGTERM when the calling thread ends for any reason.

    :param arguments: the command line, with ``--json`` and ``--progress json``
    :param progress: called with each line of progress
    :param wanted: returns False once the run is given up
    """
    failure: dict[str, Any] = {}

    def take(line: str) -> bool:
        content = _parse(line)
        kind = content.get("message_type")
        if kind == "progress":
            progress(content)
        elif kind == "error":
            failure.update(content)
        return kind in ("progress", "error")

    program = [sys.executable, "-m", "snapmig.commands.remote", str(os.getpid()), *arguments]
    try:
        ended = run_child(program, take, wanted, grace_s=GRACE_S)
    except OSError as error:
        return {"code": 1, "result": None, "message": f"snapmig can't be started: {error}"}
    lines = ended.output.splitlines()
    result = (_parse(lines[-1]) or None) if ended.code >= 0 and lines else None
    message = failure.get("message")
    if ended.code < 0:
        message = f"snapmig was ended by signal {-ended.code}"
    elif message is None and ended.errors:
        message = ended.errors[-1]
    return {"code": ended.code, "result": result, "message": message}


def _parse(line: str) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
