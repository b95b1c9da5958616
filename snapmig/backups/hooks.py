"""
Programs run before a save, after it, and on failure.

Hooks are argument lists, not read by a shell; facts are in their environment. Each started
``before`` is followed by ``after`` or ``error``, even if the run is interrupted, so that the other
can undo its work.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from snapmig.errors import SnapmigError
from snapmig.system.programs import run_program

__all__ = ("HookError", "Hooks", "run_hook")


class HookError(SnapmigError):
    """A hook could not be started, failed, or took too long."""


_MAX_VALUE = 8192
_NAMES = (
    "event", "guest", "source", "repository", "snapshot", "kind", "parent", "size", "seconds",
    "error", "exit_code",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hooks:
    """Argument lists, empty for no hook; ``timeout`` is in seconds."""

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    error: tuple[str, ...] = ()
    timeout: float = 600.0


def run_hook(hooks: Hooks, event: str, facts: Mapping[str, object]) -> None:
    """
    Run the hook of an event, if any, to its end. Its output goes to standard error.

    :param event: ``before``, ``after`` or ``error``
    :param facts: environment variables, named without ``SNAPMIG_``; None is left out
    :raises HookError: it can't be started, failed or took too long
    """
    arguments: tuple[str, ...] = getattr(hooks, event)
    if not arguments:
        return
    # A run inside another run's hook does not pass on the outer run's facts.
    ours = {f"SNAPMIG_{name.upper()}" for name in _NAMES}
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    for name, value in {"event": event, **facts}.items():
        if value is not None:
            text = str(value).replace("\0", " ")[:_MAX_VALUE]
            environment[f"SNAPMIG_{name.upper()}"] = text
    try:
        run_program(list(arguments), environment, hooks.timeout)
    except SnapmigError as error:
        raise HookError(f"hook {event!r}: {error.message}") from error
