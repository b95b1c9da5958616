"""
The options of saves and restores, each in one place: name, type, default, help and homes.

All of them are arguments of :func:`snapmig.save` or :func:`snapmig.restore`, which add
:data:`API_ONLY`. The options of the command line and the keys of TOML files are made from the
entries here, and tests compare them with the signatures and with the tables in ``docs``. A new
option is an entry, and the code for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from snapmig.architectures import ARCHITECTURES
from snapmig.container.format import Layout
from snapmig.encodings.compressions import AUTO_COMPRESSION, COMPRESSIONS
from snapmig.encodings.engines import ENGINES
from snapmig.errors import UsageError
from snapmig.guests.limits import parse_live_limits
from snapmig.guests.wait import parse_monitor_timeout
from snapmig.operations.options.addresses import parse_addresses
from snapmig.operations.options.parse import (
    BACKGROUND,
    WAYS_OUT,
    WINDOWS,
    WIRES,
    LiveName,
    parse_packet_size,
    parse_rate,
)

__all__ = (
    "API_ONLY",
    "GENERAL",
    "GROUPS",
    "GUEST",
    "KEYS",
    "OPTIONS",
    "OUTPUT",
    "TUNING",
    "Option",
    "file_fields",
    "names_in",
    "options_of",
)

API_ONLY = ("keys", "workers", "progress", "notice")
"""Further arguments of both, for callers from Python: objects and callbacks."""

GENERAL, GUEST, KEYS, OUTPUT, TUNING = (
    "options",
    "image, guest and parents",
    "encryption and keys",
    "output and progress",
    "tuning and hardware",
)
GROUPS = (GENERAL, GUEST, KEYS, OUTPUT, TUNING)
"""Headings of the help, in this order."""


class Option(NamedTuple):
    """
    An option of a save, a restore, or both.

    :ivar name: as an argument and as a key; with hyphens on the command line
    :ivar kind: type of the value in a TOML file, and in Python
    :ivar group: heading in the help
    :ivar help: without the default
    :ivar tables: TOML tables with this key: ``save``, ``restore`` and ``defaults`` of a batch,
        ``backup`` for ``[save]`` of a backup configuration
    :ivar verbs: ``save`` and ``restore``, as far as they have it; ``keys``: a part of the argument
        ``keys`` of all verbs with snapshots
    :ivar default: of the Python argument and of the command line
    :ivar default_text: the default in words
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
    verbs: str = "save"
    default: Any = None
    default_text: str = ""
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


_BOTH = "save restore"

_ENTRIES = (
    Option(
        "parent", str, GENERAL, "an older snapshot: store only the changes since then",
        "save defaults", metavar="OLDER",
    ),
    Option(
        "compression", str, GENERAL, "zlib, zstd, lz4, none, or auto",
        "save defaults backup", default="zlib", default_text="zlib", metavar="NAME",
        choices=(*COMPRESSIONS, AUTO_COMPRESSION),
    ),
    Option(
        "level", int | str, GENERAL,
        "zlib 0 to 9, zstd -7 to 19, lz4 1 to 12, or auto",
        "save defaults backup", default_text="1", metavar="N",
    ),
    Option(
        "jobs", int, GENERAL, "worker processes", "backup", verbs=_BOTH, metavar="N", flags=("-j",)
    ),
    Option(
        "force", bool, GENERAL, "replace an existing SNAPSHOT", "save restore defaults",
        verbs=_BOTH, default=False, flags=("-f",),
    ),
    Option(
        "resume", bool, GENERAL, "go on with an interrupted run, now and later",
        "save restore defaults", verbs=_BOTH, default=False,
    ),
    Option(
        "in_place", bool, GENERAL,
        "fill an existing IMAGE, which may be mapped",
        "restore", verbs="restore", default=False,
    ),
    Option(
        "for_qemu", bool, GENERAL,
        "make IMAGE a directory, and print the commands that\n"
        "resume the guest from it",
        "restore", verbs="restore", default=False,
    ),
    Option(
        "lazy", bool, GENERAL,
        "the same from a mount: no page is restored before",
        "", verbs="restore", default=False,
    ),
    Option(
        "keep_going", bool, GENERAL,
        "go past damage: zeros in place of what is lost",
        "restore", verbs="restore", default=False,
    ),
    Option(
        "block", str, GENERAL, "only this RAM block", "restore", verbs="restore",
        default_text="all, in order", metavar="NAME",
    ),
    Option(
        "live", bool | LiveName, GENERAL, "save while the guest runs, pause it only briefly",
        "save defaults backup", default=False,
        values={BACKGROUND: "the same, as the guest is at the start"},
    ),
    Option(
        "attach", dict[str, str], GENERAL, "keep a file in the snapshot; may be repeated",
        "save defaults", metavar="NAME=FILE", parse=_parse_attachment,
    ),
    Option(
        "format", str, GUEST, "format of IMAGE", "save restore", verbs=_BOTH,
        default_text="by content", metavar="FORMAT",
    ),
    Option(
        "base", list[str], GUEST, "the file that IMAGE, a Firecracker diff, builds on", "save",
        default=(), metavar="FILE",
    ),
    Option(
        "qcow2_snapshot", str, GUEST, "savevm snapshot in IMAGE, a qcow2: name or ID",
        "save", metavar="NAME",
    ),
    Option(
        "address", dict[str, int | str], GUEST, "guest physical address of BLOCK[@OFFSET]",
        "save restore", verbs=_BOTH, default=(), metavar="BLOCK=GPA", parse=_parse_address,
    ),
    Option(
        "arch", str, GUEST, "architecture of the guest, such as aarch64", "save restore",
        verbs=_BOTH, metavar="NAME", choices=ARCHITECTURES,
    ),
    Option(
        "connect", str, GUEST, "libvirt's, like qemu:///system",
        "save defaults backup", metavar="URI",
    ),
    Option(
        "domain_xml", str, GUEST, "domain definition for --format libvirt", "",
        verbs="restore", default_text="the\nattachment domain.xml", metavar="FILE",
    ),
    Option(
        "via", str, GUEST, "shared, multifd, mapped-ram or stream",
        "save restore defaults backup", verbs=_BOTH, default_text="auto", metavar="WAY",
        choices=WAYS_OUT,
    ),
    Option(
        "wire", str, GUEST, "form of pages sent via multifd: none, zstd or zlib", "restore",
        verbs="restore", default_text="auto: none", metavar="FORM", choices=WIRES,
    ),
    Option(
        "postcopy", bool, GUEST,
        "run the guest at once and send its memory meanwhile;\n"
        "until that ends it depends on this process",
        "restore", verbs="restore", default=False,
    ),
    Option(
        "working_set", str, GUEST,
        "what it asks for: kept, or sent before it runs",
        "restore", verbs="restore", metavar="FILE",
    ),
    Option(
        "max_downtime", float, GUEST, "longest pause of a live save via multifd",
        "save defaults backup", default_text="300", metavar="MS",
        parse=lambda text: parse_live_limits(text, None).downtime_ms,
    ),
    Option(
        "pause_after", float, GUEST, "pause it then, though much is left to save",
        "save defaults backup", default_text="300", metavar="S",
        parse=lambda text: parse_live_limits(None, text).pause_after_s,
    ),
    Option(
        "monitor_timeout", float, GUEST, "seconds to wait for answers of QEMU", "backup",
        verbs=_BOTH, default_text="30", metavar="S", parse=parse_monitor_timeout,
    ),
    Option(
        "follow_remote_parents", bool, GUEST, "find parents anywhere, not just beside or below",
        "save restore defaults", verbs=_BOTH, default=False,
    ),
    Option(
        "encrypt", bool, KEYS, "let only those with a key read it", "save defaults backup",
        default=False,
    ),
    Option(
        "sign", bool, KEYS, "let those with a key see that nothing was changed",
        "save defaults backup", default=False,
    ),
    Option(
        "mixed_chain", bool, KEYS, "allow a parent that is sealed in another way",
        "save defaults backup", default=False,
    ),
    Option(
        "passphrase_file", str, KEYS, "a file with a passphrase",
        "save restore defaults backup", verbs="keys", metavar="FILE",
    ),
    Option(
        "passphrase_command", str, KEYS, "a shell command that prints one",
        "save restore defaults backup", verbs="keys", metavar="CMD",
    ),
    Option(
        "key_file", list[str], KEYS, "a file of 32 random bytes or more",
        "save restore defaults backup", verbs="keys", default=(), metavar="FILE",
    ),
    Option(
        "identity", list[str], KEYS, "a file with age identities, to open",
        "save restore defaults backup", verbs="keys", default=(), metavar="FILE",
    ),
    Option(
        "recipient", list[str], KEYS, "an age recipient, to lock for",
        "save defaults backup", verbs="keys", default=(), metavar="AGE",
    ),
    Option(
        "share", str, OUTPUT, "save part K of N (docs/cluster.md); then commit", "save",
        metavar="K/N",
    ),
    Option(
        "bwlimit", str | int, OUTPUT, "write at most RATE bytes per second, like 200M", "",
        verbs=_BOTH, metavar="RATE", parse=parse_rate,
    ),
    Option(
        "layout", str, TUNING, "fixed (sparse file) or packed, for s3://",
        "save defaults backup", default_text="fixed", metavar="KIND",
        choices=tuple(kind.name.lower() for kind in Layout),
    ),
    Option(
        "packet_size", int | str, TUNING, "64K to 4M of RAM at once",
        "save defaults backup", default_text="512K, or as OLDER", metavar="SIZE",
        parse=parse_packet_size,
    ),
    Option(
        "page_digests", bool, TUNING, "for faster later saves; --no-page-digests",
        "save defaults backup", default=True, default_text="kept",
    ),
    Option(
        "deltas", bool, TUNING, "store differences within pages; --no-deltas",
        "save defaults backup", default_text="auto",
    ),
    Option(
        "accelerator", str, TUNING, 'zlib engine, see "snapmig accelerators"',
        "save restore defaults backup", verbs=_BOTH, default="auto", default_text="auto",
        metavar="NAME", choices=("auto", *ENGINES),
    ),
    Option(
        "depth", int, TUNING, "packets in flight per worker, for hardware",
        "save restore defaults backup", verbs=_BOTH, metavar="N",
    ),
    Option(
        "window", str, TUNING, "zlib history: 32k, or 4k for hardware decoders",
        "save defaults backup", default_text="32k", metavar="SIZE", choices=WINDOWS,
    ),
    Option(
        "huffman", str, TUNING, "qpl code tables: dynamic, fixed, trained",
        "save defaults backup", default="dynamic", default_text="dynamic", metavar="KIND",
        choices=("dynamic", "fixed", "trained"),
    ),
)  # fmt: skip

OPTIONS = {option.name: option for option in _ENTRIES}
"""By name, in the order of the help."""


def options_of(verb: str) -> list[Option]:
    """Return the options of a verb."""
    return [option for option in _ENTRIES if verb in option.verbs.split()]


def names_in(table: str) -> list[str]:
    """Return the keys of a TOML table, as :class:`Option` names it."""
    return [option.name for option in _ENTRIES if table in option.tables.split()]


def file_fields(table: str) -> list[tuple[str, Any, Any]]:
    """Return the fields of a TOML table for ``msgspec.defstruct``, None where not given."""
    return [(name, OPTIONS[name].kind | None, None) for name in names_in(table)]
