"""The page: one HTML document without anything from elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from importlib.resources import files
from typing import Any

from snapmig.backups.overview.guests import GuestState
from snapmig.backups.overview.timeline import timeline
from snapmig.errors import SnapmigError
from snapmig.maps.svg import style
from snapmig.printable import printable
from snapmig.units import format_size
from snapmig.version import __version__

__all__ = ("ATTENTION", "make_page")

ATTENTION = ("late", "damaged", "none", "unknown")
"""States of guests for somebody to look at."""


def make_page(
    repository: str,
    guests: Sequence[GuestState],
    now: datetime,
    draw_map: Callable[[GuestState], str | None],
) -> str:
    """
    Return the document.

    :param draw_map: returns the map of a guest's newest snapshot as SVG, None without one
    :raises SnapmigError: Jinja is missing
    """
    try:
        import jinja2  # noqa: PLC0415 - an extra
        import markupsafe  # noqa: PLC0415 - a part of it
    except ImportError as error:
        message = "reports need the Python package Jinja2: pip install 'snapmig[report]'"
        raise SnapmigError(message) from error
    # Names come from whoever can write to the repository: every value is escaped, unless marked.
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        size=format_size, shown=printable, age=_age, minute=lambda time: f"{time:%Y-%m-%d %H:%M}"
    )
    own = files("snapmig.backups.overview")
    read = {name: own.joinpath(name).read_text("utf-8") for name in _FILES}
    marked: Any = markupsafe.Markup
    maps = {guest.guest: drawn for guest in guests if (drawn := draw_map(guest)) is not None}
    return environment.from_string(read["page.html"]).render(
        repository=repository,
        guests=guests,
        now=now,
        version=__version__,
        counts=Counter(guest.state for guest in guests),
        attention=ATTENTION,
        timelines={guest.guest: timeline(guest.snapshots, now) for guest in guests},
        maps={name: marked(drawn) for name, drawn in maps.items()},
        style=marked(read["page.css"] + style()),
        script=marked(read["page.js"]),
    )


_FILES = ("page.html", "page.css", "page.js")


def _age(age: Any) -> str:
    if age is None:
        return "never"
    seconds = int(age.total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return "now"
