"""A backup run: save guests and prune their folders. A failed guest does not stop the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from snapmig.backups.config import Config, GuestConfig
from snapmig.backups.hooks import HookError, run_hook
from snapmig.backups.lock import LockedError
from snapmig.backups.metrics import load_library, write_metrics
from snapmig.backups.plan import Plan, plan_next
from snapmig.backups.progress import ShowProgress, hidden
from snapmig.backups.prune import future_snapshots, prune_folder
from snapmig.backups.report import Report
from snapmig.backups.repository import guest_folder
from snapmig.backups.result import BackupResult
from snapmig.backups.roots import keep_root
from snapmig.backups.saving import refused_parent, save_snapshot
from snapmig.backups.space import check_space, expected_size
from snapmig.backups.stored import Contents, StoredSnapshot
from snapmig.errors import SnapmigError, StoreError
from snapmig.guests.wait import MonitorWait, parse_monitor_timeout
from snapmig.operations.failures import describe
from snapmig.operations.options.parse import parse_guest
from snapmig.operations.progress import phase_reporter
from snapmig.operations.save import SaveResult
from snapmig.stores.location import Location

__all__ = ("RunOptions", "run")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """
    Deviations of a run from the configuration.

    :param lock_wait: seconds to wait for each guest's lock
    :param full: save all in full
    :param jobs: worker processes
    :param monitor_timeout: seconds to wait for each answer of a guest's monitor
    :param metrics: file to write for the node exporter of Prometheus, not in a dry run
    :param progress: returns, for a guest's name, a context that gives a progress callback
    """

    dry_run: bool = False
    prune: bool = True
    full: bool = False
    lock_wait: float | None = None
    jobs: int | None = None
    monitor_timeout: float | None = None
    metrics: Path | None = None
    progress: ShowProgress = hidden


def run(config: Config, guests: Sequence[GuestConfig], report: Report, options: RunOptions) -> None:
    """Save guests and prune their folders. Results, warnings and errors go to the report."""
    measures = options.metrics is not None and not options.dry_run
    if measures:
        load_library()  # rather before than after hours of saving
    results = []
    for guest in guests:
        one = _GuestRun(config, guest, report, options)
        try:
            one.run()
        except Exception as error:  # noqa: BLE001 - the other guests are saved after a bug, too
            one.failed(*describe(error))
        results.append(one.outcome)
    if measures and options.metrics is not None:
        try:
            write_metrics(options.metrics, config, results)
        except OSError as error:
            report.warn(f"no metrics: {describe(error)[1]}")


class _GuestRun:
    def __init__(
        self, config: Config, guest: GuestConfig, report: Report, options: RunOptions
    ) -> None:
        self._guest = guest
        self._report = report
        self._options = options
        self._started = time.monotonic()
        self._folder = guest_folder(config.repository, guest.name)
        self._wait = config.lock_wait if options.lock_wait is None else options.lock_wait
        self._result = BackupResult(guest.name, "failed", guest.source)
        self.outcome = self._result
        self._told = False  # a hook has run for the end

    def run(self) -> None:
        """
        Save the guest, or report the reason for not doing so.

        :raises SnapmigError: it failed; the hook for errors has not run yet
        """
        if self._guest.optional and not self._is_there():
            message = f"skipped: its source {self._guest.source} is not there"
            self._report.warn(message, self._guest.name)
            self._finish("skipped", reason="its source is not there")
            return
        if self._options.dry_run:
            self._folder.check_repository()
            contents = self._folder.read()
            later = self._with_next(contents, self._plan(contents))
            removed = self._prune(lambda: later) if self._options.prune else ()
            self._finish("planned", removed=removed)
            return
        self._folder.make()
        with self._folder.locked(self._wait):
            for name in self._folder.remove_leftovers():
                self._report.note(f"removed {name}, left by a killed run", self._guest.name)
            self._save(self._plan(self._folder.read()))
            removed = self._prune(self._folder.read) if self._options.prune else ()
        self._finish("saved", removed=removed)

    def _is_there(self) -> bool:
        guest = parse_guest(self._guest.source, self._guest.save.get("connect"))
        if isinstance(guest, str):
            return Path(guest).exists()
        from snapmig.guests.monitor import is_there  # noqa: PLC0415 - asyncio takes 30 ms

        return is_there(guest, self._wait_for_monitor())

    def failed(self, code: int, message: str) -> None:
        """Report a failure, also to the hook."""
        self._report.fail(message, self._guest.name, code)
        self._tell_error(message, code)
        self._finish("failed", reason=message, snapshot=None)

    def _plan(self, contents: Contents) -> Plan:
        now = datetime.now(UTC)
        for name in future_snapshots(contents.snapshots):
            message = f"{name} says it is from the future: was the clock set back? It is left alone"
            self._report.warn(message, self._guest.name)
        every = 1 if self._options.full else self._guest.full_every
        plan = plan_next(contents.snapshots, every, now)
        expected = expected_size(contents.snapshots, plan, self._guest, self._wait_for_monitor())
        self._result = replace(
            self._result,
            snapshot=self._folder.new_name(now),
            kind=plan.kind,
            parent=None if plan.parent is None else plan.parent.name,
            reason=plan.reason,
            expected_size=expected and expected[0],
        )
        check_space(self._folder, expected)
        return plan

    def _with_next(self, contents: Contents, plan: Plan) -> Contents:
        # The contents after the planned save, for the rules of a dry run.
        name, parent = str(self._result.snapshot), plan.parent
        snapshot = StoredSnapshot(
            name=name,
            path=self._folder.place(name),
            snapshot_id=bytes(16),
            parent_id=None if parent is None else parent.snapshot_id,
            parent_root=b"" if parent is None else parent.root,
            root=b"",
            time=datetime.now(UTC),
            ram_size=0,
            file_size=0,
            disk_size=0,
        )
        return replace(contents, snapshots=(*contents.snapshots, snapshot))

    def _save(self, plan: Plan) -> None:
        path = self._folder.place(str(self._result.snapshot))
        try:
            run_hook(self._guest.hooks, "before", self._facts())
            self._settle(self._save_to(path, plan))
        except BaseException as error:
            if not isinstance(error, Exception):  # a signal: undo the work of "before" now
                name = getattr(error, "name", type(error).__name__)
                self._tell_error(f"interrupted by {name}", None)
            raise

    def _settle(self, saved: SaveResult) -> None:
        keep_root(self._guest.roots, str(self._result.snapshot), saved.root)
        for warning in saved.warnings:
            self._report.warn(warning, self._guest.name)
        self._result = replace(
            self._result,
            ram_size=saved.ram_size,
            stored_size=saved.stored_size,
            disk_size=saved.disk_size,
            pause_seconds=saved.pause_seconds,
            changed_pages=saved.data_pages - saved.same_pages,
        )
        self._told = True
        self._try_hook("after", {"size": saved.disk_size, "seconds": saved.seconds})

    def _save_to(self, path: Location, plan: Plan) -> SaveResult:
        guest = self._guest
        wait = self._wait_for_monitor()
        options = {**guest.save, "monitor_timeout": wait.limit_s, "notice": wait.notice}
        if self._options.jobs is not None:
            options["jobs"] = self._options.jobs
        with self._options.progress(guest.name) as progress:
            if plan.parent is None:
                return save_snapshot(guest.source, path, None, options, progress)
            try:
                return save_snapshot(guest.source, path, plan.parent, options, progress)
            except SnapmigError as error:
                if not refused_parent(error):
                    raise
                message = f"saved in full, for building on {plan.parent.name} failed: {error}"
                self._report.warn(message, guest.name)
                self._result = replace(self._result, kind="full", parent=None, reason=message)
                return save_snapshot(guest.source, path, None, options, progress)

    def _prune(self, read: Callable[[], Contents]) -> tuple[str, ...]:
        dry_run = self._options.dry_run
        guest = self._guest
        try:
            with self._options.progress(guest.name) as progress:
                tell = phase_reporter(progress, "removing old snapshots")
                found = prune_folder(
                    self._folder, read(), guest, self._report, dry_run=dry_run, tell=tell
                )
            return tuple(found)
        except (OSError, StoreError, LockedError) as error:  # the guest is saved all the same
            self._report.fail(error, self._guest.name)
            return ()

    def _wait_for_monitor(self) -> MonitorWait:
        own = self._options.monitor_timeout
        limit = parse_monitor_timeout(
            self._guest.save.get("monitor_timeout") if own is None else own
        )
        return MonitorWait(limit, lambda text: self._report.remark(text, self._guest.name))

    def _facts(self) -> dict[str, object]:
        result, place = self._result, self._folder.place
        return {
            "guest": result.guest,
            "source": result.source,
            "repository": self._folder.shown,
            "snapshot": result.snapshot and place(result.snapshot),
            "kind": result.kind,
            "parent": result.parent and place(result.parent),
        }

    def _tell_error(self, message: str, exit_code: int | None) -> None:
        if not self._told and not self._options.dry_run:
            self._told = True
            self._try_hook("error", {"error": message, "exit_code": exit_code})

    def _try_hook(self, event: str, facts: dict[str, object]) -> None:
        try:
            run_hook(self._guest.hooks, event, {**self._facts(), **facts})
        except HookError as error:
            self._report.warn(str(error), self._guest.name)

    def _finish(self, result: str, **changes: Any) -> None:
        seconds = round(time.monotonic() - self._started, 3)
        self.outcome = replace(self._result, result=result, seconds=seconds, **changes)
        self._report.result(self.outcome)
