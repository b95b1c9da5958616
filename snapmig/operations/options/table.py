"""
The options of a save, each in one place: name, type, default, help and homes.

All of them are arguments of :func:`snapmig.save`, which adds :data:`API_ONLY`. The options of the
command line and the keys of TOML files are made from the entries here, and tests compare them with
the signature and with the tables in ``docs``. A new option is an entry, and the code for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from snapmig.architectures import ARCHITECTURES
from snapmig.container.format import Layout
from snapmig.encodings.compressions import COMPRESSIONS
from snapmig.encodings.engines import ENGINES
from snapmig.errors import UsageError
from snapmig.guests.limits import parse_live_limits
from snapmig.guests.wait import parse_monitor_timeout
from snapmig.operations.options.addresses import parse_addresses
from snapmig.operations.options.names import LiveName
from snapmig.operations.options.parse import (
    BACKGROUND,
    WAYS,
    WINDOWS,
    parse_packet_size,
    parse_rate,
)

__all__ = (
    "API_ONLY",
    "GENERAL",
    "GROUPS",
    "GUEST",
    "OPTIONS",
    "OUTPUT",
    "TUNING",
    "SaveOption",
    "file_fields",
    "names_in",
)

API_ONLY = ("workers", "progress", "notice")
"""Arguments of :func:`snapmig.save` for callers from Python: objects and callbacks."""

GENERAL, GUEST, OUTPUT, TUNING = (
    "options",
    "image, guest and parents",
    "output and progress",
    "tuning and hardware",
)
GROUPS = (GENERAL, GUEST, OUTPUT, TUNING)
"""Headings of the help, in this order."""


class SaveOption(NamedTuple):
    """
    An option of a save.

    :ivar name: as an argument and as a key; with hyphens on the command line
    :ivar kind: type of the value in a TOML file, and in Python
    :ivar group: heading in the help
    :ivar help: without the default
    :ivar tables: TOML tables with this key: ``save``, ``restore`` and ``defaults`` of a batch,
        ``backup`` for ``[save]`` of a backup configuration
    :ivar default: of the Python argument and of the command line
    :ivar shown: the default in words
    :ivar parse: check and conversion of the argument on the command line
    :ivar flags: names on the command line besides ``--name``
    :ivar values: further values of an option without an argument, each with its help, given as
        ``--name=VALUE``
    """

    name: str
    kind: Any
    group: str
    help: str
    tables: str
    default: Any = None
    shown: str = ""
    metavar: str | None = None
    choices: Iterable[str] | None = None
    parse: Callable[[str], Any] | None = None
    flags: tuple[str, ...] = ()
    values: Mapping[str, str] = {}


def _parse_address(text: str) -> str:
    parse_addresses([text])
    return text


def _parse_attachment(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not name or not equals or not path:
        raise UsageError(f"{text!r} is not NAME=FILE")
    return name, path


_ENTRIES = (
    SaveOption(
        "parent", str, GENERAL, "an older snapshot: store only the changes since then",
        "save defaults", metavar="OLDER",
    ),
    SaveOption(
        "compression", str, GENERAL, "zlib, zstd, lz4 or none", "save defaults backup",
        default="zlib", shown="zlib", metavar="NAME", choices=COMPRESSIONS,
    ),
    SaveOption(
        "level", int | str, GENERAL,
        "zlib 0 to 9, zstd -7 to 19, lz4 1 to 12, or auto",
        "save defaults backup", shown="1", metavar="N",
    ),
    SaveOption(
        "jobs", int, GENERAL, "worker processes", "backup", metavar="N", flags=("-j",)
    ),
    SaveOption(
        "force", bool, GENERAL, "replace an existing SNAPSHOT", "save restore defaults",
        default=False, flags=("-f",),
    ),
    SaveOption(
        "live", bool | LiveName, GENERAL, "save while the guest runs, pause it only briefly",
        "save defaults backup", default=False,
        values={BACKGROUND: "the same, as the guest is at the start"},
    ),
    SaveOption(
        "attach", dict[str, str], GENERAL, "keep a file in the snapshot; may be repeated",
        "save defaults", metavar="NAME=FILE", parse=_parse_attachment,
    ),
    SaveOption(
        "format", str, GUEST, "format of IMAGE", "save restore", shown="by content",
        metavar="FORMAT",
    ),
    SaveOption(
        "base", list[str], GUEST, "the file that IMAGE, a Firecracker diff, builds on", "save",
        default=(), metavar="FILE",
    ),
    SaveOption(
        "address", dict[str, int | str], GUEST, "guest physical address of BLOCK[@OFFSET]",
        "save restore", default=(), metavar="BLOCK=GPA", parse=_parse_address,
    ),
    SaveOption(
        "arch", str, GUEST, "architecture of the guest, such as aarch64", "save restore",
        metavar="NAME", choices=ARCHITECTURES,
    ),
    SaveOption(
        "via", str, GUEST, "shared, multifd, mapped-ram or stream",
        "save defaults backup", shown="auto", metavar="WAY", choices=WAYS,
    ),
    SaveOption(
        "max_downtime", float, GUEST, "longest pause of a live save via multifd",
        "save defaults backup", shown="300", metavar="MS",
        parse=lambda text: parse_live_limits(text, None).downtime_ms,
    ),
    SaveOption(
        "pause_after", float, GUEST, "pause it then, though much is left to save",
        "save defaults backup", shown="300", metavar="S",
        parse=lambda text: parse_live_limits(None, text).pause_after_s,
    ),
    SaveOption(
        "monitor_timeout", float, GUEST, "seconds to wait for answers of QEMU", "backup",
        shown="30", metavar="S", parse=parse_monitor_timeout,
    ),
    SaveOption(
        "follow_remote_parents", bool, GUEST, "find parents anywhere, not just beside or below",
        "save restore defaults", default=False,
    ),
    SaveOption(
        "share", str, OUTPUT, "save part K of N (docs/cluster.md); then commit", "save",
        metavar="K/N",
    ),
    SaveOption(
        "bwlimit", str | int, OUTPUT, "write at most RATE bytes per second, like 200M", "",
        metavar="RATE", parse=parse_rate,
    ),
    SaveOption(
        "layout", str, TUNING, "fixed (sparse file) or packed, for s3://",
        "save defaults backup", shown="fixed", metavar="KIND",
        choices=tuple(kind.name.lower() for kind in Layout),
    ),
    SaveOption(
        "packet_size", int | str, TUNING, "64K to 4M of RAM at once",
        "save defaults backup", shown="512K, or as OLDER", metavar="SIZE", parse=parse_packet_size,
    ),
    SaveOption(
        "page_digests", bool, TUNING, "for faster later saves; --no-page-digests",
        "save defaults backup", shown="as OLDER",
    ),
    SaveOption(
        "deltas", bool, TUNING, "store differences within pages; --no-deltas",
        "save defaults backup", shown="auto",
    ),
    SaveOption(
        "accelerator", str, TUNING, 'zlib engine, see "snapmig accelerators"',
        "save restore defaults backup", default="auto", shown="auto", metavar="NAME",
        choices=("auto", *ENGINES),
    ),
    SaveOption(
        "depth", int, TUNING, "packets in flight per worker, for hardware",
        "save restore defaults backup", metavar="N",
    ),
    SaveOption(
        "window", str, TUNING, "zlib history: 32k, or 4k for hardware decoders",
        "save defaults backup", shown="32k", metavar="SIZE", choices=WINDOWS,
    ),
    SaveOption(
        "huffman", str, TUNING, "qpl code tables: dynamic, fixed, trained",
        "save defaults backup", default="dynamic", shown="dynamic", metavar="KIND",
        choices=("dynamic", "fixed", "trained"),
    ),
)  # fmt: skip

OPTIONS = {option.name: option for option in _ENTRIES}
"""By name, in the order of the help."""


def names_in(table: str) -> list[str]:
    """Return the keys of a TOML table, as :class:`SaveOption` names it."""
    return [option.name for option in _ENTRIES if table in option.tables.split()]


def file_fields(table: str) -> list[tuple[str, Any, Any]]:
    """Return the fields of a TOML table for ``msgspec.defstruct``, None where not given."""
    return [(name, OPTIONS[name].kind | None, None) for name in names_in(table)]
