"""``save qmp:SOCKET`` and ``libvirt:DOMAIN``: a running guest, by the way that fits it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from snapmig.container.format import Layout
from snapmig.errors import UsageError
from snapmig.guests.guest import Guest
from snapmig.guests.monitor import MonitorError
from snapmig.guests.name import Domain
from snapmig.operations.options.parse import (
    BACKGROUND,
    MAPPED_RAM,
    MULTIFD,
    SHARED,
    STREAM,
    guest_name,
)
from snapmig.operations.options.save import SaveOptions, SaveResult
from snapmig.operations.runs.save_memory import save_shared, save_through_file
from snapmig.operations.runs.save_migration import (
    UnreachableError,
    save_over_multifd,
    save_over_stream,
)
from snapmig.stores.location import Location
from snapmig.stores.opening import check_location
from snapmig.system.signals import remark

__all__ = ("save_guest",)

_WAYS = {
    SHARED: save_shared,
    MULTIFD: save_over_multifd,
    MAPPED_RAM: save_through_file,
    STREAM: save_over_stream,
}
_NEEDS_FIXED = "pages that come in any order, or again, need the fixed layout"


def save_guest(source: str | Domain, path: Location, options: SaveOptions) -> SaveResult:
    """
    Save the guest behind a monitor's socket, or of libvirt's, and let it continue.

    :raises MonitorError: QEMU's monitor can't be reached, or refused a command
    :raises UsageError: the way asked for can't be gone with this guest
    """
    check_location(path, force=options.force)
    shown = guest_name(source)
    with Guest(source, options.monitor) as guest, _remarked(guest):
        guest.check_can_be_saved()
        if options.live == BACKGROUND and guest.status != "running":
            options = options._replace(live=False)  # older QEMUs would have it run afterwards
        way = _choose_way(guest, options)
        try:
            result = _WAYS[way](guest, shown, path, options)
        except UnreachableError as error:
            if options.via is not None or options.live:
                raise
            way = MAPPED_RAM
            result = save_through_file(guest, shown, path, options)
            warning = f"QEMU can't connect to a socket of ours: {error.message}"
            result = replace(result, warnings=(warning, *result.warnings))
        return replace(result, via=way)


@contextmanager
def _remarked(guest: Guest) -> Iterator[None]:
    # By the end of the block the guest is let go.
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        with suppress(MonitorError):
            status = guest.status
            words = "runs on" if status == "running" else f"is {status} as before"
            remark(error, f"the guest {words}")
        raise


def _choose_way(guest: Guest, options: SaveOptions) -> str:
    if options.live == BACKGROUND:
        return _way_in_background(guest, options)
    problems = {SHARED: guest.unshared, MULTIFD: None, MAPPED_RAM: None}
    if options.layout != Layout.FIXED:
        problems[MULTIFD] = problems[STREAM] = _NEEDS_FIXED
    elif options.via == STREAM:
        problems[STREAM] = guest.stream_problem(background=False)
    elif options.via == MULTIFD or guest.unshared is not None:
        problems[MULTIFD] = guest.multifd_problem or (guest.live_problem if options.live else None)
    if options.live:
        problems[MAPPED_RAM] = "QEMU stops the guest for it, so it is not live"
    if options.via is not None:
        if problem := problems[options.via]:
            raise UsageError(f"the guest can't be saved via {options.via}: {problem}")
        return options.via
    way = next((way for way, problem in problems.items() if problem is None), None)
    if way is None:
        reasons = "; ".join(f"via {way}: {problem}" for way, problem in problems.items())
        raise UsageError(f"the guest can't be saved live: {reasons}")
    return way


def _way_in_background(guest: Guest, options: SaveOptions) -> str:
    if options.via not in (None, STREAM):
        message = f"the guest can't be saved in the background via {options.via}, only via {STREAM}"
        raise UsageError(message)
    problem = guest.stream_problem(background=True)
    if options.layout != Layout.FIXED:
        problem = _NEEDS_FIXED
    if problem is not None:
        raise UsageError(f"the guest can't be saved in the background: {problem}")
    return STREAM
