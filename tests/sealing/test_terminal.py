"""Facts about passphrases asked for on a terminal."""

import os
from pathlib import Path

import pexpect
import pytest

from tests.support import program
from tests.support.secrets import PHRASE

pytestmark = pytest.mark.usefixtures("place")

SAVE = ("save", "guest0.ram", "s.snap", "--encrypt")
NEW, AGAIN, OLD = "new passphrase: ", "the same again: ", "passphrase: "


def run(*arguments, answers):
    """Return all that a terminal shows, and the exit code, with answers to questions in order."""
    python, *rest = program.PROGRAM
    terminal = pexpect.spawn(
        python,
        [*rest, *arguments],
        encoding="utf-8",
        timeout=60,
        env={**os.environ, "NO_COLOR": "1"},
    )
    shown = ""
    for question, answer in answers:
        terminal.expect_exact(question)
        terminal.waitnoecho()
        shown += terminal.before + question
        terminal.send(answer)
    terminal.expect(pexpect.EOF)
    shown += terminal.before
    terminal.close()
    return shown, terminal.exitstatus


def test_a_new_one_is_asked_for_twice():
    """A new passphrase is asked for twice, an old one once, and neither is shown."""
    line = f"{PHRASE}\n"
    saved, code = run(*SAVE, answers=[(NEW, line), (AGAIN, line)])
    verified, again = run("verify", "s.snap", answers=[(OLD, line)])

    assert (code, again) == (0, 0)
    assert "proved by its key" in verified
    assert PHRASE not in saved + verified


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([(NEW, "one\n"), (AGAIN, "other\n")], "the two passphrases differ"),
        ([(NEW, "\n"), (AGAIN, "\n")], "the passphrase is empty"),
        ([(NEW, "\x04"), (AGAIN, "\x04")], "the passphrase is empty"),
    ],
)
def test_a_new_one_that_is_refused(answers, message):
    """Two that differ, and an empty one, are refused in one sentence, and nothing is written."""
    shown, code = run(*SAVE, answers=answers)

    assert (code, shown.splitlines()[-1]) == (2, f"snapmig: {message}")
    assert not list(Path().glob("*s.snap*"))


def test_ctrl_c_at_the_question():
    """Ctrl-C at the question ends the program as usual, and nothing is written."""
    shown, code = run(*SAVE, answers=[(NEW, "\x03")])

    assert (code, shown.splitlines()[-1]) == (130, "snapmig: interrupted by SIGINT")
    assert not list(Path().glob("*s.snap*"))


def test_none_is_asked_for_where_a_key_is_given(cli):
    """With a key file nothing is asked."""
    shown, code = run(*SAVE, "--key-file", "key", answers=[])
    assert (code, "passphrase" in shown) == (0, False)
    cli("verify", "s.snap", "--key-file", "key").ok("proved")


def test_nothing_is_asked_without_need(cli):
    """Of a signed snapshot a reader need not know the passphrase, and is not asked."""
    cli("save", "guest0.ram", "s.snap", "--sign", "--key-file", "key").ok()
    shown, code = run("restore", "s.snap", "out.ram", answers=[])

    assert (code, "passphrase" in shown) == (0, False)


def test_a_new_one_for_an_old_snapshot(cli):
    """``key add`` asks for the new passphrase, and that opens it."""
    cli(*SAVE, "--key-file", "key").ok()
    line = f"{PHRASE}\n"
    command = ("key", "add", "--key-file", "key", "--new-passphrase", "s.snap")
    assert run(*command, answers=[(NEW, line), (AGAIN, line)])[1] == 0
    cli("verify", "s.snap", "--passphrase-file", "phrase").ok("proved")


def test_without_a_terminal_nothing_is_asked(cli):
    """Where there is no terminal a passphrase is missing, in one sentence."""
    cli(*SAVE, "--passphrase-file", "phrase").ok()
    cli("verify", "s.snap").ok("stored bytes only, for want of a key")
    cli("key", "add", "s.snap", "--passphrase-file", "phrase", "--new-passphrase").fails(
        2, err="snapmig: there is no terminal to ask for a passphrase\n"
    )
