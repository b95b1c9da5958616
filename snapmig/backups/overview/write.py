"""``backup report``: the page, made and written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from snapmig.backups.config import Config, GuestConfig
from snapmig.backups.overview.guests import GuestState, state_of
from snapmig.backups.overview.page import ATTENTION, make_page
from snapmig.backups.progress import ShowProgress, hidden
from snapmig.backups.report import Report
from snapmig.errors import SnapmigError, UsageError
from snapmig.maps.drawing import draw
from snapmig.maps.svg import to_svg
from snapmig.operations.memory_map import memory_map
from snapmig.operations.progress import phase_reporter
from snapmig.system.files import check_destination
from snapmig.system.partial import write_file

__all__ = ("page_path", "write_page")

_MAP_CELLS = 1024


def page_path(output: Path) -> Path:
    """
    Return the file to write: ``output`` itself, or ``index.html`` in a directory.

    :raises UsageError: neither a directory nor the name of an HTML file
    """
    if output.is_dir():
        return output / "index.html"
    if output.suffix != ".html":
        message = "is neither a directory nor a name that ends in .html"
        raise UsageError(message, path=str(output))
    return output


def write_page(
    config: Config,
    guests: Sequence[GuestConfig],
    report: Report,
    *,
    output: Path,
    force: bool = False,
    maps: bool = True,
    progress: ShowProgress = hidden,
) -> None:
    """
    Write a page about guests. Those that need attention are warnings.

    :param output: the file, or a directory for ``index.html``
    :param force: replace an existing page
    :param maps: with the memory of each guest's newest snapshot, from its index
    :param progress: returns, for a guest's name, a context that gives a progress callback
    :raises UsageError: see :func:`page_path`
    :raises DestinationExistsError: the page exists and ``force`` is not set
    :raises SnapmigError: Jinja is missing
    """
    path, now = page_path(output), datetime.now().astimezone()
    check_destination(path, force=force)  # before a long look at the repository

    def look(guest: GuestConfig) -> GuestState:
        with progress(guest.name) as show:
            phase_reporter(show, "reading snapshots")(0, 0)
            return state_of(config, guest, now)

    def draw_map(guest: GuestState) -> str | None:
        with progress(guest.guest) as show:
            phase_reporter(show, "drawing memory")(0, 0)
            return _map(guest)

    found = [look(guest) for guest in guests]
    page = make_page(str(config.repository), found, now, draw_map if maps else lambda _: None)
    write_file(path, page.encode(), force=force)
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)  # it says nothing of what is in memory, and web servers are others
    for guest in found:
        if guest.state in ATTENTION:
            report.warn(_sentence(guest), guest.guest)
        report.result(guest)


def _sentence(guest: GuestState) -> str:
    if guest.state == "late":
        return f"late: its last good snapshot is older than {guest.max_age}"
    if guest.state == "none":
        return "has no snapshot that can be restored"
    return guest.problems[0]


def _map(guest: GuestState) -> str | None:
    if guest.newest is None:
        return None
    try:
        made = memory_map(guest.newest, cells=_MAP_CELLS)
    except (SnapmigError, OSError):  # removed meanwhile, or damaged: the page says that elsewhere
        return None
    return to_svg(draw(made), styled=False)
