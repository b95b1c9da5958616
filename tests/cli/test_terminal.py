"""The program on a real terminal: its bars, and its remains."""

import os
import re
import sys
from pathlib import Path

import pexpect
import pytest

from tests.support import program

BATCH = '[[save]]\nimage = "*.ram"\nsnapshot = "{name}.snap"\nforce = true\n'


def _seen(*arguments):
    # All that a terminal of 24 lines got, standard output and error together.
    terminal = pexpect.spawn(
        program.PROGRAM[0],
        [*program.PROGRAM[1:], *arguments],
        dimensions=(24, 100),
        encoding="utf-8",
        timeout=60,
        env={**os.environ, "TERM": "xterm"},
    )
    shown = terminal.read()
    terminal.close()
    assert terminal.exitstatus == 0
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
    lines = _screen(_seen("batch", "jobs.toml"))

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
