"""
The key table of a sealed snapshot, as bytes: slots that wrap its file key. No I/O.

Two copies make a change safe: one of them is whole at any moment.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from snapmig.checksums import crc32
from snapmig.errors import CorruptSnapshotError, UsageError
from snapmig.sealing.file_key import FileKey

__all__ = (
    "COPIES",
    "KEY_TABLE_SIZE",
    "MAX_LABEL_SIZE",
    "SLOTS",
    "TABLE_SIZE",
    "KeySlot",
    "KeyTable",
    "SlotKind",
)

MAGIC = b"SNAPKEYS"
TABLE_SIZE = 65536
COPIES = 2
KEY_TABLE_SIZE = COPIES * TABLE_SIZE
SLOTS = 16
SLOT_SIZE = 4032
MAX_LABEL_SIZE = 128
MAX_PAYLOAD_SIZE = 3784

MAX_ITERATIONS = 64
MAX_MEMORY = 1 << 21
"""KiB."""
MAX_LANES = 64

_HEAD = struct.Struct("<8sIIQ32s32s936x")
_SLOT = struct.Struct(f"<B3sIIIQ32s12s48sHH{MAX_LABEL_SIZE}s{MAX_PAYLOAD_SIZE}s")


class SlotKind(IntEnum):
    """Kinds of key slots, by what opens them."""

    PASSPHRASE = 1
    KEY_FILE = 2
    AGE = 3

    @property
    def shown(self) -> str:
        """The kind in words."""
        return self.name.lower().replace("_", " ")


class KeySlot(NamedTuple):
    """
    A file key wrapped for one passphrase, key file or age recipient.

    :param costs: iterations, KiB of memory and lanes of Argon2id; zeros for other kinds
    :param payload: an age file; empty for other kinds
    """

    kind: SlotKind
    created_ns: int
    label: str
    costs: tuple[int, int, int] = (0, 0, 0)
    salt: bytes = bytes(32)
    nonce: bytes = bytes(12)
    wrapped: bytes = bytes(48)
    payload: bytes = b""

    @property
    def shown(self) -> str:
        """Kind and label in words."""
        return f"{self.kind.shown} {self.label!r}" if self.label else self.kind.shown

    def pack(self) -> bytes:
        """Return the stored form."""
        return _SLOT.pack(
            self.kind, b"", *self.costs, self.created_ns, self.salt, self.nonce, self.wrapped,
            len(self.payload), 0, self.label.encode(), self.payload,
        )  # fmt: skip

    @classmethod
    def unpack(cls, number: int, raw: bytes) -> KeySlot | None:
        """
        Return a stored slot, None for a free one.

        :param number: of the slot
        :raises CorruptSnapshotError: it breaks a rule, such as the limit of memory
        """
        if not any(raw):
            return None
        kind, reserved, *costs, created_ns, salt, nonce, wrapped, size, more, label, payload = (
            _SLOT.unpack(raw)
        )
        name = label.rstrip(b"\0")
        is_age, is_phrase = kind == SlotKind.AGE, kind == SlotKind.PASSPHRASE
        right = (
            kind in set(SlotKind)
            and not any(reserved) and more == 0
            and (_are_costs(*costs) if is_phrase else not any(costs))
            and (not any(salt + nonce + wrapped) if is_age else size == 0)
            and (0 < size <= MAX_PAYLOAD_SIZE) == is_age
            and not any(payload[size:])
            and b"\0" not in name and _is_utf8(name)
        )  # fmt: skip
        if not right:
            raise CorruptSnapshotError(f"key table: slot {number} breaks a rule of the format")
        return cls(
            SlotKind(kind), created_ns, name.decode(), tuple(costs), salt, nonce, wrapped,
            payload[:size],
        )  # fmt: skip


class KeyTable(NamedTuple):
    """The slots of a snapshot, with what proves them."""

    slots: tuple[KeySlot | None, ...] = (None,) * SLOTS
    commitment: bytes = bytes(32)
    generation: int = 0
    seal: bytes = bytes(32)

    @classmethod
    def of(cls, slots: Sequence[KeySlot]) -> KeyTable:
        """
        Return a table of new slots.

        :raises UsageError: there are more than it has room for
        """
        if len(slots) > SLOTS:
            raise UsageError(f"{len(slots)} keys, expected at most {SLOTS}")
        return cls((*slots, *(None,) * (SLOTS - len(slots))))

    @property
    def used(self) -> list[KeySlot]:
        """The slots that are not free."""
        return [slot for slot in self.slots if slot is not None]

    def pack(self, key: FileKey) -> bytes:
        """Return one stored copy, sealed."""
        bare = self._replace(commitment=key.commitment, seal=bytes(32))
        sealed = bare._replace(seal=key.mac("key table", bare._bytes()))
        return sealed._bytes(crc32(sealed._bytes()))

    def _bytes(self, checksum: int = 0) -> bytes:
        head = _HEAD.pack(MAGIC, checksum, 0, self.generation, self.commitment, self.seal)
        free = bytes(SLOT_SIZE)
        return head + b"".join(free if slot is None else slot.pack() for slot in self.slots)

    @classmethod
    def unpack(cls, raw: bytes) -> KeyTable:
        """
        Return the table of two stored copies, the first one that is sound.

        :raises CorruptSnapshotError: both are damaged, or a slot breaks a rule
        """
        for at in range(0, KEY_TABLE_SIZE, TABLE_SIZE):
            copy = raw[at : at + TABLE_SIZE]
            if copy[:8] != MAGIC or len(copy) < TABLE_SIZE:
                continue
            _, checksum, reserved, generation, commitment, seal = _HEAD.unpack_from(copy)
            if crc32(copy[12:], crc32(bytes(4), crc32(copy[:8]))) != checksum:
                continue
            if reserved or any(copy[88:1024]):
                raise CorruptSnapshotError("key table has reserved bytes set")
            slots = (
                copy[start : start + SLOT_SIZE] for start in range(1024, TABLE_SIZE, SLOT_SIZE)
            )
            found = tuple(KeySlot.unpack(*each) for each in enumerate(slots))
            return cls(found, commitment, generation, seal)
        raise CorruptSnapshotError("both copies of the key table are damaged")

    def check_seal(self, key: FileKey) -> None:
        """
        Check that the table was written by somebody with the file key.

        :raises CorruptSnapshotError: it was not
        """
        if not key.check_mac("key table", self._replace(seal=bytes(32))._bytes(), self.seal):
            raise CorruptSnapshotError("key table's seal is wrong: it was changed without a key")


def _are_costs(iterations: int, memory: int, lanes: int) -> bool:
    return (
        1 <= iterations <= MAX_ITERATIONS
        and 1 <= lanes <= MAX_LANES
        and 8 * lanes <= memory <= MAX_MEMORY
    )


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
