"""
Output of ``snapmig backup``: lines for people, lines of JSON, or lines for the journal.

Results go to standard output, without a terminal only on request; warnings and errors go to
standard error, a line each. In a service of systemd a line starts with its priority (sd-daemon(3)),
for ``journalctl -p warning``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, TextIO

from snapmig.backups.check import CheckResult
from snapmig.backups.listing import ListedSnapshot
from snapmig.backups.overview.guests import GuestState
from snapmig.backups.prune import PruneResult
from snapmig.backups.report import Failure, Note, Remark, Report, Warned
from snapmig.backups.result import BackupResult
from snapmig.backups.stored import StoredSnapshot
from snapmig.commands.output import error_line, notice_line, warning_line
from snapmig.commands.restore import resume_lines
from snapmig.operations.restore import RestoreResult
from snapmig.printable import json_line, printable
from snapmig.units import format_duration, format_size

__all__ = ("InitResult", "Output", "RestoredGuest", "Summary")

_INFO, _WARNING, _ERROR = 6, 4, 3


@dataclass(frozen=True, slots=True)
class InitResult:
    """A configuration that was written."""

    config: str


@dataclass(frozen=True, slots=True)
class RestoredGuest:
    """A guest's snapshot, and its restore."""

    guest: str
    snapshot: StoredSnapshot
    result: RestoreResult


@dataclass(frozen=True, slots=True)
class Summary:
    """End of a command; ``guests`` counts the guests it was about."""

    command: str
    guests: int
    warnings: int
    errors: int
    exit_code: int
    seconds: float


class Output:
    """
    Printer of a command's reports, in the form chosen by its options.

    :param loud: show results; default: on a terminal, or with ``--verbose``
    """

    def __init__(self, options: argparse.Namespace, *, loud: bool | None = None) -> None:
        self._json: bool = options.json
        self._debug: bool = options.debug
        quiet = getattr(options, "quiet", False)
        asked = getattr(options, "verbose", False) or sys.stdout.isatty()
        self._loud = not quiet and (asked if loud is None else loud)
        self._journal = _is_journal(sys.stderr)
        self._guest: str | None = None
        self._lost: OSError | None = None

    def show(self, record: Any) -> None:
        """Show a result, a note, a warning or an error."""
        if self._json:
            self._show_json(record)
        elif isinstance(record, Failure):
            self._tell(_ERROR, record.guest, record.message)
        elif isinstance(record, Warned):
            self._tell(_WARNING, record.guest, record.message)
        elif isinstance(record, Remark):
            self._tell(_INFO, record.guest, record.message)
        elif self._loud:
            self._print(record)
        if self._debug and isinstance(record, Failure) and sys.exception() is not None:
            traceback.print_exc()

    def exit_code(self, report: Report) -> int:
        """
        Return a command's exit code; a reader gone early does not change it.

        Results lost on the way out are an error, although the work was done.
        """
        if isinstance(self._lost, BrokenPipeError):
            return report.exit_code or 128 + signal.SIGPIPE
        if self._lost is not None:
            report.fail(f"standard output: {self._lost.strerror}")
        return report.exit_code

    def _tell(self, priority: int, guest: str | None, message: str) -> None:
        text = f"{guest}: {message}" if guest else message
        line = {_ERROR: error_line, _WARNING: warning_line, _INFO: notice_line}[priority](text)
        prefix = f"<{priority}>" if self._journal else ""
        # One line each, whatever a file's name has in it: what reads a log splits it there.
        self._write(prefix + line, sys.stderr)

    def _show_json(self, record: Any) -> None:
        kind, fields = _JSON[type(record)](record)
        stream = sys.stderr if kind in ("note", "warning", "error") else sys.stdout
        self._write(json_line({"message_type": kind, **fields}), stream)

    def _print(self, record: Any) -> None:
        if isinstance(record, ListedSnapshot) and record.guest != self._guest:
            if self._guest is not None:
                self._write("", sys.stdout)
            self._guest = record.guest
            heads = _list_line("snapshot", "time", "kind", "on disk", "age")
            self._write(f"{record.guest}\n{heads}  parent", sys.stdout)
        for line in _TEXT[type(record)](record):
            self._write(printable(line), sys.stdout)

    def _write(self, text: str, stream: TextIO) -> None:
        # Whoever reads may have left, or the log's disk be full: guests are saved all the same.
        try:
            print(text, file=stream, flush=True)
        except OSError as error:
            if stream is sys.stdout and self._lost is None:
                self._lost = error
            with contextlib.suppress(OSError):  # keeps later writes from failing again
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_journal(stream: TextIO) -> bool:
    # systemd.exec(5): the device and inode of the socket that it gave a service.
    expected = os.environ.get("JOURNAL_STREAM", "")
    try:
        facts = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return expected == f"{facts.st_dev}:{facts.st_ino}"


def _backup_line(record: BackupResult) -> Sequence[str]:
    removed = f", {len(record.removed)} to be removed" if record.removed else ""
    if record.result == "planned":
        about = (
            "" if record.expected_size is None else f", about {format_size(record.expected_size)}"
        )
        return [f"{record.guest}: would save {record.kind} ({record.reason}){about}{removed}"]
    if record.result != "saved":
        return []  # the warning or the error said it
    kept = f", {len(record.removed)} removed" if record.removed else ""
    size = format_size(record.disk_size or 0)
    took = format_duration(record.seconds)
    return [f"{record.guest}: saved {record.snapshot}, {record.kind}, {size} in {took}{kept}"]


def _prune_line(record: PruneResult) -> Sequence[str]:
    reasons = f" ({', '.join(record.reasons)})" if record.reasons else ""
    return [f"{record.guest}: {record.action} {record.snapshot}{reasons}"]


def _state_line(record: GuestState) -> Sequence[str]:
    age = "never" if record.age is None else f"{_age(int(record.age.total_seconds()))} ago"
    size = format_size(record.size)
    return [f"{record.guest}: {record.state}, last good {age}, {size} on disk"]


def _check_line(record: CheckResult) -> Sequence[str]:
    how = "read" if record.read else "not read"
    return [f"{record.guest}: {record.snapshot} {record.result}, {how}"]


def _state_fields(record: GuestState) -> dict[str, Any]:
    age = None if record.age is None else int(record.age.total_seconds())
    return {
        "guest": record.guest,
        "state": record.state,
        "newest": record.newest,
        "age_seconds": age,
        "max_age": record.max_age,
        "snapshots": len(record.snapshots),
        "disk_size": record.size,
        "problems": record.problems,
    }


def _listed_line(record: ListedSnapshot) -> Sequence[str]:
    time = "" if record.time is None else datetime.fromisoformat(record.time).astimezone()
    size = "" if record.disk_size is None else format_size(record.disk_size)
    line = _list_line(
        record.snapshot,
        f"{time:%Y-%m-%d %H:%M}" if time else "unknown",
        record.kind or "unreadable",
        size,
        _age(record.age_seconds),
    )
    return [f"{line}  {record.parent or 'missing' if record.parent_id else '-'}"]


def _list_line(name: str, time: str, kind: str, size: str, age: str) -> str:
    return f"  {name:<27} {time:<16} {kind:<11} {size:>10} {age:>6}"


def _age(seconds: int | None) -> str:
    if seconds is None:
        return ""
    if seconds < 0:
        return "future"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _restored_lines(record: RestoredGuest) -> Sequence[str]:
    result = record.result
    lines = [
        f"{record.guest}: restored {record.snapshot.name} to {result.image}, "
        f"{format_size(result.ram_size)} in {format_duration(result.seconds)}"
    ]
    return [*lines, *resume_lines(result)]


def _restored_fields(record: RestoredGuest) -> dict[str, Any]:
    own = {
        "guest": record.guest,
        "snapshot": record.snapshot.name,
        "path": str(record.snapshot.path),
        "time": record.snapshot.time.isoformat(timespec="seconds"),
    }
    return {**own, **{key: value for key, value in asdict(record.result).items() if key not in own}}


_TEXT: dict[type, Callable[[Any], Sequence[str]]] = {
    BackupResult: _backup_line,
    PruneResult: _prune_line,
    GuestState: _state_line,
    CheckResult: _check_line,
    ListedSnapshot: _listed_line,
    RestoredGuest: _restored_lines,
    InitResult: lambda record: [f"wrote {record.config}: edit it, then try a run with --dry-run"],
    Note: lambda record: [f"{record.guest}: {record.message}"],
    Summary: lambda _: [],
}

_JSON: dict[type, Callable[[Any], tuple[str, dict[str, Any]]]] = {
    BackupResult: lambda record: ("backup", asdict(record)),
    PruneResult: lambda record: ("prune", asdict(record)),
    GuestState: lambda record: ("report", _state_fields(record)),
    CheckResult: lambda record: ("check", asdict(record)),
    ListedSnapshot: lambda record: ("snapshot", asdict(record)),
    RestoredGuest: lambda record: ("restore", _restored_fields(record)),
    InitResult: lambda record: ("init", asdict(record)),
    Summary: lambda record: ("summary", asdict(record)),
    Note: lambda record: ("note", asdict(record)),
    Remark: lambda record: ("note", asdict(record)),
    Warned: lambda record: ("warning", asdict(record)),
    Failure: lambda record: ("error", asdict(record)),
}
