"""
The cryptography of the independent writer, from docs/format.md alone.

Nonces follow from a seed, so that a snapshot is the same each time that it is made.
"""

import hashlib
import hmac
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from tests.support.structures import pack

SIGNED, ENCRYPTED = 1, 2
PASSPHRASE, KEY_FILE, AGE = 1, 2, 3
TABLE_SIZE = 65536
SLOTS = 16
NONCE, TAG = 12, 16
PART = 1 << 20

KEY_TABLE_FIELDS = {
    "magic": "8s",
    "checksum": "I",
    "reserved": "I",
    "generation": "Q",
    "commitment": "32s",
    "seal": "32s",
    "reserved_rest": "936s",
    "slots": "64512s",
}
KEY_SLOT_FIELDS = {
    "kind": "B",
    "reserved_1": "3s",
    "iterations": "I",
    "memory": "I",
    "lanes": "I",
    "created_ns": "Q",
    "salt": "32s",
    "nonce": "12s",
    "wrapped": "48s",
    "payload_size": "H",
    "reserved_2": "2s",
    "label": "128s",
    "payload": "3784s",
}

Change = Callable[[bytes], bytes]
"""Makes other bytes of right ones."""


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """Return 32 bytes of HKDF-SHA-256 (RFC 5869): one step of each kind."""
    extracted = hmac.digest(salt or bytes(32), secret, "sha256")
    return hmac.digest(extracted, info + b"\1", "sha256")


def encrypted(key: bytes, nonce: bytes, plain: bytes, covered: bytes) -> tuple[bytes, bytes]:
    """Return the ciphertext of AES-256-GCM, and its tag."""
    made = AESGCM(key).encrypt(nonce, plain, covered)
    return made[:-TAG], made[-TAG:]


def joined_bits(one: bytes, other: bytes) -> bytes:
    """Return one xor the other."""
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


@dataclass
class KeySlot:
    """The file key, wrapped by a secret; `fields` replaces those of the slot."""

    kind: int
    secret: bytes = b""
    iterations: int = 1
    memory: int = 64
    lanes: int = 1
    label: str = ""
    payload: bytes = b""
    fields: dict = field(default_factory=dict)

    def build(self, file_key: bytes, number: int) -> bytes:
        """Return the slot's bytes."""
        if self.kind == 0:
            return pack(KEY_SLOT_FIELDS, self.fields)
        values = {
            "kind": self.kind,
            "created_ns": 1_700_000_000_000_000_000 + number,
            "label": self.label.encode(),
        }
        if self.kind == AGE:
            values |= {"payload_size": len(self.payload), "payload": self.payload}
        else:
            values |= self.wrapped(file_key, number)
        return pack(KEY_SLOT_FIELDS, values | self.fields)

    def wrapped(self, file_key: bytes, number: int) -> dict:
        """Return the fields that hold the file key."""
        salt = hashlib.sha256(b"salt %d" % number).digest()
        nonce = hashlib.sha256(b"nonce %d" % number).digest()[:NONCE]
        costs = {}
        if self.kind == PASSPHRASE:
            names = ("iterations", "memory", "lanes")
            costs = {name: getattr(self, name) for name in names}
            key = Argon2id(
                salt=salt,
                length=32,
                iterations=self.iterations,
                lanes=self.lanes,
                memory_cost=self.memory,
            ).derive(self.secret)
        else:
            key = hkdf(self.secret, salt, b"snapmig key file")
        ciphertext = b"".join(encrypted(key, nonce, file_key, bytes([self.kind])))
        return costs | {"salt": salt, "nonce": nonce, "wrapped": ciphertext}


@dataclass
class Sealing:
    """
    How a snapshot is sealed.

    `key_table` replaces fields of both copies. `changes` makes other bytes of what is sealed, by
    its name ("packet 0", "page digests 0", "attachment 0", "attachment table"): checksums and
    digests come after it, so only a tag can tell.
    """

    kind: int = ENCRYPTED
    slots: dict[int, KeySlot] = field(default_factory=dict)
    file_key: bytes = hashlib.sha256(b"file key").digest()
    seed: int = 0
    key_table: dict = field(default_factory=dict)
    changes: dict[str, Change] = field(default_factory=dict)

    def key(self, name: str) -> bytes:
        """Return the key of that name."""
        return hkdf(self.file_key, b"", b"snapmig " + name.encode())

    def nonce(self, name: str) -> bytes:
        """Return the nonce of a part of the snapshot."""
        return hashlib.sha256(f"{self.seed} {name}".encode()).digest()[:NONCE]

    def changed(self, name: str, stored: bytes) -> bytes:
        """Return the stored bytes of a part, as they are put into the file."""
        return self.changes.get(name, bytes)(stored)

    def seal(self, key: str, nonce: bytes, plain: bytes, covered: bytes) -> tuple[bytes, bytes]:
        """Return the stored bytes of a packet or its page digests, and their tag."""
        if self.kind == ENCRYPTED:
            return encrypted(self.key(key), nonce, plain, covered)
        return plain, encrypted(self.key(key), nonce, b"", covered + plain)[1]

    def digest(self, nonce: bytes, digest: bytes) -> bytes:
        """Return what a record holds as digest."""
        if self.kind == SIGNED:
            return digest
        cipher = Cipher(algorithms.AES(self.key("digests")), modes.ECB())
        return joined_bits(digest, cipher.encryptor().update(nonce + bytes(4)))

    def attachment(self, number: int, stored: bytes) -> bytes:
        """Return the bytes that the file has of an attachment."""
        if self.kind == ENCRYPTED:
            parts = [stored[at : at + PART] for at in range(0, len(stored), PART)]
            stored = b"".join(
                self.boxed(f"attachment {number}, {n}", "attachments", part, (number, n))
                for n, part in enumerate(parts)
            )
        return self.changed(f"attachment {number}", stored)

    def attachment_table(self, table: bytes) -> bytes:
        """Return the attachment table as it is stored."""
        if self.kind == ENCRYPTED and table:
            table = self.boxed("attachment table", "tables", table, ())
        return self.changed("attachment table", table)

    def boxed(self, name: str, key: str, plain: bytes, numbers: tuple[int, ...]) -> bytes:
        """Return a nonce, the ciphertext and the tag."""
        nonce = self.nonce(name)
        covered = struct.pack(f"<{len(numbers)}Q", *numbers)
        return nonce + b"".join(encrypted(self.key(key), nonce, plain, covered))

    def superblock_seal(self, superblock: bytes) -> bytes:
        """Return the seal of a superblock whose checksum and seal are zero."""
        return hmac.digest(self.key("seal"), superblock, "sha256")

    def build_key_table(self) -> bytes:
        """Return both copies of the key table."""
        slots = b"".join(
            self.slots[n].build(self.file_key, n) if n in self.slots else bytes(4032)
            for n in range(SLOTS)
        )
        values = {"magic": b"SNAPKEYS", "commitment": self.key("commitment"), "slots": slots}
        values |= self.key_table
        if "seal" not in values:
            unsealed = pack(KEY_TABLE_FIELDS, values | {"checksum": 0})
            values["seal"] = hmac.digest(self.key("key table"), unsealed, "sha256")
        values.setdefault("checksum", zlib.crc32(pack(KEY_TABLE_FIELDS, values)))
        return 2 * pack(KEY_TABLE_FIELDS, values)
