"""The helper of tests by which outcomes of commands are checked: it must be able to fail."""

import pytest

from tests.support.outcome import Outcome

DONE = Outcome(0, "saved\n", "", ("snapmig", "save", "a b"))
WARNED = Outcome(6, "", "snapmig: warning: torn\n")
FAILED = Outcome(3, "", "snapmig: s: packet 7\n")

WRONG = {
    "another code": lambda: FAILED.fails(1),
    "done": lambda: DONE.fails(3),
    "failed": lambda: FAILED.ok(),
    "warned": lambda: WARNED.ok(),
    "done in silence": lambda: DONE.warns(),
    "a word on stderr": lambda: Outcome(0, "", "word").ok(),
    "no such part on stdout": lambda: DONE.ok("restored"),
    "no such part on stderr": lambda: FAILED.fails(3, "packet 7", "packet 8"),
    "no such part of a warning": lambda: WARNED.warns("quiet"),
    "another stdout": lambda: DONE.ok(out="saved"),
    "another stderr": lambda: FAILED.fails(3, err="snapmig"),
    "another start": lambda: FAILED.fails(3, start="packet"),
    "more lines": lambda: FAILED.fails(3, lines=2),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_difference_is_an_error(kind):
    """Each check fails where the outcome is another."""
    with pytest.raises(AssertionError, match="expected"):
        WRONG[kind]()


def test_outcomes_that_are_as_expected():
    """Each check gives the outcome back."""
    assert DONE.ok("saved", out="saved\n") is DONE
    assert WARNED.warns("torn", start="snapmig: ", lines=1) is WARNED
    assert FAILED.fails(3, "packet 7", out="", err="snapmig: s: packet 7\n") is FAILED


def test_an_error_shows_the_command_and_all_it_printed():
    """Exit code, stdout and stderr stand below the command, as it is typed."""
    with pytest.raises(AssertionError) as caught:
        DONE.fails(3)
    assert str(caught.value).splitlines()[1:] == [
        "command: snapmig save 'a b'",
        "exit code: 0",
        "stdout: ",
        "    saved",
        "stderr: (empty)",
    ]


@pytest.mark.parametrize("code", [0, 6])
def test_a_failure_has_another_code_than_success(code):
    """A test can't say that a command fails with the code of one that is done."""
    with pytest.raises(ValueError, match="no failure"):
        FAILED.fails(code)
