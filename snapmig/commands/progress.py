"""Progress on stderr: tqdm's bar on a terminal, or JSON lines for programs."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from snapmig.operations.progress import Progress, ProgressCallback

__all__ = ("JSON_EVERY_S", "show_progress", "wants_bar")

JSON_EVERY_S = 0.25


@contextmanager
def show_progress(kind: str, words: str) -> Iterator[ProgressCallback | None]:
    """
    Give a callback that shows progress as ``--progress`` asks for.

    :param kind: ``auto``, ``tty``, ``json`` or ``none``
    :param words: what is being done
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
    """Say whether ``--progress`` asks for bars, on the stderr that there is."""
    # TQDM_DISABLE is honoured here, because tqdm lets an explicit disable= defeat it.
    quiet = not sys.stderr.isatty() or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    return kind == "tty" or (kind == "auto" and not quiet)


class _Bar:
    # Made at the first call: by then the workers run, and none inherits anything of tqdm. Its
    # import takes 30 ms, which only a bar is worth.
    def __init__(self, words: str) -> None:
        self._words = words
        self._bar: Any = None

    def __call__(self, progress: Progress) -> None:
        if self._bar is None:
            from tqdm import tqdm  # noqa: PLC0415

            tqdm.monitor_interval = 0  # no thread of tqdm's
            self._bar = tqdm(
                desc=self._words,
                total=progress.total_bytes,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                dynamic_ncols=True,
                miniters=1,
            )
        if progress.stored_bytes and progress.done_bytes:
            share = 100 * progress.stored_bytes / progress.done_bytes
            self._bar.set_postfix_str(f"{share:.1f} % of RAM stored", refresh=False)
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
