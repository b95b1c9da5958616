"""``snapmig batch``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from snapmig.cluster.scheduler import Scheduler
from snapmig.commands.arguments import Verbs, add_common, add_option, add_progress, call
from snapmig.commands.batch_progress import BatchDisplay, show_batch_progress
from snapmig.commands.output import (
    error_line,
    fail,
    notice_line,
    print_warnings,
    say,
    say_bold,
    warning_line,
)
from snapmig.commands.progress import progress_kind
from snapmig.commands.restore import loss_lines
from snapmig.commands.style import STYLE
from snapmig.errors import UsageError
from snapmig.operations.options.save import SaveResult
from snapmig.operations.restore import RestoreResult
from snapmig.printable import json_line, printable
from snapmig.units import format_count, format_size

if TYPE_CHECKING:
    from snapmig.batches.results import BatchJob

__all__ = ("add_parser",)

_STATES = ("done", "failed", "cancelled", "skipped")

_EPILOG = """\
exit code: 0 when all jobs are done, else that of the first one in JOBS.toml
that failed ("snapmig --help" lists them); docs/batch.md describes the file.

JOBS.toml, for example:
  max_guests_at_once = 2
  [[save]]
  image = "/dev/shm/*.ram"          # a job for each; or qmp:/run/guest.qmp
  snapshot = "backup/{name}.snap"

examples:
  snapmig batch jobs.toml
  snapmig batch --fail-fast --bwlimit 200M jobs.toml
  snapmig batch -j 4 --guests-at-once 4 --json jobs.toml
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "batch",
        help="save or restore many guests in one run",
        usage="snapmig batch [options] JOBS.toml",
        description="Save or restore many guests in one run, with one pool of workers.",
        epilog=_EPILOG,
    )
    parser.add_argument("path", metavar="JOBS.toml", help="the jobs, see below")
    add_option(parser, "jobs")
    parser.add_argument(
        "-g",
        "--guests-at-once",
        dest="max_guests_at_once",
        type=int,
        metavar="N",
        help="guests at the same time (the file's, or 2;\non a cluster as many as it has hosts)",
    )
    parser.add_argument(
        "--fail-fast",
        action=argparse.BooleanOptionalAction,
        help="cancel the others when one fails (the file's, or no)",
    )
    add_option(parser, "bwlimit")
    add_option(parser, "monitor_timeout", default_text="the file's, or 30")
    _add_cluster(parser)
    add_progress(parser)
    add_common(parser, json_help="print a line of JSON for each job as it ends")
    parser.set_defaults(run=_run)


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="of a Dask cluster: each job on its host (docs/cluster.md);\n"
        "tls://HOST:PORT, or tcp://HOST:PORT on one machine",
    )
    for name, words in (
        ("ca", "of the authority that signed all certificates"),
        ("cert", "of our own certificate, for tls://"),
        ("key", "of its key (in --tls-cert)"),
    ):
        parser.add_argument(f"--tls-{name}", type=Path, metavar="FILE", help=words)


def _scheduler(options: argparse.Namespace) -> Scheduler | None:
    files = (options.tls_ca, options.tls_cert, options.tls_key)
    if options.scheduler is not None:
        return Scheduler(options.scheduler, *files)
    if any(files):
        raise UsageError("certificates are for --scheduler tls://HOST:PORT")
    return None


def _run(options: argparse.Namespace) -> int:
    # Only here: the file's reader takes 20 ms to import.
    from snapmig.batches.run import Batch, SchedulerMissingError  # noqa: PLC0415

    try:
        run = call(Batch, options, scheduler=_scheduler(options))
    except SchedulerMissingError as error:
        raise UsageError(f"{error.message}: give one by --scheduler") from error
    print_warnings(run.warnings)
    with show_batch_progress(progress_kind(options), run.at_once) as display:
        result = run.run(
            lambda job: _show_end(options, display, job),
            display,
            lambda name, text: _show_notice(display, f"{name}: {text}"),
        )
    names = [job.name for job in result.jobs if job.state == "failed"]
    if options.json:
        counts = {state: result.count(state) for state in _STATES}
        line = {"message_type": "batch", "jobs": len(result.jobs), **counts}
        line |= {"seconds": result.seconds, "exit_code": result.exit_code}
        print(json_line({**line, "warnings": result.warnings}))
    else:
        head, *rows = _table(result.jobs)
        say_bold(head)
        for row in rows:
            say(row)
    if names:
        words = (
            f"{len(names)} of {format_count(len(result.jobs), 'job')} failed: {', '.join(names)}"
        )
        return fail(options, result.exit_code, words)
    return 0


def _show_notice(display: BatchDisplay, text: str) -> None:
    if not STYLE.quiet:
        display.write(notice_line(text), sys.stderr)


def _show_end(options: argparse.Namespace, display: BatchDisplay, job: BatchJob) -> None:
    # As each job ends: its line of JSON, or what is wrong with it.
    if options.json:
        where = {} if job.host is None else {"host": job.host, "worker": job.worker}
        if job.result is not None:
            line = {"message_type": job.verb, "job": job.name, **where, **asdict(job.result)}
        else:
            line = {"message_type": "error", "job": job.name, **where, "state": job.state}
            line |= {"exit_code": job.exit_code, "message": job.message}
        display.write(json_line(line), sys.stdout)
        return
    for warning in () if job.result is None else job.result.warnings:
        display.write(warning_line(f"{job.name}: {warning}"), sys.stderr)
    if job.state == "failed":
        display.write(error_line(f"{job.name}: {job.message}"), sys.stderr)
    if isinstance(job.result, RestoreResult):
        for loss in loss_lines(job.result):
            display.write(error_line(f"{job.name}: {loss.strip()}"), sys.stderr)


def _table(jobs: Sequence[BatchJob]) -> list[str]:
    # Sizes and times to the right, so that their points stand below each other.
    rows = [("job", "result", "RAM", "stored", "seconds"), *map(_row, jobs)]
    words = 2
    if any(job.host is not None for job in jobs):
        hosts = ["host", *(printable(job.host or "") for job in jobs)]
        rows = [(row[0], host, *row[1:]) for row, host in zip(rows, hosts, strict=True)]
        words = 3
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if at < words else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _row(job: BatchJob) -> tuple[str, ...]:
    ram = stored = "-"
    if job.result is not None:
        ram = format_size(job.result.ram_size)
    if isinstance(job.result, SaveResult):
        stored = format_size(job.result.stored_size)
    return printable(job.name), job.state, ram, stored, f"{job.seconds:.2f}"
