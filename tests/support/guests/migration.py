"""Guest states saved to files and loaded by QEMU itself, and memory dumps."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qemu.qmp import QMPError

from tests.support.guests.qemu import Guest, GuestError
from tests.support.processes import wait_for

EVENTS = "events"
MULTIFD = "multifd"
MAPPED_RAM = "mapped-ram"
IGNORE_SHARED = "x-ignore-shared"
FILE_SINCE = (8, 2)
"""The first QEMU with ``file:``."""
SECONDS = 60.0
POLL_SECONDS = 0.02
EVENT_SECONDS = 1.0
INTERRUPTED_SECONDS = 2.0
"""Ticks of the tiny guest's timer come every 55 ms; at 2 MiB/s a packet takes 0.25 s."""
LINES = 3
STARTED = "setup"
ENDED = ("completed", "failed", "cancelled")


class MigrationError(GuestError):
    """QEMU did not save or load a guest."""


def wait_served(guest: Guest) -> None:
    """
    Wait until a guest runs by postcopy, and has what it needs to be interrupted.

    An emulated processor that takes an interrupt holds the lock of QEMU's monitor. If the stack has
    not come, and the source is killed now, that monitor answers nobody any more.
    """
    wait_for(lambda: guest.execute("query-status")["status"] == "running")
    time.sleep(INTERRUPTED_SECONDS)


def prepare(guest: Guest, capabilities: Sequence[str] = (), **parameters: Any) -> None:
    """
    Set capabilities and parameters for one migration of a guest, with unlimited bandwidth.

    Events are always on. Names of parameters are written with `_` for `-`, as in
    `multifd_channels=2`. A loading guest needs the same settings as the saving one.
    """
    states = [{"capability": name, "state": True} for name in (EVENTS, *capabilities)]
    _ask(guest, "migrate-set-capabilities", capabilities=states)
    _ask(guest, "migrate-set-parameters", **{"max_bandwidth": 0, **parameters})


def save_to(guest: Guest, uri: str, timeout: float = SECONDS) -> dict[str, Any]:
    """
    Save a guest's state to a place such as `file:PATH`; return QEMU's report.

    A running guest runs until the last moment, and is paused afterwards. QEMU refuses to save it
    again before it has run.
    """
    _ask(guest, "migrate", uri=writable(guest, uri))
    found = _wait_end(guest, f"save to {uri}", timeout)
    _wait_finished(guest, timeout)
    return found


def load_from(guest: Guest, uri: str, timeout: float = SECONDS) -> None:
    """
    Load a state into a guest started with `-incoming defer`, and let it run.

    On failure QEMU ends, and the error has its last lines of output.
    """
    _ask(guest, "migrate-incoming", uri=_readable(guest, uri))
    wait_loaded(guest, uri, timeout)


def wait_loaded(guest: Guest, uri: str, timeout: float = SECONDS) -> None:
    """Wait until a guest has loaded what it was told to load, and let it run."""
    _wait_end(guest, f"load from {uri}", timeout)
    guest.cont()


def cancel(guest: Guest, uri: str, after: float, timeout: float = SECONDS) -> None:
    """Start to save a guest, and cancel it after some seconds."""
    _ask(guest, "migrate", uri=writable(guest, uri))
    time.sleep(after)
    _ask(guest, "migrate_cancel")
    if _wait_status(guest, uri, timeout) != "cancelled":
        raise MigrationError(f"save to {uri}: it ended before it was cancelled")


def writable(guest: Guest, uri: str) -> str:
    """Return a place to save to; an old QEMU gets a program in place of `file:PATH`."""
    if not uri.startswith("file:") or guest.version >= FILE_SINCE:
        return uri
    return f"exec:cat > {uri.removeprefix('file:')}"


def _readable(guest: Guest, uri: str) -> str:
    if not uri.startswith("file:") or guest.version >= FILE_SINCE:
        return uri
    path, _, offset = uri.removeprefix("file:").partition(",offset=")
    return f"exec:tail -c +{int(offset or 0) + 1} {path}"


def dump_memory(guest: Guest, path: Path, *, paging: bool = False) -> None:
    """Write the guest's memory as an ELF core, the guest paused; virtual addresses by `paging`."""
    _ask(guest, "dump-guest-memory", paging=paging, protocol=f"file:{path}")


def save_physical(guest: Guest, path: Path, address: int, size: int) -> None:
    """Write a range of the guest's physical memory to a file."""
    _ask(guest, "pmemsave", val=address, size=size, filename=str(path))


def monitor(guest: Guest, command: str) -> str:
    """Return the human monitor's answer to a command such as `info mtree`."""
    return str(_ask(guest, "human-monitor-command", command_line=command))


def _wait_end(guest: Guest, what: str, timeout: float) -> dict[str, Any]:
    status = _wait_status(guest, what, timeout)
    if status == "completed":
        return dict(_ask(guest, "query-migrate"))
    raise MigrationError(f"{what}: {status}: {_reason(guest)}")


def _wait_status(guest: Guest, what: str, timeout: float) -> str:
    """Wait for the end of the last migration; return its status."""
    deadline = time.monotonic() + timeout
    seen: list[str] = []
    # Events of an earlier one may still be there: nothing counts before this one's start.
    while STARTED not in seen or seen[-1] not in ENDED:
        try:
            seen.append(guest.wait_event("MIGRATION", EVENT_SECONDS)["data"]["status"])
        except GuestError:
            shown = ", ".join(seen) or "nothing"
            if not guest.is_running():
                raise MigrationError(f"{what}: QEMU ended after {shown}") from None
            if time.monotonic() > deadline:
                raise MigrationError(f"{what}: only {shown} in {timeout:g} s") from None
    return seen[-1]


def _wait_finished(guest: Guest, timeout: float) -> None:
    """Wait until QEMU, which reports a save's end early, has finished with the guest."""
    deadline = time.monotonic() + timeout
    while _ask(guest, "query-status")["status"] == "finish-migrate":
        if time.monotonic() > deadline:
            raise MigrationError(f"QEMU did not finish the migration in {timeout:g} s")
        time.sleep(POLL_SECONDS)


def _reason(guest: Guest) -> str:
    """Return the reason of a failed migration: by QMP, or QEMU's last lines if it ended."""
    try:
        reason = str(_ask(guest, "query-migrate").get("error-desc", ""))
    except MigrationError:
        reason = ""
    lines = (guest.folder / "errors").read_text("utf-8", "replace").strip().splitlines()
    return reason or " / ".join(lines[-LINES:]) or "no reason given"


def _ask(guest: Guest, command: str, **arguments: Any) -> Any:
    try:
        return guest.execute(command, **arguments)
    except QMPError as error:
        raise MigrationError(f"{command}: {error}") from error
