"""Facts about the examples in the help of keys: each does what its verb says."""

import re
import shlex
import sys

import pexpect
import pytest

import snapmig
from snapmig.commands.main import build_parser

HELP = next(
    action.choices["key"].format_help() for action in build_parser("key")._subparsers._group_actions
)
EXAMPLES = re.findall(r"^  snapmig key (.*)$", HELP, re.MULTILINE)
EXPECTED = {
    "new": ["age", "key file", "key file"],
    "list": ["age", "key file", "key file"],
    "add": ["age", "key file", "key file", "passphrase"],
    "remove": ["age", "key file"],
    "rotate": ["age", "key file", "key file"],
}
"""Kinds of the slots afterwards; before, they are those of the list."""
RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"


@pytest.mark.parametrize("line", EXAMPLES, ids=lambda line: line.split()[0])
def test_an_example_does_what_it_says(guest, cli, line):
    """With only the folder of its key replaced, an example leaves the slots that it should."""
    for name in ("key", "old.key", "new.key"):
        snapmig.new_key(guest / name)
    opened = snapmig.Keys(key_file=["key", "old.key"], recipient=[RECIPIENT])
    snapmig.save("guest.ram", "guest.snap", encrypt=True, keys=opened, jobs=1)
    words = shlex.split(line.replace("/etc/snapmig/", ""))
    (guest / "kept").hardlink_to(guest / "key")
    if words[0] == "new":
        (guest / "key").unlink()
    _type([sys.executable, "-m", "snapmig", "key", *words], phrase="a phrase")

    slots = snapmig.list_keys("guest.snap").slots
    assert sorted(slot.kind for slot in slots) == EXPECTED[words[0]]
    cli("verify", "--key-file", "kept", "guest.snap").ok(out=None)


def _type(command, phrase):
    # On a terminal, where a passphrase is asked for twice.
    terminal = pexpect.spawn(command[0], command[1:], timeout=60, encoding="utf-8")
    while terminal.expect([r"passphrase: ", r"the same again: ", pexpect.EOF]) != 2:
        terminal.sendline(phrase)
    terminal.close()
    assert terminal.exitstatus == 0, terminal.before
