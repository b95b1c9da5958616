"""The file key of a sealed snapshot, and the keys derived from it."""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from typing import Any

from snapmig.sealing.library import aes_gcm, hkdf
from snapmig.system.libc import hide_memory

__all__ = ("NONCE_SIZE", "SEALED_EXTRA", "TAG_SIZE", "FileKey", "SealedError")

KEY_SIZE = 32
NONCE_SIZE = 12
TAG_SIZE = 16
SEALED_EXTRA = NONCE_SIZE + TAG_SIZE
"""Bytes that a sealed unit takes besides its ciphertext."""


class SealedError(Exception):
    """Bytes are not what was sealed with this key."""


class FileKey:
    """
    32 random bytes, known to those with a key slot; printed nowhere, and picklable for workers.

    :param secret: the snapshot is encrypted; else only signed
    """

    def __init__(self, value: bytes, *, secret: bool) -> None:
        self.value = value
        self.secret = secret
        self._process = os.getpid()

    @classmethod
    def new(cls, *, secret: bool) -> FileKey:
        """Return a fresh one."""
        return cls(os.urandom(KEY_SIZE), secret=secret)

    def __repr__(self) -> str:
        return "<FileKey>"

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over a key in another process, a worker: from here on nobody sees its memory."""
        hide_memory()
        self.__dict__.update(state)

    def derive(self, use: str) -> bytes:
        """Return the key for one use, by its name in docs/format.md."""
        if os.getpid() != self._process:  # a forked worker, which took it over without a word
            hide_memory()
        return hkdf(self.value, b"snapmig " + use.encode())

    @property
    def commitment(self) -> bytes:
        """A value in the key table, the same for no other file key."""
        return self.derive("commitment")

    def mac(self, use: str, data: bytes) -> bytes:
        """Return the HMAC-SHA-256 of bytes."""
        return hmac.digest(self.derive(use), data, hashlib.sha256)

    def check_mac(self, use: str, data: bytes, expected: bytes) -> bool:
        """Return whether these bytes have this HMAC."""
        return hmac.compare_digest(self.mac(use, data), expected)

    def seal_table(self, table: bytes) -> bytes:
        """Return a table as an encrypted snapshot stores it; an empty one stays empty."""
        return _Units(self.derive("tables")).seal(table) if table else b""

    def open_table(self, stored: bytes) -> bytes:
        """
        Return a table that was stored encrypted.

        :raises SealedError: it is not what was sealed
        """
        return _Units(self.derive("tables")).open(stored) if stored else b""

    def parts(self, attachment: int) -> AttachmentParts:
        """Return a cipher for the parts of an attachment, by its number in the table."""
        return AttachmentParts(self.derive("attachments"), attachment)


class _Units:
    # Nonce, ciphertext and tag in a row.
    def __init__(self, key: bytes) -> None:
        self._cipher = aes_gcm(key)

    def seal(self, data: bytes, about: bytes = b"") -> bytes:
        nonce = os.urandom(NONCE_SIZE)
        return bytes(nonce + self._cipher.encrypt(nonce, data, about))

    def open(self, stored: bytes, about: bytes = b"") -> bytes:
        return opened(self._cipher, stored[:NONCE_SIZE], stored[NONCE_SIZE:], about)


class AttachmentParts:
    """Seals and opens the parts of one attachment, in order."""

    def __init__(self, key: bytes, number: int) -> None:
        self._units = _Units(key)
        self._number = number
        self._part = 0

    def seal(self, data: bytes) -> bytes:
        """Return the next part as it is stored."""
        return self._units.seal(data, self._about())

    def open(self, stored: bytes) -> bytes:
        """
        Return the next part.

        :raises SealedError: it is not the part that was sealed
        """
        return self._units.open(stored, self._about())

    def _about(self) -> bytes:
        self._part += 1
        return struct.pack("<QQ", self._number, self._part - 1)


def opened(cipher: Any, nonce: bytes, sealed: bytes, about: bytes) -> bytes:
    """
    Return the plain bytes of a ciphertext with its tag.

    :raises SealedError: they are not what was sealed
    """
    try:
        return bytes(cipher.decrypt(nonce, sealed, about))
    except Exception as error:
        if type(error).__name__ not in ("InvalidTag", "ValueError"):
            raise
        raise SealedError from None
