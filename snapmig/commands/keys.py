"""Options of keys on the command line, and passphrases asked for on a terminal."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from snapmig.commands.output import say
from snapmig.errors import UsageError
from snapmig.operations.options.keys import keys_of
from snapmig.sealing.keyring import Keys
from snapmig.system.limits import forbid_core_dumps

__all__ = ("ask_passphrase", "chosen_keys", "chosen_to_save")


def chosen_keys(options: argparse.Namespace, *, asks: bool = True) -> Keys | None:
    """
    Return the keys of a command line; from here on this process leaves no memory in core dumps.

    :param asks: ask on a terminal for a passphrase where one is needed and no key is given
    """
    keys = keys_of(vars(options))
    if asks and sys.stdin.isatty() and sys.stderr.isatty():
        keys = replace(keys or Keys(), ask=ask_passphrase)
    if keys is not None:
        forbid_core_dumps()
    return keys


def chosen_to_save(options: argparse.Namespace) -> Keys | None:
    """
    Return the keys of a command line that makes a snapshot.

    :raises UsageError: there are keys without a use: the snapshot would be plain, to all appearance
        against the user's wish
    """
    keys = chosen_keys(options)
    if keys and not (options.encrypt or options.sign or options.parent):
        raise UsageError("keys are given, but neither --encrypt nor --sign, and no parent to open")
    return keys


def ask_passphrase(new: bool) -> str:
    """
    Ask for a passphrase, twice for a new one.

    :raises UsageError: the two are different
    """
    first = _read("new passphrase: " if new else "passphrase: ")
    if new and _read("the same again: ") != first:
        raise UsageError("the two passphrases differ")
    return first


def _read(prompt: str) -> str:
    import getpass  # noqa: PLC0415 - few are asked

    try:
        return getpass.getpass(prompt, sys.stderr)
    except BaseException as error:  # Ctrl-D or Ctrl-C: the cursor is still behind the question
        say("", sys.stderr)
        if isinstance(error, EOFError):
            return ""
        raise
