"""The cryptographic libraries, imported only when needed: they take 30 ms, and are an extra."""

from __future__ import annotations

from typing import Any

from snapmig.errors import SnapmigError

__all__ = ("aes_block", "aes_gcm", "age", "argon2id", "hkdf")

_MISSING = "sealed snapshots need the Python package {}: pip install 'snapmig[crypto]'"


def aes_gcm(key: bytes) -> Any:
    """
    Return an AES-256-GCM with this key: its ``encrypt`` appends the tag to the ciphertext.

    :raises SnapmigError: the library is missing, or too old
    """
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415
    except ImportError as error:
        raise SnapmigError(_MISSING.format("cryptography")) from error
    if not hasattr(AESGCM, "encrypt_into"):
        raise SnapmigError(_MISSING.format("cryptography, version 47 or newer"))
    return AESGCM(key)


def aes_block(key: bytes) -> Any:
    """Return an encryptor of single AES-256 blocks, for any number of them side by side."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # noqa: PLC0415

    return Cipher(algorithms.AES256(key), modes.ECB()).encryptor()


def hkdf(key: bytes, info: bytes, salt: bytes | None = None) -> bytes:
    """Return 32 bytes of HKDF-SHA-256, RFC 5869."""
    try:
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415
    except ImportError as error:
        raise SnapmigError(_MISSING.format("cryptography")) from error
    return HKDF(SHA256(), 32, salt, info).derive(key)


def argon2id(secret: bytes, salt: bytes, iterations: int, memory: int, lanes: int) -> bytes:
    """
    Return 32 bytes of Argon2id, RFC 9106.

    :param memory: KiB
    :raises SnapmigError: the library is missing, or there is not as much memory
    """
    try:
        from cryptography.hazmat.primitives.kdf.argon2 import Argon2id  # noqa: PLC0415
    except ImportError as error:
        raise SnapmigError(_MISSING.format("cryptography")) from error
    try:
        return Argon2id(
            salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory
        ).derive(secret)
    except MemoryError as error:
        message = f"the passphrase takes {memory} KiB of memory, which this machine does not give"
        raise SnapmigError(message) from error


def age() -> Any:
    """
    Return the library for age recipients and identities.

    :raises SnapmigError: it is missing
    """
    try:
        import pyrage  # noqa: PLC0415
    except ImportError as error:
        raise SnapmigError(_MISSING.format("pyrage, for age")) from error
    return pyrage
