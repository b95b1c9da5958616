"""``run``: start QEMU with the guest of a snapshot."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from snapmig.container.reader import SnapshotFile
from snapmig.errors import UsageError
from snapmig.geometry import PAGE_SIZE, RamBlock
from snapmig.operations.options.arguments import checks_arguments
from snapmig.operations.options.keys import parse_keys
from snapmig.operations.options.parse import GUEST_PREFIX
from snapmig.operations.progress import ProgressCallback
from snapmig.operations.runs.launch import launched
from snapmig.operations.runs.qemu_command import (
    Backend,
    check_command,
    given_command,
    with_backends,
    without_incoming,
)
from snapmig.operations.runs.saved_guest import load_guest
from snapmig.sealing.keyring import Keys

__all__ = ("RunResult", "run")

Confirm = Callable[[tuple[str, ...]], bool]
"""Asked whether a command that comes from a snapshot may be run."""

MOUNT = "mount"
"""The way of a guest whose memory is mapped from a mount."""


@dataclass(frozen=True, slots=True)
class RunResult:
    """
    A guest that ran.

    :param command: that started QEMU
    :param via: the way that its memory went
    :param seconds_to_run: from the call until the guest ran
    :param packets_asked_for: with ``postcopy``, packets that the guest asked for
    :param exit_status: of QEMU, negative for a signal; 0 also if it went to the background
    :param warnings: messages for the user, a sentence each
    """

    snapshot: str
    command: tuple[str, ...]
    via: str
    seconds_to_run: float
    packets_asked_for: int | None
    exit_status: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 if QEMU ended with it."""
        return 0 if self.exit_status == 0 else 1


@checks_arguments
def run(
    snapshot: str | os.PathLike[str],
    command: Sequence[str] = (),
    *,
    postcopy: bool | None = None,
    mount: str | os.PathLike[str] | None = None,
    working_set: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    follow_remote_parents: bool = False,
    keys: Keys | None = None,
    confirm: Confirm | None = None,
    running: Callable[[RunResult], None] = lambda _result: None,
    progress: ProgressCallback | None = None,
    notice: Callable[[str], None] | None = None,
) -> RunResult:
    """
    Start QEMU with the guest of a snapshot, and wait for its end.

    QEMU has the caller's standard streams. It gets a monitor of its own for the restore, which is
    gone afterwards.

    :param command: QEMU's, with its program, instead of the recorded one; or, if the first word is
        an option, further words for the recorded one
    :param postcopy: let the guest run at once and send its memory meanwhile; default: if this
        process may use userfaultfd
    :param mount: a directory: map the guest's memory from the snapshot mounted there, and mount it
        there until the end of QEMU if nobody has; guests with one mount share what they only read
    :param working_set: with ``postcopy``, as for :func:`snapmig.restore`; with a mount made for the
        guest, as for :func:`snapmig.mount`
    :param jobs: worker processes; default: the processors available to this process
    :param confirm: called with the recorded command, which comes from the snapshot; returns False
        to refuse it
    :param running: called when the guest has all of its memory, or with ``mount`` when it runs
    :param progress: called with a :class:`~snapmig.operations.progress.Progress` now and then, but
        with ``mount`` and ``postcopy``, where the guest runs meanwhile
    :param notice: called with messages for the user during the run
    :raises UsageError: there is no recorded command, or it can't be used, or was refused
    :raises SnapmigError: QEMU can't be started, or ended before the guest ran
    """
    started = time.monotonic()
    if mount is not None and postcopy:
        raise UsageError("mount and postcopy exclude each other")
    if mount is None and postcopy is False and working_set is not None:
        raise UsageError("a working set is for postcopy or a mount, not for a restore before")
    postcopy = _may_fault() if postcopy is None else postcopy
    place = None if mount is None else Path(os.path.abspath(mount))
    with SnapshotFile(os.fspath(snapshot), keys=parse_keys(keys)) as source:
        if place is not None:
            backends = _mapped(source, place, working_set)
        else:
            backends = {block.name: _memory(block) for block in source.geometry.blocks}
        words = _words(source, tuple(command), confirm, backends, given=place is not None)
    start = _Run(os.fspath(snapshot), words, started, running)
    options: dict[str, Any] = {
        "working_set": working_set if place is not None or postcopy else None,
        "jobs": jobs,
        "follow_remote_parents": follow_remote_parents,
        "keys": keys,
    }
    if place is not None:
        return start.mapped(place, options)
    shown = None if postcopy else progress
    return start.restored({**options, "postcopy": postcopy, "notice": notice, "progress": shown})


class _Run(NamedTuple):
    # A guest about to run; the options are those of a mount, or of a restore.
    snapshot: str
    words: tuple[str, ...]
    started: float
    running: Callable[[RunResult], None]

    def mapped(self, place: Path, options: Mapping[str, Any]) -> RunResult:
        from snapmig.operations import run_mapped  # noqa: PLC0415 - postcopy needs none of it

        with run_mapped.mounted(self.snapshot, place, options), launched(self.words) as guest:
            run_mapped.load_state(guest, place)
            result = RunResult(self.snapshot, self.words, MOUNT, self._seconds(), None)
            self.running(result)
            return replace(result, exit_status=guest.wait())

    def restored(self, options: Mapping[str, Any]) -> RunResult:
        with launched(self.words) as guest:
            from snapmig.operations.restore import restore  # noqa: PLC0415 - QEMU starts meanwhile

            guest.wait_for_monitor()
            with guest.blamed():
                done = restore(self.snapshot, f"{GUEST_PREFIX}{guest.monitor}", **options)
            # It may have run before the restore's end.
            after = 0.0 if done.seconds_to_run is None else done.seconds - done.seconds_to_run
            result = RunResult(
                self.snapshot,
                self.words,
                done.via or "",
                self._seconds(after),
                done.packets_asked_for,
                warnings=done.warnings,
            )
            self.running(result)
            return replace(result, exit_status=guest.wait())

    def _seconds(self, after: float = 0.0) -> float:
        return round(time.monotonic() - self.started - after, 3)


def _words(
    source: SnapshotFile,
    command: tuple[str, ...],
    confirm: Confirm | None,
    backends: Mapping[str, Backend],
    *,
    given: bool,
) -> tuple[str, ...]:
    # A command of the user's has its own memory, unless that is given by a mount.
    saved = load_guest(source)
    if command and not command[0].startswith("-"):
        return tuple(with_backends(command, backends if given else {}))
    if not saved.command_line:
        message = "has no command line of QEMU: give one after --"
        raise UsageError(message, path=source.shown)
    check_command(saved.command_line)
    words = (*given_command(saved, backends), *without_incoming(command))
    if confirm is None or not confirm(words):
        message = "the recorded command of QEMU comes from this file and was not confirmed"
        raise UsageError(message, path=source.shown)
    return words


def _memory(block: RamBlock) -> Backend:
    # Never the file of the guest that was saved: it may run on.
    return Backend.memfd(None if block.page_size == PAGE_SIZE else block.page_size)


def _mapped(
    source: SnapshotFile, place: Path, working_set: str | os.PathLike[str] | None
) -> Mapping[str, Backend]:
    from snapmig.operations import run_mapped  # noqa: PLC0415 - likewise

    run_mapped.check(source, place, working_set)
    return run_mapped.mapped_backends(source, place)


def _may_fault() -> bool:
    # QEMU will have the same rights.
    if os.geteuid() == 0 or os.access("/dev/userfaultfd", os.R_OK | os.W_OK):
        return True
    try:
        return Path("/proc/sys/vm/unprivileged_userfaultfd").read_text().strip() == "1"
    except OSError:
        return False
