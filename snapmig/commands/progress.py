"""Progress on stderr: tqdm's bar on a terminal, or JSON lines for programs."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from snapmig.commands.output import print_notice
from snapmig.operations.progress import Progress, ProgressCallback
from snapmig.printable import printable
from snapmig.units import format_duration, format_size

__all__ = (
    "JSON_EVERY_S",
    "bar_class",
    "make_bar",
    "progress_kind",
    "show_progress",
    "show_share",
    "wants_bar",
)

JSON_EVERY_S = 0.25

_FORM = (
    "{desc}: {percentage:3.0f}%|{bar}| {done} of {all} [{elapsed}<{remaining}, {speed}{postfix}]"
)


@contextmanager
def show_progress(
    options: argparse.Namespace, words: str, *, times: bool = True
) -> Iterator[ProgressCallback | None]:
    """
    Give a callback to show progress, in the form chosen by ``--progress``.

    :param words: label of the work, such as ``saving``
    :param times: with ``--verbose`` tell how long each phase took
    """
    kind = progress_kind(options)
    shown: list[_Bar | _JsonLines | _Times] = []
    if kind == "json":
        shown.append(_JsonLines())
    elif wants_bar(kind):
        shown.append(_Bar(words))
    if times and options.verbose and not options.json:
        shown.append(_Times(words))

    def show(progress: Progress) -> None:
        for each in shown:
            each(progress)

    try:
        yield show if shown else None
    finally:
        for each in shown:
            each.close()


def progress_kind(options: argparse.Namespace) -> str:
    """Return the form of progress: what ``--progress`` says, none if the user wants it quiet."""
    return "none" if options.quiet and options.progress == "auto" else str(options.progress)


def wants_bar(kind: str) -> bool:
    """Return true if ``--progress`` asks for bars on this stderr."""
    # TQDM_DISABLE is honoured here, because tqdm lets an explicit disable= defeat it.
    quiet = not sys.stderr.isatty() or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    return kind == "tty" or (kind == "auto" and not quiet)


@cache
def bar_class() -> Any:
    """Return the class of bars. The import takes 30 ms, so it happens for a bar only."""
    from tqdm import tqdm  # noqa: PLC0415

    class SizeBar(tqdm):  # type: ignore[type-arg]
        # Sizes and speed in the words of the result's lines.
        monitor_interval = 0  # no thread of tqdm's

        @property
        def format_dict(self) -> MutableMapping[str, Any]:
            known = super().format_dict
            speed = known["n"] / known["elapsed"] if known["elapsed"] else 0
            known["done"], known["all"] = format_size(known["n"]), format_size(known["total"])
            known["speed"] = f"{format_size(speed)}/s"
            return known

    # tqdm's own lock is one for processes, too: a semaphore in /dev/shm, where it stays when we are
    # killed. No process but this one draws.
    SizeBar.set_lock(threading.RLock())
    return SizeBar


def make_bar(
    words: str, total_bytes: int, started: float, *, form: str = _FORM, **options: Any
) -> Any:
    """
    Return a bar of bytes.

    :param words: label of the work, or the name of the guest
    :param started: start of the work, by ``time.time()``
    :param form: as tqdm's ``bar_format``
    :param options: tqdm's options for this bar
    """
    bar = bar_class()(
        desc=printable(words),
        total=total_bytes,
        bar_format=form,
        dynamic_ncols=True,
        **options,
    )
    bar.start_t = started  # and not the moment of the first news, when much is done already
    return bar


def show_share(bar: Any, progress: Progress) -> None:
    """Show the compression so far behind a bar."""
    share = ""
    if progress.stored_bytes and progress.done_bytes:
        share = f"{100 * progress.stored_bytes / progress.done_bytes:.1f} % of RAM stored"
    bar.set_postfix_str(share, refresh=False)


class _Bar:
    # Made at the first call: by then the workers run, and none inherits anything of tqdm. A phase
    # before them has a bar of its own, which goes when it is complete, before they start; one
    # after the packets is told behind their bar.
    def __init__(self, words: str) -> None:
        self._words = words
        self._started = time.time()
        self._phase = ""
        self._bar: Any = None
        self._last: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        if self._phase and progress.phase != self._phase:
            self.close()
        if self._bar is None:
            self._make(progress)
        if progress.phase != self._phase:
            self._bar.set_postfix_str(progress.phase)
            return
        self._last = progress
        show_share(self._bar, progress)
        self._bar.update(progress.done_bytes - self._bar.n)
        if self._phase and progress.done_bytes >= progress.total_bytes > 0:
            self.close()

    def _make(self, progress: Progress) -> None:
        self._phase = progress.phase
        words = f"{self._words}, {self._phase}" if self._phase else self._words
        form = _FORM if progress.total_bytes else "{desc}"
        self._bar = make_bar(
            words, progress.total_bytes, self._started, form=form, miniters=1, leave=not self._phase
        )

    def close(self) -> None:
        if self._bar is not None:
            if self._last is not None:
                show_share(self._bar, self._last)
            self._bar.close()
        self._bar, self._phase, self._started = None, "", time.time()


class _JsonLines:
    def __init__(self) -> None:
        self._started = time.monotonic()
        self._last = 0.0
        self._phase = ""

    def __call__(self, progress: Progress) -> None:
        import json  # noqa: PLC0415 - only for these lines

        now = time.monotonic()
        complete = progress.done_bytes == progress.total_bytes
        same = progress.phase == self._phase
        if same and now - self._last < JSON_EVERY_S and not complete:
            return
        self._last, self._phase = now, progress.phase
        line = {
            "message_type": "progress",
            **({"phase": progress.phase} if progress.phase else {}),
            "total_bytes": progress.total_bytes,
            "done_bytes": progress.done_bytes,
            "stored_bytes": progress.stored_bytes,
            "seconds": round(now - self._started, 3),
        }
        print(json.dumps(line), file=sys.stderr, flush=True)

    def close(self) -> None:
        pass


class _Times:
    # How long each phase took, told at the end.
    def __init__(self, words: str) -> None:
        self._words = words
        self._phase = "start"
        self._since = time.monotonic()
        self._took: list[str] = []

    def __call__(self, progress: Progress) -> None:
        phase = progress.phase or "packets"
        if phase != self._phase:
            self.end_phase()
            self._phase = phase

    def end_phase(self) -> None:
        now = time.monotonic()
        self._took.append(f"{self._phase} {format_duration(now - self._since)}")
        self._since = now

    def close(self) -> None:
        self.end_phase()
        print_notice(f"{self._words}: {', '.join(self._took)}")
