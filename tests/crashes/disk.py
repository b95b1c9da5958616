"""
A disk that loses power: of what a run wrote, only what it synced is certain.

Everything later is there or not, each call by itself, as chance has it: a write also in some of its
sectors only. Names are the directory's: a file that was synced may have lost its name, or kept an
older one.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from tests.crashes.shim import Call, Entry

SECTOR = 512
_DATA = (Call.WRITE, Call.TRUNCATE, Call.PUNCH)


class Disk:
    """
    A folder, before and while a run changes it.

    :param folder: as it is before the run; all of it is on stable storage
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        files = [path for path in folder.iterdir() if path.is_file()]
        self._names = {str(path): path.stat().st_ino for path in files}
        self._contents = {path.stat().st_ino: path.read_bytes() for path in files}

    def after(
        self,
        entries: Sequence[Entry],
        chance: float,
        dice: random.Random,
        wanted: Collection[str] | None = None,
    ) -> dict[str, bytes]:
        """
        Return files by name after some calls and a power cut.

        :param chance: of each change that is not synced
        :param wanted: only these files
        """
        synced = _last_syncs(entries)
        names = self._names_after(entries, chance, dice, synced)
        found = {}
        for name, inode in names.items():
            short = str(Path(name).relative_to(self._folder))
            if wanted is None or short in wanted:
                data = bytearray(self._contents.get(inode, b""))
                for number, entry in enumerate(entries):
                    if entry.inode == inode and entry.kind in _DATA:
                        certain = number < synced.get(inode, -1)
                        if certain or dice.random() < chance:
                            _change(data, entry, None if certain else dice)
                found[short] = bytes(data)
        return found

    def _names_after(
        self,
        entries: Sequence[Entry],
        chance: float,
        dice: random.Random,
        synced: Mapping[object, int],
    ) -> dict[str, int]:
        names = dict(self._names)
        for number, entry in enumerate(entries):
            if entry.kind in (*_DATA, Call.SYNC):
                continue
            if number < synced.get(str(Path(entry.path).parent), -1) or dice.random() < chance:
                _rename(names, entry)
        return names


def _last_syncs(entries: Sequence[Entry]) -> dict[object, int]:
    # By inode, and by path for directories.
    synced: dict[object, int] = {}
    for number, entry in enumerate(entries):
        if entry.kind == Call.SYNC:
            synced[entry.inode] = synced[entry.path] = number
    return synced


def _change(data: bytearray, entry: Entry, dice: random.Random | None) -> None:
    if entry.kind == Call.TRUNCATE:
        _resize(data, entry.offset)
        return
    if entry.kind == Call.PUNCH:
        stop = min(len(data), entry.offset + entry.length)
        if stop > entry.offset:
            data[entry.offset : stop] = bytes(stop - entry.offset)
        return
    torn = dice is not None and dice.random() < 0.2
    for start, piece in _sectors(entry) if torn else [(entry.offset, entry.data)]:
        if torn and dice is not None and dice.random() < 0.5:
            continue
        _resize(data, max(len(data), start + len(piece)))
        data[start : start + len(piece)] = piece


def _sectors(entry: Entry) -> Iterable[tuple[int, bytes]]:
    at = entry.offset
    while at < entry.offset + len(entry.data):
        stop = at // SECTOR * SECTOR + SECTOR
        yield at, entry.data[at - entry.offset : stop - entry.offset]
        at = stop


def _resize(data: bytearray, size: int) -> None:
    if size < len(data):
        del data[size:]
    else:
        data.extend(bytes(size - len(data)))


def _rename(names: dict[str, int], entry: Entry) -> None:
    if entry.kind in (Call.OPEN, Call.LINK, Call.RENAME):
        names[entry.other or entry.path] = entry.inode
    if entry.kind in (Call.UNLINK, Call.RENAME) and names.get(entry.path) == entry.inode:
        del names[entry.path]


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files, zeros as holes."""
    for name, content in files.items():
        with (folder / name).open("wb") as file:
            file.truncate(len(content))
            for at in range(0, len(content), 1 << 16):
                piece = content[at : at + (1 << 16)]
                if piece.count(0) < len(piece):
                    file.seek(at)
                    file.write(piece)
        (folder / name).chmod(0o600)
