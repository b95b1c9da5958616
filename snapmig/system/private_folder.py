"""A folder of a process's own for a UNIX socket."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Self

from snapmig.errors import SnapmigError

__all__ = ("PrivateFolder",)

_FOLDERS = ("/run/user/{uid}", "/run", "/tmp")


class PrivateFolder:
    """
    A folder for a UNIX socket, with mode 0700; a context manager.

    :param uid: the user at the other end, given the folder if that is possible and not ourselves
    :ivar path: of a socket in it
    :raises SnapmigError: no folder can be made
    """

    def __init__(self, uid: int | None = None) -> None:
        self._folder = _make_folder(uid)
        self._uid = uid
        self.path = self._folder / "migration"
        self.give(self._folder)

    @property
    def uri(self) -> str:
        """Address of the socket, as QEMU takes it."""
        return f"unix:{self.path}"

    def give(self, path: Path) -> None:
        """Give a path to the user at the other end."""
        if self._uid not in (None, os.geteuid()):
            with suppress(PermissionError):  # QEMU gives the reason when it can't get there
                os.chown(path, self._uid, -1)

    def close(self) -> None:
        """Remove the folder. Connections stay open."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def _make_folder(uid: int | None) -> Path:
    own = os.geteuid()
    for name in _FOLDERS if uid in (None, own) else _FOLDERS[1:]:  # nobody else enters the first
        with suppress(OSError):  # not ours, or not there
            return Path(tempfile.mkdtemp(prefix="snapmig-", dir=name.format(uid=own)))
    raise SnapmigError("no folder for a socket can be made in /run or /tmp")
