"""QEMU's capabilities and parameters for a migration: set for one, then restored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from snapmig.guests.answers import Capabilities, YankInstances
from snapmig.guests.monitor import Monitor, MonitorError
from snapmig.guests.watch import POLL_S, migration_of

__all__ = (
    "BACKGROUND",
    "POSTCOPY",
    "Commands",
    "capabilities",
    "cleanup",
    "known_capabilities",
    "parameters",
    "settings_now",
    "switched_off_after",
    "wait_for_cleanup",
)

Commands = list[tuple[str, dict[str, Any]]]
"""Monitor commands, each with its arguments."""

_CLEANUP_S = 30.0
_SETUP_S = 1.0
_EVENTS = "events"
"""Capability that libvirt sets once, when a domain starts, and relies on; it only tells."""

BACKGROUND = "background-snapshot"
"""The capability to send the guest as it is at the start, while it runs on."""

POSTCOPY = "postcopy-ram"
"""The capability to run a guest before its memory has come."""

_CAPABILITIES = (
    "x-ignore-shared",
    "mapped-ram",
    "multifd",
    "return-path",
    "auto-converge",
    BACKGROUND,
)
_PARAMETERS = (
    "multifd-channels",
    "multifd-compression",
    "direct-io",
    "max-bandwidth",
    "downtime-limit",
    "zero-page-detection",
)


def known_capabilities(monitor: Monitor) -> dict[str, bool]:
    """Return the capabilities of this QEMU, each with True if it is on."""
    listed = monitor.ask(Capabilities, "query-migrate-capabilities")
    return {item.capability: item.state for item in listed}


def settings_now(monitor: Monitor) -> Commands:
    """Return the commands to restore the current settings changed by our migrations."""
    known = known_capabilities(monitor)
    states = {name: on for name, on in known.items() if on or name in _CAPABILITIES}
    values = _known_parameters(monitor)
    return [
        ("migrate-set-capabilities", {"capabilities": _listed(states)}),
        ("migrate-set-parameters", {key: values[key] for key in _PARAMETERS if key in values}),
    ]


@contextmanager
def capabilities(monitor: Monitor, *names: str) -> Iterator[None]:
    """
    Have these capabilities on, and all others off, inside the block.

    :raises MonitorError: QEMU lacks one of them
    """
    known = known_capabilities(monitor)
    if missing := [name for name in names if name not in known]:
        message = f"this QEMU has no migration capability {missing[0]}"
        raise MonitorError(message, path=monitor.path)
    changed = [name for name in known if (known[name] and name != _EVENTS) or name in names]
    _set(monitor, {name: name in names for name in changed})
    try:
        yield
    finally:
        with suppress(MonitorError):  # QEMU may have gone; its own reason matters more
            wait_for_cleanup(monitor)
            _set(monitor, {name: known[name] for name in changed})


@contextmanager
def switched_off_after(monitor: Monitor, name: str) -> Iterator[None]:
    """Have a capability that is on off after the block, unless the guest still needs it."""
    try:
        yield
    finally:
        with suppress(MonitorError):
            wait_for_cleanup(monitor)
            _set(monitor, {name: False})


@contextmanager
def parameters(monitor: Monitor, wanted: Mapping[str, object]) -> Iterator[None]:
    """Set these parameters, as far as this QEMU has them, inside the block."""
    known = _known_parameters(monitor)
    changed = {name: value for name, value in wanted.items() if name in known}
    monitor.execute("migrate-set-parameters", **changed)
    try:
        yield
    finally:
        with suppress(MonitorError):
            wait_for_cleanup(monitor)
            monitor.execute("migrate-set-parameters", **{name: known[name] for name in changed})


def wait_for_cleanup(monitor: Monitor) -> None:
    """
    Wait until QEMU is done with a migration that has ended, so that settings may be put back.

    A migration has failed, or is complete, a moment before QEMU ends its channels, and for that
    QEMU reads the settings again. If they have changed it ends channels that it never had, or none:
    assertions fail (seen with 10.0 and 11.1), and the guest is lost. The registration of the
    migration in ``query-yank`` is the last to go.

    :raises MonitorError: it takes too long, the migration is only being set up, or the guest still
        waits for memory
    """
    if (state := migration_of(monitor).status).startswith("postcopy-"):
        message = f"the guest still waits for memory ({state}), and needs the settings for that"
        raise MonitorError(message, path=monitor.path)
    started = time.monotonic()
    while _lists_migration(monitor.ask(YankInstances, "query-yank")):
        # One that is still to come in is set up as long as its source likes.
        limit = _SETUP_S if migration_of(monitor).status == "setup" else _CLEANUP_S
        if time.monotonic() - started > limit:
            message = f"QEMU has not cleaned up after its migration in {limit:g} s"
            raise MonitorError(message, path=monitor.path)
        time.sleep(POLL_S)


def cleanup(monitor: Monitor) -> Callable[[], bool]:
    """
    Return a function for the same without waiting: True once QEMU is done, or has gone.

    QEMU does not answer while it ends a channel with something on its way.
    """
    look = monitor.begin(YankInstances, "query-yank")

    def is_done() -> bool:
        nonlocal look
        try:
            listed = look()
            if listed is not None and _lists_migration(listed):
                look, listed = monitor.begin(YankInstances, "query-yank"), None
        except MonitorError:
            return True
        return listed is not None

    return is_done


def _lists_migration(listed: YankInstances) -> bool:
    return any(each.type == "migration" for each in listed)


def _known_parameters(monitor: Monitor) -> dict[str, Any]:
    return monitor.ask(dict[str, Any], "query-migrate-parameters")


def _set(monitor: Monitor, states: Mapping[str, bool]) -> None:
    monitor.execute("migrate-set-capabilities", capabilities=_listed(states))


def _listed(states: Mapping[str, bool]) -> list[dict[str, Any]]:
    # Off before on: some exclude each other.
    ordered = sorted(states.items(), key=lambda item: item[1])
    return [{"capability": name, "state": state} for name, state in ordered]
