"""Options of keys and seals, common to all verbs that read or write snapshots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from snapmig.container.format import Sealing
from snapmig.container.head import SnapshotHead
from snapmig.errors import UsageError
from snapmig.operations.options.table import options_of
from snapmig.sealing.keyring import Keyring, Keys

__all__ = (
    "KEY_WORDS",
    "SEALINGS",
    "SealingName",
    "check_mixed",
    "keys_of",
    "parse_keys",
    "parse_sealing",
    "placed_keys",
    "prepare_keys",
    "with_keys",
)

KEY_WORDS = tuple(option.name for option in options_of("keys"))
"""Names of keys on the command line and in TOML files."""

SealingName = Literal["encrypted", "signed", "none"]
SEALINGS = ("encrypted", "signed", "none")

_ADJECTIVES = {Sealing.NONE: "plain", Sealing.SIGNED: "signed", Sealing.ENCRYPTED: "encrypted"}


def keys_of(words: Mapping[str, Any]) -> Keys | None:
    """Return the keys given by words of a command line or a file; None if there are none."""
    given = {name: words[name] for name in KEY_WORDS if words.get(name)}
    return Keys(**given) if given else None


def with_keys(words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a verb for words of a file: those of keys become one argument."""
    others = {name: value for name, value in words.items() if name not in KEY_WORDS}
    keys = keys_of(words)
    return others if keys is None else {**others, "keys": keys}


def placed_keys(words: Mapping[str, Any], place: Callable[[str], str]) -> dict[str, Any]:
    """
    Return those words of keys that are given, with their files where a function puts them.

    :param words: as of a TOML file
    """
    given = {name: words[name] for name in KEY_WORDS if words.get(name)}
    for name in ("key_file", "identity"):
        if name in given:
            given[name] = [place(path) for path in given[name]]
    if "passphrase_file" in given:
        given["passphrase_file"] = place(given["passphrase_file"])
    return given


def parse_keys(keys: Keys | None) -> Keyring | None:
    """Return a keyring for one run."""
    return None if keys is None else Keyring(keys)


def prepare_keys(keyring: Keyring | None, sealing: Sealing) -> None:
    """Have keys ready before a guest is touched, so that it never stands still for them."""
    if keyring is not None and sealing != Sealing.NONE:
        keyring.prepare()


def parse_sealing(keys: Keys | None, *, encrypt: bool, sign: bool) -> Sealing:
    """
    Return how a new snapshot is sealed.

    :raises UsageError: both ways, or without a key
    """
    if not encrypt and not sign:
        return Sealing.NONE
    if encrypt and sign:
        raise UsageError("an encrypted snapshot is signed, too: give encrypt or sign, not both")
    if keys is None or not (keys or keys.ask):
        raise UsageError("needs a key to lock with: a passphrase, a key file or a recipient")
    return Sealing.ENCRYPTED if encrypt else Sealing.SIGNED


def check_mixed(parent: SnapshotHead, sealing: Sealing, *, mixed: bool) -> None:
    """
    Refuse a parent that is sealed in another way, unless that was asked for.

    :raises UsageError: it is
    """
    theirs = Sealing(parent.superblock.sealing)
    if theirs != sealing and not mixed:
        message = (
            f"is {_ADJECTIVES[theirs]}, and the new snapshot would be {_ADJECTIVES[sealing]}; "
            "a chain of both must be asked for: mixed-chain"
        )
        raise UsageError(message, path=parent.shown)
