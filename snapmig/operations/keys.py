"""``key``: the key slots of a sealed snapshot, changed without its data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from snapmig.container.format import Sealing
from snapmig.container.reader import SnapshotFile
from snapmig.errors import DestinationExistsError, SnapmigError, UsageError
from snapmig.operations.options.arguments import checks_arguments
from snapmig.operations.options.keys import parse_keys
from snapmig.sealing.file_key import KEY_SIZE, FileKey
from snapmig.sealing.key_table import MAX_LABEL_SIZE, SLOTS, KeySlot, KeyTable
from snapmig.sealing.keyring import Keyring, Keys
from snapmig.sealing.table_file import TableFile, opened_table
from snapmig.stores.location import parse_location
from snapmig.system.partial import write_file

__all__ = (
    "KeySlotInfo",
    "KeysInfo",
    "add_keys",
    "list_keys",
    "new_key",
    "remove_key",
    "rotate_keys",
)

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class KeySlotInfo:
    """
    A key slot.

    :param slot: its number
    :param kind: ``passphrase``, ``key file`` or ``age``
    :param created: ISO 8601 in UTC
    """

    slot: int
    kind: str
    label: str
    created: str


@dataclass(frozen=True, slots=True)
class KeysInfo:
    """
    The key slots of a snapshot.

    :param sealing: ``signed`` or ``encrypted``
    :param proved: a key has shown that the table was written by somebody with a key
    """

    snapshot: str
    sealing: str
    slots: tuple[KeySlotInfo, ...]
    proved: bool


@checks_arguments
def list_keys(snapshot: PathLike, *, keys: Keys | None = None) -> KeysInfo:
    """
    Return the key slots of a sealed snapshot.

    :raises UsageError: it is not sealed
    :raises KeyRequiredError: none of ``keys`` fits
    :raises CorruptSnapshotError: its key table is damaged, or was changed without a key
    """
    with SnapshotFile(os.fspath(snapshot), keys=parse_keys(keys), locked=True) as file:
        if file.sealing == Sealing.NONE:
            raise UsageError("is not sealed, and has no keys", path=file.shown)
        return _info(file.shown, file.sealing, file.key_table(), proved=file.is_proved)


@checks_arguments
def add_keys(
    snapshot: PathLike, *, new: Keys, keys: Keys | None = None, label: str | None = None
) -> KeysInfo:
    """
    Let further keys open a sealed snapshot.

    :param new: the keys to add, a slot for each
    :param keys: to open it with
    :param label: of the new slots, up to 128 bytes; default: the name of a file, or a recipient
    :raises UsageError: it is not sealed, not a file, or has no free slot
    :raises KeyRequiredError: none of ``keys`` fits
    """
    with _changing(snapshot, keys) as change:
        return change.done([*change.table.slots, *_labelled(Keyring(new).slots(change.key), label)])


@checks_arguments
def remove_key(snapshot: PathLike, slot: int, *, keys: Keys | None = None) -> KeysInfo:
    """
    Take a slot away. Who knew its key may have kept the file key, or an older copy of the file.

    :param slot: its number
    :param keys: any that open it
    :raises UsageError: there is no such slot, or no other
    """
    with _changing(snapshot, keys) as change:
        slots = list(change.table.slots)
        if not 0 <= slot < len(slots) or slots[slot] is None:
            raise UsageError(f"has no key slot {slot}", path=os.fspath(snapshot))
        if len(change.table.used) == 1:
            message = "has no other key slot: without one nobody could open it again"
            raise UsageError(message, path=os.fspath(snapshot))
        slots[slot] = None
        return change.done(slots)


@checks_arguments
def rotate_keys(
    snapshot: PathLike, *, new: Keys, keys: Keys | None = None, label: str | None = None
) -> KeysInfo:
    """
    Put new keys in the place of the one that opens it.

    The data stay as they are, under the file key that the old key gave.

    :param new: the keys to add
    :param keys: opens it; its slot is removed
    """
    with _changing(snapshot, keys) as change:
        slots = [None if slot == change.opened else slot for slot in change.table.slots]
        return change.done([*slots, *_labelled(Keyring(new).slots(change.key), label)])


def new_key(path: PathLike) -> None:
    """
    Make a key file: 32 random bytes in hexadecimal digits, readable by its owner only.

    :raises SnapmigError: the file exists: what it has locked would be lost with it
    """
    try:
        write_file(Path(path), os.urandom(KEY_SIZE).hex().encode() + b"\n")
    except DestinationExistsError as error:
        message = "exists already, and a key is never overwritten"
        raise SnapmigError(message, path=os.fspath(path)) from error


class _Change:
    # An opened key table, and how to put another one in its place.
    def __init__(self, shown: str, file: TableFile, sealing: Sealing, keyring: Keyring) -> None:
        self._shown = shown
        self._file = file
        self._sealing = sealing
        self.table = file.read()
        self.key: FileKey
        self.opened: KeySlot
        secret = sealing == Sealing.ENCRYPTED
        self.key, self.opened = keyring.opening(self.table, secret=secret)

    def done(self, slots: list[KeySlot | None]) -> KeysInfo:
        # Slots keep their numbers; new ones take the free places.
        kept, more = slots[:SLOTS], [slot for slot in slots[SLOTS:] if slot is not None]
        for slot in more:
            if None not in kept:
                message = f"has {SLOTS} key slots at most, remove one first"
                raise UsageError(message, path=self._shown)
            kept[kept.index(None)] = slot
        self._file.write(self.table._replace(slots=tuple(kept)), self.key)
        return _info(self._shown, self._sealing, self._file.read(), proved=True)


@contextmanager
def _changing(snapshot: PathLike, keys: Keys | None) -> Iterator[_Change]:
    place = parse_location(snapshot)
    if not isinstance(place, Path):
        raise UsageError("its keys can be changed in a file, not in an object", path=str(place))
    shown = str(place)
    keyring = parse_keys(keys) or Keyring(Keys())
    try:
        with SnapshotFile(shown, locked=True) as source:  # which checks its places
            block = source.superblock
        if not block.sealing:
            raise UsageError("is not sealed, and has no keys")
        with opened_table(shown, block.key_table_offset) as file:
            yield _Change(shown, file, Sealing(block.sealing), keyring)
    except SnapmigError as error:
        error.path = error.path or shown
        raise


def _labelled(slots: list[KeySlot], label: str | None) -> list[KeySlot]:
    if label is None:
        return slots
    if not label.isprintable() or len(label.encode()) > MAX_LABEL_SIZE:
        message = f"label is {label!r}, expected at most {MAX_LABEL_SIZE} printable bytes"
        raise UsageError(message)
    return [slot._replace(label=label) for slot in slots]


def _info(shown: str, sealing: Sealing, table: KeyTable, *, proved: bool) -> KeysInfo:
    return KeysInfo(
        snapshot=shown,
        sealing=sealing.name.lower(),
        slots=tuple(
            KeySlotInfo(
                number,
                slot.kind.shown,
                slot.label,
                datetime.fromtimestamp(slot.created_ns / 1e9, UTC).isoformat("T", "seconds"),
            )
            for number, slot in enumerate(table.slots)
            if slot is not None
        ),
        proved=proved,
    )
