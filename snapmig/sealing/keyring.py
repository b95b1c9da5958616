"""Passphrases, key files and age keys of a user: they open key slots, and make new ones."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from snapmig.errors import CorruptSnapshotError, KeyRequiredError, SnapmigError, UsageError
from snapmig.sealing.file_key import FileKey, SealedError, opened
from snapmig.sealing.key_table import (
    MAX_LABEL_SIZE,
    MAX_PAYLOAD_SIZE,
    KeySlot,
    KeyTable,
    SlotKind,
)
from snapmig.sealing.library import aes_gcm, age, argon2id, hkdf

__all__ = ("COSTS", "Keyring", "Keys", "KnownSeal", "NewSeal", "Seal")

COSTS = (3, 64 << 10, 4)
"""Iterations, KiB of memory and lanes of Argon2id for new slots: the second choice of RFC 9106,
0.3 s here. A key is opened once for a command."""

_MAX_FILE_SIZE = 1 << 20
_MIN_KEY_FILE_SIZE = 32

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Keys:
    """
    Keys for sealed snapshots: all open, and all but identities lock.

    :param passphrase: itself; from a program only, never from a command line
    :param passphrase_file: a file whose contents are a passphrase, without the newline at the end
    :param passphrase_command: a shell command that prints one
    :param key_file: files of at least 32 random bytes, used whole
    :param recipient: age recipients (``age1...`` or an ssh public key) that snapshots are locked to
    :param identity: files with age identities or an ssh private key, that open what is locked to
        their recipients; without another key, they lock to their own recipients
    :param ask: asks somebody for a passphrase: called with True for a new one
    """

    passphrase: str | bytes | None = field(default=None, repr=False)
    passphrase_file: PathLike | None = None
    passphrase_command: str | None = None
    key_file: Sequence[PathLike] = ()
    recipient: Sequence[str] = ()
    identity: Sequence[PathLike] = ()
    ask: Callable[[bool], str] | None = field(default=None, repr=False, compare=False)

    def __bool__(self) -> bool:
        """Return True if a key is given, one to be asked for left aside."""
        return any(
            (
                self.passphrase is not None, self.passphrase_file, self.passphrase_command,
                self.key_file, self.recipient, self.identity,
            )
        )  # fmt: skip


class Keyring:
    """
    A user's keys, each read once, for it may come from a pipe.

    Keys derived from passphrases are kept, and new slots take a known salt: a chain of snapshots
    with one passphrase costs Argon2id once.
    """

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self._phrase: bytes | None = None
        self._derived: dict[tuple[SlotKind, bytes, bytes, tuple[int, int, int]], bytes] = {}

    def unlock(self, table: KeyTable, *, secret: bool) -> FileKey:
        """
        Return the file key of a snapshot.

        :raises KeyRequiredError: there is no key, or none fits
        :raises CorruptSnapshotError: the key table was changed without a key
        """
        return self.opening(table, secret=secret)[0]

    def opening(self, table: KeyTable, *, secret: bool) -> tuple[FileKey, KeySlot]:
        """Return the file key, as :meth:`unlock` does, and the slot that gave it."""
        for slot, value in self._values(table):
            key = FileKey(value, secret=secret)
            if key.commitment == table.commitment:
                table.check_seal(key)
                return key, slot
        shown = ", ".join(slot.shown for slot in table.used) or "no slot at all"
        what = "encrypted" if secret else "signed"
        if not self.keys and self.keys.ask is None:
            raise KeyRequiredError(f"is {what} and needs a key; its slots are: {shown}")
        raise KeyRequiredError(f"none of the given keys fits; its slots are: {shown}")

    def slots(self, key: FileKey) -> list[KeySlot]:
        """
        Return new slots, one for each of the user's keys.

        :raises UsageError: there is no key to lock with
        """
        made = []
        phrase = self._passphrase(new=True) if self._locks_with_phrase else None
        if phrase is not None:
            made.append(self._wrap(SlotKind.PASSPHRASE, phrase, "", key))
        for path, content in zip(self.keys.key_file, self._contents, strict=True):
            label = _shortened(os.path.basename(os.fspath(path)))  # noqa: PTH119 - any path type
            made.append(self._wrap(SlotKind.KEY_FILE, content, label, key))
        recipients = list(self.keys.recipient)
        if not made and not recipients:
            recipients = own_recipients(self._identities)
        made += [_for_recipient(each, key) for each in recipients]
        if not made:
            message = "needs a key to lock with: a passphrase, a key file or a recipient"
            raise UsageError(message)
        return made

    def prepare(self) -> None:
        """
        Read the keys to lock with, and derive what takes time: before a guest has to wait for it.

        :raises UsageError: one of them is none
        """
        self.slots(FileKey.new(secret=False))

    @property
    def _locks_with_phrase(self) -> bool:
        keys = self.keys
        given = keys.passphrase is not None or keys.passphrase_file or keys.passphrase_command
        return bool(given) or (not keys and keys.ask is not None)

    def _values(self, table: KeyTable) -> Iterator[tuple[KeySlot, bytes]]:
        # Candidates for the file key, those that cost nothing first.
        slots = table.used
        contents = self._contents
        for slot in slots:
            if slot.kind == SlotKind.KEY_FILE:
                for content in contents:
                    yield from ((slot, value) for value in self._unwrap(slot, content))
        identities = self._identities
        for slot in slots:
            if slot.kind == SlotKind.AGE and identities:
                yield from ((slot, value) for value in _opened_by(slot, identities))
        if any(slot.kind == SlotKind.PASSPHRASE for slot in slots):
            phrase = self._passphrase(new=False)
            for slot in slots:
                if slot.kind == SlotKind.PASSPHRASE and phrase is not None:
                    yield from ((slot, value) for value in self._unwrap(slot, phrase))

    @cached_property
    def _contents(self) -> list[bytes]:
        return [read_key_file(path) for path in self.keys.key_file]

    @cached_property
    def _identities(self) -> list[object]:
        return [each for path in self.keys.identity for each in read_identities(path)]

    def _passphrase(self, *, new: bool) -> bytes | None:
        if self._phrase is None:
            self._phrase = _read_passphrase(self.keys, new=new)
        return self._phrase

    def _unwrap(self, slot: KeySlot, secret: bytes) -> Iterator[bytes]:
        derived = self._derive(slot.kind, secret, slot.salt, slot.costs)
        try:
            yield opened(aes_gcm(derived), slot.nonce, slot.wrapped, bytes([slot.kind]))
        except SealedError:
            del self._derived[slot.kind, secret, slot.salt, slot.costs]

    def _wrap(self, kind: SlotKind, secret: bytes, label: str, key: FileKey) -> KeySlot:
        costs = COSTS if kind == SlotKind.PASSPHRASE else (0, 0, 0)
        known = (
            salt
            for of, whose, salt, cost in self._derived
            if (of, whose, cost) == (kind, secret, costs)
        )
        salt = next(known, None) or os.urandom(32)
        nonce = os.urandom(12)
        derived = self._derive(kind, secret, salt, costs)
        wrapped = aes_gcm(derived).encrypt(nonce, key.value, bytes([kind]))
        return KeySlot(kind, time.time_ns(), label, costs, salt, nonce, wrapped)

    def _derive(
        self, kind: SlotKind, secret: bytes, salt: bytes, costs: tuple[int, int, int]
    ) -> bytes:
        place = (kind, secret, salt, costs)
        if place not in self._derived:
            if kind == SlotKind.PASSPHRASE:
                self._derived[place] = argon2id(secret, salt, *costs)
            else:
                self._derived[place] = hkdf(secret, b"snapmig key file", salt)
        return self._derived[place]


class Seal(Protocol):
    """The seal of a snapshot to be made."""

    def key(self, earlier: bytes) -> FileKey:
        """
        Return its file key.

        :param earlier: the key table that an interrupted run wrote; empty for none
        """

    def slots(self, key: FileKey) -> Sequence[KeySlot]:
        """Return its key slots."""


class KnownSeal(NamedTuple):
    """The seal of a snapshot that several processes make, with a key of the first of them."""

    known: FileKey
    table: KeyTable

    def key(self, earlier: bytes) -> FileKey:  # noqa: ARG002 - the others' is the same
        """Return the file key."""
        return self.known

    def slots(self, key: FileKey) -> Sequence[KeySlot]:  # noqa: ARG002
        """Return the key slots."""
        return self.table.used


class NewSeal(NamedTuple):
    """
    The seal of a snapshot that one process makes.

    :param secret: encrypt it; else sign it
    """

    keyring: Keyring
    secret: bool

    def key(self, earlier: bytes) -> FileKey:
        """
        Return the file key of an interrupted run, or a fresh one.

        A slot for an age recipient is not believed: anybody can make one, with a key they know.

        :param earlier: the key table that the run wrote; empty for none
        """
        with suppress(KeyRequiredError, CorruptSnapshotError):
            key, slot = self.keyring.opening(KeyTable.unpack(earlier), secret=self.secret)
            if slot.kind != SlotKind.AGE:
                return key
        return FileKey.new(secret=self.secret)

    def slots(self, key: FileKey) -> Sequence[KeySlot]:
        """Return new slots for the user's keys."""
        return self.keyring.slots(key)


def read_key_file(path: PathLike) -> bytes:
    """
    Return the contents of a key file.

    :raises UsageError: it is too short to be one, or too long
    :raises OSError: it can't be read
    """
    content = _read(path)
    if len(content) < _MIN_KEY_FILE_SIZE:
        message = f"has {len(content)} bytes, expected a key file of at least {_MIN_KEY_FILE_SIZE}"
        raise UsageError(message, path=os.fspath(path))
    return content


def read_identities(path: PathLike) -> list[object]:
    """
    Return the age identities of a file: lines of ``AGE-SECRET-KEY-``, or an ssh private key.

    :raises UsageError: there is none
    :raises OSError: it can't be read
    """
    pyrage, content = age(), _read(path)
    try:
        if content.startswith(b"-----BEGIN"):
            return [pyrage.ssh.Identity.from_buffer(content)]
        lines = (line.strip() for line in content.decode().splitlines())
        found = [
            pyrage.x25519.Identity.from_str(each) for each in lines if each[:1] not in ("", "#")
        ]
    except (pyrage.IdentityError, UnicodeDecodeError):
        found = []
    if not found:
        message = "has no age identity (AGE-SECRET-KEY-...) and no unencrypted ssh private key"
        raise UsageError(message, path=os.fspath(path))
    return found


def own_recipients(identities: Iterable[Any]) -> list[str]:
    """Return the recipients of identities, none for an ssh key."""
    return [str(each.to_public()) for each in identities if hasattr(each, "to_public")]


def _opened_by(slot: KeySlot, identities: Sequence[object]) -> Iterator[bytes]:
    pyrage = age()
    try:
        yield pyrage.decrypt(slot.payload, identities)
    except pyrage.DecryptError:
        return


def _for_recipient(text: str, key: FileKey) -> KeySlot:
    pyrage = age()
    try:
        kind = pyrage.ssh if text.startswith("ssh-") else pyrage.x25519
        recipient = kind.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        message = f"{text!r} is no recipient of age: expected age1... or ssh-..."
        raise UsageError(message) from error
    payload = pyrage.encrypt(key.value, [recipient])
    if len(payload) > MAX_PAYLOAD_SIZE:
        raise UsageError(f"recipient {text[:40]!r} takes more room than a key slot has")
    return KeySlot(SlotKind.AGE, time.time_ns(), _shortened(text), payload=payload)


def _read_passphrase(keys: Keys, *, new: bool) -> bytes | None:
    if keys.passphrase is not None:
        phrase = keys.passphrase
        found = phrase.encode() if isinstance(phrase, str) else phrase
    elif keys.passphrase_file:
        found = _without_newline(_read(keys.passphrase_file))
    elif keys.passphrase_command:
        found = _without_newline(_run(keys.passphrase_command))
    elif keys.ask is not None:
        found = keys.ask(new).encode()
        if not found and not new:
            return None
    else:
        return None
    if not found:
        raise UsageError("the passphrase is empty")
    return found


def _run(command: str) -> bytes:
    # Imported here because it brings subprocess, for which few have use.
    from snapmig.system.programs import FilterError, filter_pieces  # noqa: PLC0415

    with Path(os.devnull).open("rb") as nothing:
        try:
            found = b"".join(filter_pieces(["sh", "-c", command], nothing.fileno()))
        except FilterError as error:
            raise SnapmigError(f"the passphrase command failed: {error.message}") from error
    if len(found) > _MAX_FILE_SIZE:
        raise UsageError("the passphrase command printed more than 1 MiB")
    return found


def _read(path: PathLike) -> bytes:
    # Also from a pipe: shells give secrets as /dev/fd/63.
    with Path(path).open("rb") as file:
        content = file.read(_MAX_FILE_SIZE + 1)
    if len(content) > _MAX_FILE_SIZE:
        raise UsageError("has more than 1 MiB, which is no key", path=os.fspath(path))
    return content


def _without_newline(content: bytes) -> bytes:
    return content.removesuffix(b"\n").removesuffix(b"\r")


def _shortened(label: str) -> str:
    clean = "".join(each for each in label if each.isprintable())
    return clean.encode()[:MAX_LABEL_SIZE].decode("utf-8", "ignore")
