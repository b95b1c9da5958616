"""The shim's control file, and the log that it writes."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from tests.support.requirements import requires

_LOG = 4096
_FIELDS = struct.Struct("=QQQIIIiIIQQ")
_ENTRY = struct.Struct("=IIQQQIIII")


class Call(IntEnum):
    """Kinds of system calls, numbered as in the shim."""

    OPEN = 1
    WRITE = 2
    TRUNCATE = 3
    SYNC = 4
    RENAME = 5
    LINK = 6
    UNLINK = 7
    MKDIR = 8
    RMDIR = 9
    PUNCH = 10
    READ = 11


CHANGES = tuple(kind for kind in Call if kind != Call.READ)


class Action(IntEnum):
    """Ends of a call."""

    NOTHING = 0
    KILL_SELF = 1
    KILL_PARENT = 2
    KILL_ALL = 3
    KILL_TORN = 4
    FAIL = 5
    SHORT = 6


class Entry(NamedTuple):
    """A call that changed something."""

    kind: Call
    inode: int
    offset: int
    length: int
    path: str
    other: str
    data: bytes


def build(folder: Path) -> Path:
    """Compile the shim."""
    requires("gcc")
    made = folder / "shim.so"
    source = Path(__file__).with_name("shim.c")
    command = ["gcc", "-O1", "-shared", "-fPIC", "-o", made, source, "-ldl"]
    subprocess.run(command, check=True)
    return made


class Control:
    """
    The file through which tests and the shim speak.

    :param room: for the log, in bytes
    """

    def __init__(self, path: Path, room: int = 32 << 20) -> None:
        with path.open("w+b") as file:
            file.truncate(_LOG + room)
        self._open(path)

    @classmethod
    def opened(cls, path: Path) -> Control:
        """Open a file that another process made."""
        control = cls.__new__(cls)
        control._open(path)
        return control

    def _open(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._room = len(self._map) - _LOG

    def set(
        self,
        folder: Path,
        *,
        at: int = 0,
        last: int = 0,
        action: Action = Action.NOTHING,
        number: int = 0,
        calls: tuple[Call, ...] = CHANGES,
        logging: bool = False,
    ) -> None:
        """Prepare for a run in a folder: from call ``at`` to ``last`` do an action."""
        bits = sum(1 << kind for kind in calls)
        fields = (0, at, max(at, last), action, number, bits, 0, 0, logging, 0, self._room)
        self._map[: _FIELDS.size] = _FIELDS.pack(*fields)
        self._map[64:_LOG] = os.fsencode(folder).ljust(_LOG - 64, b"\0")

    def watch_no_more(self) -> None:
        """Let calls pass uncounted."""
        self._map[64] = 0

    def set_parent(self, pid: int) -> None:
        """Name the process that ``KILL_PARENT`` ends."""
        self._map[36:40] = struct.pack("=i", pid)

    @property
    def count(self) -> int:
        """Calls so far."""
        return struct.unpack_from("=Q", self._map)[0]

    def log(self) -> Iterator[Entry]:
        """Yield the calls that were made."""
        at, end = _LOG, _LOG + struct.unpack_from("=Q", self._map, 48)[0]
        while at < end:
            kind, _pid, inode, offset, length, path, other, data, _ = _ENTRY.unpack_from(
                self._map, at
            )
            at += _ENTRY.size
            texts = []
            for size in (path, other, data):
                texts.append(self._map[at : at + size])
                at += size
            names = [text.decode() for text in texts[:2]]
            yield Entry(Call(kind), inode, offset, length, *names, texts[2])
