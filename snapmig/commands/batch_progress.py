"""Progress of a batch on stderr: a bar for each guest and one for all, or JSON lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from snapmig.batches.results import BatchProgress
from snapmig.commands.progress import JSON_EVERY_S, bar_class, make_bar, show_share, wants_bar
from snapmig.operations.progress import Progress
from snapmig.printable import json_line

__all__ = ("BatchDisplay", "show_batch_progress")


@contextmanager
def show_batch_progress(kind: str, guests_at_once: int) -> Iterator[BatchDisplay]:
    """
    Give a display of progress, in the form chosen by ``--progress``.

    :param kind: ``auto``, ``tty``, ``json`` or ``none``
    """
    display: BatchDisplay
    if kind == "json":
        display = _JsonLines()
    elif wants_bar(kind):
        display = _Bars(guests_at_once)
    else:
        display = BatchDisplay()
    try:
        yield display
    finally:
        display.close()


class BatchDisplay:
    """Display without progress; writes lines as they are."""

    def __call__(self, progress: BatchProgress) -> None:
        """Show a moment of the run."""

    def write(self, line: str, file: TextIO) -> None:
        """Print a line, made printable already, without disturbing the bars."""
        print(line, file=file, flush=True)

    def close(self) -> None:
        """Take everything off the screen."""


class _Bars(BatchDisplay):
    # Each guest's bar has a place of its own while it is under way; the one for all is below.
    def __init__(self, guests_at_once: int) -> None:
        self._free = list(range(guests_at_once))
        self._last = guests_at_once
        self._bars: dict[str, tuple[int, Any]] = {}
        self._started = {"": time.time()}  # by the guest's name; the empty one is of all
        self._overall: Any = None

    def __call__(self, progress: BatchProgress) -> None:
        for name in [name for name in self._bars if name not in progress.running]:
            place, bar = self._bars.pop(name)
            bar.close()
            self._free.append(place)
            self._free.sort()
        for name, each in progress.running.items():
            self._started.setdefault(name, time.time())
            if each is not None:
                self._show(name, each)
        if self._overall is None:
            self._overall = _bar("all", progress.total_bytes, self._started[""], self._last)
        self._overall.total = progress.total_bytes
        words = f"{progress.ended_jobs} of {progress.jobs} ended"
        self._overall.set_postfix_str(words, refresh=False)
        _move(self._overall, progress.done_bytes)

    def write(self, line: str, file: TextIO) -> None:
        with bar_class().external_write_mode(file=file):
            super().write(line, file)

    def close(self) -> None:
        for _, bar in self._bars.values():
            bar.close()
        self._bars.clear()
        if self._overall is not None:
            self._overall.close()
            # Only a bar in the first line leaves the cursor at the line's start.
            print("\r", end="", file=sys.stderr, flush=True)

    def _show(self, name: str, progress: Progress) -> None:
        if name not in self._bars:
            place = self._free.pop(0)
            self._bars[name] = (place, _bar(name, progress.total_bytes, self._started[name], place))
        bar = self._bars[name][1]
        bar.total = progress.total_bytes
        if progress.phase:
            bar.set_postfix_str(progress.phase, refresh=False)
        else:
            show_share(bar, progress)
        _move(bar, progress.done_bytes)


def _bar(words: str, total_bytes: int, started: float, place: int) -> Any:
    return make_bar(words, total_bytes, started, position=place, leave=False)


def _move(bar: Any, done_bytes: int) -> None:
    bar.n = done_bytes
    bar.refresh()


class _JsonLines(BatchDisplay):
    def __init__(self) -> None:
        self._started = time.monotonic()
        self._last = 0.0

    def __call__(self, progress: BatchProgress) -> None:
        now = time.monotonic()
        if now - self._last < JSON_EVERY_S:
            return
        for name, each in progress.running.items():
            if each is not None:
                self._last = now
                line = {
                    "message_type": "progress",
                    "job": name,
                    **({"phase": each.phase} if each.phase else {}),
                    "total_bytes": each.total_bytes,
                    "done_bytes": each.done_bytes,
                    "stored_bytes": each.stored_bytes,
                    "seconds": round(now - self._started, 3),
                }
                print(json_line(line), file=sys.stderr, flush=True)
