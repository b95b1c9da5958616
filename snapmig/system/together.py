"""Commit a set of files that are useless without each other: all of them, or none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from snapmig.errors import SnapmigError
from snapmig.system.files import sync_directory
from snapmig.system.partial import PartialFile, partial_path, remove_leftovers
from snapmig.system.signals import HeldSignals

__all__ = ("commit_together",)


def commit_together(files: Sequence[PartialFile], *, force: bool) -> None:
    """
    Give files of one directory their final names; all must be synced already.

    Old and new files never stand beside each other, not even if this process is killed. Old files
    are set aside first, starting with the last one, and come back if a step fails. New files follow
    in their order. So while the last file has its name, its complete set is there.

    :param files: the last is the main one, to which the others belong
    :param force: replace existing files
    :raises DestinationExistsError: a name is taken, and ``force`` is not set
    """
    if len(files) == 1:
        files[0].commit(force=force)
        return
    folder = files[0].path.parent
    with HeldSignals(), ExitStack() as undo:
        replaced = [file.path for file in reversed(files)] if force else []
        aside = [old for path in replaced if (old := _set_aside(path, undo)) is not None]
        sync_directory(folder)
        for file in files:
            facts = os.fstat(file.fd)
            undo.callback(_remove_own, file.path, (facts.st_dev, facts.st_ino))
            file.commit(force=False)
        undo.pop_all()
        for old in aside:
            with suppress(OSError):  # the commit itself succeeded
                old.unlink()
        for file in files:  # what a killed run had set aside
            remove_leftovers(file.path, "old")
        sync_directory(folder)


def _set_aside(path: Path, undo: ExitStack) -> Path | None:
    aside = partial_path(path, "old")
    undo.callback(_bring_back, aside, path)
    try:
        path.rename(aside)
    except FileNotFoundError:
        return None
    return aside


def _bring_back(aside: Path, path: Path) -> None:
    try:
        aside.rename(path)
    except FileNotFoundError:  # perhaps setting it aside was the step that failed
        pass
    except OSError as error:
        message = f"the old file can't have its name again, it is kept as {aside}: {error.strerror}"
        raise SnapmigError(message, path=str(path)) from error


def _remove_own(path: Path, own: tuple[int, int]) -> None:
    with suppress(FileNotFoundError):
        facts = path.lstat()
        if (facts.st_dev, facts.st_ino) == own:
            path.unlink()
