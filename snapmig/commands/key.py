"""``snapmig key``: the key slots of sealed snapshots."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from snapmig.commands.arguments import Options, Verbs, add_common, add_keys, add_option
from snapmig.commands.keys import ask_passphrase, chosen_keys
from snapmig.commands.output import say, show
from snapmig.errors import UsageError
from snapmig.operations import keys as operations
from snapmig.operations.keys import KeysInfo
from snapmig.operations.options.keys import KEY_WORDS, keys_of
from snapmig.sealing.keyring import Keys

__all__ = ("add_parser",)

_EPILOG = """\
examples:
  snapmig key new /etc/snapmig/key
  snapmig key list guest.snap
  snapmig key add --key-file /etc/snapmig/key --new-passphrase guest.snap
  snapmig key remove --key-file /etc/snapmig/key guest.snap 1
  snapmig key rotate --key-file old.key --new-key-file new.key guest.snap

A removed or rotated key opens the file no more, but who used it before may
have kept a copy of the file, or the file key: repack it with another key then.
"""
_NEW = tuple(word for word in KEY_WORDS if word != "identity")


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser and those of its own verbs."""
    parser = verbs.add_parser(
        "key",
        help="list and change the keys of sealed snapshots",
        usage="snapmig key VERB [options] ...",
        description="List and change the keys of a sealed snapshot, without its data.",
        epilog=_EPILOG,
    )
    own = parser.add_subparsers(
        title="verbs", dest="key_verb", metavar="VERB", required=True, prog="snapmig key"
    )
    _verb(own, "list", "show who can open a snapshot")
    for name, words in (
        ("add", "let another key open a snapshot"),
        ("rotate", "put another key in the place of the one given"),
    ):
        verb = _verb(own, name, words)
        for word in _NEW:
            add_option(verb, word, prefix="new")
        verb.add_argument(
            "--new-passphrase", action="store_true", help="ask for one on the terminal"
        )
        verb.add_argument("--label", metavar="TEXT", help="of the new slot")
    _verb(own, "remove", "take a key away").add_argument(
        "slot", metavar="SLOT", type=int, help="its number in the list"
    )
    new = own.add_parser(
        "new",
        help="make a key file",
        usage="snapmig key new [options] FILE",
        description="Make a key file of 32 random bytes, readable by its owner only.",
    )
    new.add_argument("file", metavar="FILE", help="the file to make")
    add_common(new)
    new.set_defaults(run=_run_new)


def _verb(own: Verbs, name: str, words: str) -> Options:
    parser: argparse.ArgumentParser = own.add_parser(
        name,
        help=words,
        usage=f"snapmig key {name} [options] SNAPSHOT{' SLOT' if name == 'remove' else ''}",
        description=f"{words[0].upper()}{words[1:]}.",
    )
    parser.add_argument("snapshot", metavar="SNAPSHOT", help="a sealed snapshot")
    add_keys(parser)
    add_common(parser)
    parser.set_defaults(run=_run)
    return parser


def _run(options: argparse.Namespace) -> int:
    verb = options.key_verb
    keys = chosen_keys(options, asks=verb != "list")
    if verb == "list":
        found = operations.list_keys(options.snapshot, keys=keys)
    elif verb == "remove":
        found = operations.remove_key(options.snapshot, options.slot, keys=keys)
    else:
        change = operations.add_keys if verb == "add" else operations.rotate_keys
        new = _new_keys(options)
        found = change(options.snapshot, new=new, keys=keys, label=options.label)
    show(options, "key", found, _print)
    return 0


def _run_new(options: argparse.Namespace) -> int:
    operations.new_key(options.file)
    return 0


def _new_keys(options: argparse.Namespace) -> Keys:
    keys = keys_of({word: getattr(options, f"new_{word}") for word in _NEW})
    if options.new_passphrase:
        if not sys.stdin.isatty():
            raise UsageError("there is no terminal to ask for a passphrase")
        keys = replace(keys or Keys(), passphrase=ask_passphrase(True))
    if keys is None:
        raise UsageError("expected a new key: --new-passphrase-file, --new-key-file, ...")
    return keys


def _print(found: KeysInfo) -> None:
    proved = "" if found.proved else "; no key was given to prove this list"
    say(f"{found.snapshot}: {found.sealing}{proved}")
    for slot in found.slots:
        say(f"{slot.slot:>4}  {slot.kind:<10}  {slot.created}  {slot.label}".rstrip())
