"""A mount from its beginning to its end, in the process that serves it."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from snapmig.errors import SnapmigError
from snapmig.mounts.library import check_device, load_fuse
from snapmig.mounts.mountpoint import check_directory, source_name
from snapmig.mounts.tree import Folder

__all__ = ("MountOptions", "check_mount", "serve")

_FOREVER_S = 86_400
_STREAMS = (0, 1, 2)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ENDED_BY_SIGNAL = 8


class MountOptions(NamedTuple):
    """
    Options of a mount.

    :param shown: name of what is mounted
    :param everybody: other users may read, too
    :param fixed: nothing changes in the tree while it is mounted
    :param writable: some files take writes
    """

    shown: str
    everybody: bool
    fixed: bool
    writable: bool = False


def check_mount(directory: Path) -> None:
    """
    Check that something can be mounted at a directory, before any other work.

    :raises SnapmigError: it can't, or FUSE is missing
    """
    load_fuse()
    check_device()
    check_directory(directory)


def serve(
    root: Folder,
    directory: Path,
    options: MountOptions,
    *,
    ready: Callable[[], None],
    report: Callable[[str], None],
) -> None:
    """
    Serve a tree until it is unmounted, or a signal ends it.

    :param ready: called once the files can be read
    :param report: takes a sentence about each error of a reader
    :raises SnapmigError: it can't be mounted
    """
    from snapmig.mounts.server import Session, TreeServer  # noqa: PLC0415 - needs an extra

    settled = threading.Thread(target=_settle, args=(directory, ready), daemon=True)
    with tempfile.TemporaryFile() as words, _standard_streams(words.fileno()) as give_back:

        def started() -> None:
            give_back()
            settled.start()

        server = TreeServer(root, started, report, everybody=options.everybody)
        timeout = _FOREVER_S if options.fixed else 1
        try:
            with _default_signals():
                Session(
                    server,
                    str(directory),
                    foreground=True,  # the caller has made us a daemon
                    ro=not options.writable,
                    # One RAM in several files: what is cached of one goes when another changed.
                    auto_cache=options.writable,
                    kernel_cache=not options.writable,
                    auto_unmount=True,
                    allow_other=options.everybody,
                    fsname=source_name(options.shown).replace("\\", "\\\\").replace(",", "\\,"),
                    subtype="snapmig",
                    attr_timeout=timeout,
                    entry_timeout=timeout,
                    negative_timeout=timeout,
                )
        except RuntimeError as error:
            if error.args != (_ENDED_BY_SIGNAL,):
                raise _failure(words, directory) from error


def _failure(words: object, directory: Path) -> SnapmigError:
    words.seek(0)  # type: ignore[attr-defined]
    said = words.read(4096).decode("utf-8", "replace").split("\n")  # type: ignore[attr-defined]
    line = next((line for line in reversed(said) if line.strip()), "no reason was given")
    reason = line.removeprefix("fuse: ").removeprefix("fusermount3: ")
    return SnapmigError(f"can't be mounted at: {reason}", path=str(directory))


def _settle(directory: Path, ready: Callable[[], None]) -> None:
    # The kernel answers once it has our own first answer, which we must not delay for that.
    with suppress(OSError):
        os.stat(directory)
    ready()


@contextmanager
def _standard_streams(words: int) -> Iterator[Callable[[], None]]:
    # libfuse and its helper print their errors; one of them is the reason for ours. The helper
    # stays as long as the mount, so a pipe from us must not be its output.
    kept = {fd: os.dup(fd) for fd in _STREAMS}
    for fd in _STREAMS:
        os.dup2(words, fd)

    def give_back() -> None:
        while kept:
            fd, own = kept.popitem()
            os.dup2(own, fd)
            os.close(own)

    try:
        yield give_back
    finally:
        give_back()


@contextmanager
def _default_signals() -> Iterator[None]:
    # libfuse ends its loop and unmounts at a signal, if nobody else has a handler for it.
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
