"""The verbs of ``snapmig backup``."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from snapmig.backup import init
from snapmig.backups.check import CheckOptions, check
from snapmig.backups.config import Config, GuestConfig, load_config
from snapmig.backups.listing import list_snapshots
from snapmig.backups.overview.write import write_page
from snapmig.backups.prune import prune
from snapmig.backups.report import Report
from snapmig.backups.restore import RestoreOptions, parse_moment, restore_guest
from snapmig.backups.run import RunOptions, run
from snapmig.commands.arguments import call
from snapmig.commands.backup_output import InitResult, Output, RestoredGuest, Summary
from snapmig.commands.output import with_way
from snapmig.commands.progress import show_progress
from snapmig.commands.restore import loss_lines
from snapmig.errors import SnapmigError
from snapmig.operations.progress import ProgressCallback
from snapmig.operations.restore import with_losses
from snapmig.system.libc import set_io_priority

__all__ = ("VERBS",)

Work = Callable[[Config, Sequence[GuestConfig], Report], None]


def _with_guests(options: argparse.Namespace, work: Work, *, loud: bool | None = None) -> int:
    # What run, list, check and prune have in common: guests by name, and a summary at the end.
    started = time.monotonic()
    output = Output(options, loud=loud)
    report = Report(output.show)
    guests: Sequence[GuestConfig] = ()
    try:
        config = load_config(options.config)
        names = dict.fromkeys(options.guests)
        guests = [config.guest(name) for name in names] if names else config.guests
        work(config, guests, report)
    except (SnapmigError, OSError) as error:
        report.fail(with_way(error))
    seconds = round(time.monotonic() - started, 3)
    output.show(
        Summary(
            options.backup_verb,
            len(guests),
            report.warnings,
            report.errors,
            report.exit_code,
            seconds,
        )
    )
    return output.exit_code(report)


def _progress(
    options: argparse.Namespace, words: str
) -> Callable[[str], AbstractContextManager[ProgressCallback | None]]:
    return lambda guest: show_progress(options, f"{words} {guest}", times=False)


def _run(options: argparse.Namespace) -> int:
    def work(config: Config, guests: Sequence[GuestConfig], report: Report) -> None:
        if not guests:
            report.warn(f"{config.path} has no guests")
        _step_back(config, report)
        progress = _progress(options, "saving")
        settings = call(RunOptions, options, prune=not options.no_prune, progress=progress)
        run(config, guests, report, settings)

    return _with_guests(options, work, loud=options.dry_run or None)


def _list(options: argparse.Namespace) -> int:
    return _with_guests(options, list_snapshots, loud=True)


def _check(options: argparse.Namespace) -> int:
    def work(config: Config, guests: Sequence[GuestConfig], report: Report) -> None:
        _step_back(config, report)
        settings = call(CheckOptions, options, progress=_progress(options, "checking"))
        check(config, guests, report, settings)

    return _with_guests(options, work)


def _prune(options: argparse.Namespace) -> int:
    def work(config: Config, guests: Sequence[GuestConfig], report: Report) -> None:
        given = {"config": config, "guests": guests, "report": report}
        call(prune, options, progress=_progress(options, "pruning"), **given)

    return _with_guests(options, work, loud=options.dry_run or None)


def _report(options: argparse.Namespace) -> int:
    def work(config: Config, guests: Sequence[GuestConfig], report: Report) -> None:
        given = {"config": config, "guests": guests, "report": report, "maps": not options.no_maps}
        call(write_page, options, progress=_progress(options, "reporting"), **given)

    return _with_guests(options, work)


def _restore(options: argparse.Namespace) -> int:
    output = Output(options)
    report = Report(output.show)
    try:
        config = load_config(options.config)
        guest = config.guest(options.guest)
        before = None if options.before is None else parse_moment(options.before)
        with _progress(options, "restoring")(guest.name) as progress:
            settings = call(
                RestoreOptions,
                options,
                before=before,
                progress=progress,
                notice=lambda text: report.remark(text, guest.name),
            )
            snapshot, result = restore_guest(config, guest, options.target, settings)
        report.result(RestoredGuest(guest.name, snapshot, result))
        if result.exit_code:
            for line in loss_lines(result):
                report.remark(line.strip(), guest.name)
            report.fail(with_losses(result), guest.name, result.exit_code)
    except (SnapmigError, OSError) as error:
        report.fail(with_way(error), options.guest)
    return output.exit_code(report)


def _init(options: argparse.Namespace) -> int:
    output = Output(options)
    report = Report(output.show)
    try:
        init(options.config, force=options.force)
        report.result(InitResult(str(Path(options.config))))
    except (SnapmigError, OSError) as error:
        report.fail(with_way(error))
    return output.exit_code(report)


def _step_back(config: Config, report: Report) -> None:
    """Set the configured priorities. A refusal by the system is a warning."""
    if config.nice is not None:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, config.nice)
        except OSError as error:
            report.warn(f"nice = {config.nice}: {error.strerror}")
    if config.ionice is not None:
        try:
            set_io_priority(config.ionice.name, config.ionice.level)
        except OSError as error:
            report.warn(f"ionice = {config.ionice.name!r}: {error.strerror}")


VERBS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _run,
    "list": _list,
    "restore": _restore,
    "check": _check,
    "prune": _prune,
    "report": _report,
    "init": _init,
}
