"""Progress on stderr: tqdm's bar on a terminal, or JSON lines for programs."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from snapmig.operations.progress import Progress, ProgressCallback
from snapmig.printable import printable
from snapmig.units import format_size

__all__ = ("JSON_EVERY_S", "bar_class", "make_bar", "show_progress", "show_share", "wants_bar")

JSON_EVERY_S = 0.25

_FORM = (
    "{desc}: {percentage:3.0f}%|{bar}| {done} of {all} [{elapsed}<{remaining}, {speed}{postfix}]"
)


@contextmanager
def show_progress(kind: str, words: str) -> Iterator[ProgressCallback | None]:
    """
    Give a callback to show progress, in the form chosen by ``--progress``.

    :param kind: ``auto``, ``tty``, ``json`` or ``none``
    :param words: label of the work, such as ``saving``
    """
    if kind == "json":
        yield _JsonLines()
    elif not wants_bar(kind):
        yield None
    else:
        bar = _Bar(words)
        try:
            yield bar
        finally:
            bar.close()


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


def make_bar(words: str, total_bytes: int, started: float, **options: Any) -> Any:
    """
    Return a bar of bytes.

    :param words: label of the work, or the name of the guest
    :param started: start of the work, by ``time.time()``
    :param options: tqdm's options for this bar
    """
    bar = bar_class()(
        desc=printable(words),
        total=total_bytes,
        bar_format=_FORM,
        dynamic_ncols=True,
        **options,
    )
    bar.start_t = started  # and not the moment of the first news, when much is done already
    return bar


def show_share(bar: Any, progress: Progress) -> None:
    """Show the compression so far behind a bar."""
    if progress.stored_bytes and progress.done_bytes:
        share = 100 * progress.stored_bytes / progress.done_bytes
        bar.set_postfix_str(f"{share:.1f} % of RAM stored", refresh=False)


class _Bar:
    # Made at the first call: by then the workers run, and none inherits anything of tqdm.
    def __init__(self, words: str) -> None:
        self._words = words
        self._started = time.time()
        self._bar: Any = None

    def __call__(self, progress: Progress) -> None:
        if self._bar is None:
            self._bar = make_bar(self._words, progress.total_bytes, self._started, miniters=1)
        show_share(self._bar, progress)
        self._bar.update(progress.done_bytes - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


class _JsonLines:
    def __init__(self) -> None:
        self._started = time.monotonic()
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        complete = progress.done_bytes == progress.total_bytes
        if now - self._last < JSON_EVERY_S and not complete:
            return
        self._last = now
        line = {
            "message_type": "progress",
            "total_bytes": progress.total_bytes,
            "done_bytes": progress.done_bytes,
            "stored_bytes": progress.stored_bytes,
            "seconds": round(now - self._started, 3),
        }
        print(json.dumps(line), file=sys.stderr, flush=True)
