"""The program on a real terminal: its bars, and its remains."""

import gzip
import os
import re
import sys
from pathlib import Path

import pexpect
import pytest

import snapmig
from snapmig.units import format_size
from tests.support import program

BATCH = '[[save]]\nimage = "*.ram"\nsnapshot = "{name}.snap"\nforce = true\n'


def _seen(*arguments, code=0, **environment):
    # All that a terminal of 24 lines got, standard output and error together.
    terminal = pexpect.spawn(
        program.PROGRAM[0],
        [*program.PROGRAM[1:], *arguments],
        dimensions=(24, 100),
        encoding="utf-8",
        timeout=60,
        env={**os.environ, "TERM": "xterm", **environment},
    )
    shown = terminal.read()
    terminal.close()
    assert terminal.exitstatus == code
    return shown


def _screen(shown):
    # The lines that are left, of the few things that bars do: CR, LF and one line up.
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\r|\n|\x1b\[A|[^\r\n\x1b]+", shown):
        if part == "\r":
            column = 0
        elif part == "\x1b[A":
            row -= 1
        elif part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        else:
            line = lines[row].ljust(column)
            lines[row] = line[:column] + part + line[column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines if line.strip()]


@pytest.mark.parametrize("guests", [1, 3])
def test_a_batchs_table_stands_below_its_head(guest, guests):
    """When the bars are gone the table begins at the left, head and rows alike."""
    for number in range(1, guests):
        (guest / f"other{number}.ram").write_bytes((guest / "guest.ram").read_bytes())
    (guest / "jobs.toml").write_text(BATCH)
    lines = _screen(_seen("batch", "jobs.toml", NO_COLOR="1"))

    assert re.fullmatch(r"job +result +RAM +stored +seconds", lines[0])
    assert [line.split()[1] for line in lines[1:]] == ["done"] * guests


@pytest.mark.usefixtures("guest")
def test_the_bar_has_the_units_of_the_result():
    """Bar and result count RAM in the same words."""
    bar, *_, result = _seen("save", "guest.ram", "guest.snap").split("saved ")

    assert re.search(r"\| 8\.0 MiB of 8\.0 MiB \[", bar)
    assert result.startswith("8.0 MiB in ")
    assert re.search(r"\d [KMG]iB/s", bar)
    assert not re.search(r"\d ?[KMG]B?[/ ]", bar)


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize(
    ("words", "phase"),
    [
        ("save guest.ram new.snap", "waiting for the disk"),
        ("restore old.snap new.ram", "waiting for the disk"),
        ("repack old.snap new.snap", "waiting for the disk"),
        ("verify attached.snap", "checking attachments"),
        ("commit shared.snap", "waiting for the disk"),
    ],
)
def test_a_complete_bar_says_what_is_waited_for(words, phase):
    """While it stands at 100 % there are words behind it; at the end they are gone."""
    snapmig.save("guest.ram", "old.snap", jobs=1)
    snapmig.save("guest.ram", "attached.snap", jobs=1, attach={"guest.xml": "guest.xml"})
    for share in ("1/2", "2/2"):
        snapmig.save("guest.ram", "shared.snap", jobs=1, share=share)
    shown = _seen(*words.split())

    assert re.search(rf"100%\|[^\r]*, {phase}\]", shown)
    assert not any(phase in line for line in _screen(shown))


@pytest.mark.usefixtures("guest")
def test_unpacking_has_a_bar_of_its_own():
    """It counts bytes of the packed file, and is gone at the end."""
    Path("guest.ram.gz").write_bytes(gzip.compress(Path("guest.ram").read_bytes()))
    shown = _seen("save", "guest.ram.gz", "guest.snap")
    size = format_size(Path("guest.ram.gz").stat().st_size)

    assert re.search(rf"saving, unpacking: +\d+%\|[^\r]* of {re.escape(size)} \[", shown)
    assert [line.split(":")[0] for line in _screen(shown) if "|" in line] == ["saving"]


@pytest.mark.usefixtures("guest")
def test_a_quick_verify_has_a_bar():
    """It counts the RAM of the records."""
    snapmig.save("guest.ram", "guest.snap", jobs=1)
    assert "verifying: 100%|" in _seen("verify", "--quick", "guest.snap")


@pytest.mark.usefixtures("guest")
def test_a_quiet_verb_draws_nothing():
    """Neither a bar nor a result."""
    assert _seen("save", "-q", "guest.ram", "guest.snap") == ""


@pytest.mark.usefixtures("guest")
def test_an_error_is_red():
    """The program's name, on a terminal that has colours."""
    assert "\x1b[31msnapmig:\x1b[0m none.snap: " in _seen("info", "none.snap", code=1)


@pytest.mark.usefixtures("guest")
@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_an_error_is_plain_where_that_is_wished(environment):
    """By a variable, or for a terminal without colours."""
    assert "\x1b" not in _seen("info", "none.snap", code=1, **environment)


def test_an_error_of_usage_is_red():
    """Before the options are known a terminal decides."""
    assert "\x1b[31merror:\x1b[0m " in _seen("verify", "--nothing", code=2)


# Prints the name of each semaphore that the program makes.
WATCHED = """
import sys
import multiprocessing.synchronize as one, multiprocess.synchronize as other
for module in (one, other):
    def made(self, *arguments, _made=module.SemLock.__init__, **options):
        print("SEMAPHORE", file=sys.stderr)
        _made(self, *arguments, **options)
    module.SemLock.__init__ = made
from snapmig.commands import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("words", ["save -f guest.ram guest.snap", "batch jobs.toml"])
def test_no_semaphore_is_made(guest, words):
    """In /dev/shm is nothing that a SIGKILL could leave there."""
    (guest / "jobs.toml").write_text(BATCH)
    done = program.call(
        [sys.executable, "-c", WATCHED, *words.split(), "--progress", "tty"],
        timeout=60,
        cwd=Path.cwd(),
    )

    done.ok(err=None)
    assert "100%|" in done.err
    assert "SEMAPHORE" not in done.err
