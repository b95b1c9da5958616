"""QEMU's capabilities and parameters of a migration, set for one and then as before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from snapmig.guests.monitor import Monitor, MonitorError

__all__ = ("capabilities", "known_capabilities", "parameters")


def known_capabilities(monitor: Monitor) -> dict[str, bool]:
    """Return the capabilities that this QEMU has, and whether each is on."""
    listed = monitor.execute("query-migrate-capabilities")
    return {item["capability"]: bool(item["state"]) for item in listed}


@contextmanager
def capabilities(monitor: Monitor, *names: str) -> Iterator[None]:
    """
    Have these capabilities on, and all others off, inside.

    :raises MonitorError: QEMU does not have one of them
    """
    known = known_capabilities(monitor)
    if missing := [name for name in names if name not in known]:
        message = f"this QEMU has no migration capability {missing[0]}"
        raise MonitorError(message, path=monitor.path)
    changed = [name for name in known if known[name] or name in names]
    _set(monitor, {name: name in names for name in changed})
    try:
        yield
    finally:
        with suppress(MonitorError):  # QEMU may have gone; its own reason matters more
            _set(monitor, {name: known[name] for name in changed})


@contextmanager
def parameters(monitor: Monitor, wanted: Mapping[str, object]) -> Iterator[None]:
    """Have these parameters, of those that this QEMU has, inside."""
    known = monitor.execute("query-migrate-parameters")
    changed = {name: value for name, value in wanted.items() if name in known}
    monitor.execute("migrate-set-parameters", **changed)
    try:
        yield
    finally:
        with suppress(MonitorError):
            monitor.execute("migrate-set-parameters", **{name: known[name] for name in changed})


def _set(monitor: Monitor, states: Mapping[str, bool]) -> None:
    # Off before on: some exclude each other.
    ordered = sorted(states.items(), key=lambda item: item[1])
    listed = [{"capability": name, "state": state} for name, state in ordered]
    monitor.execute("migrate-set-capabilities", capabilities=listed)
