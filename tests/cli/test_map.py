"""Facts about ``snapmig map`` on a terminal and into files."""

from pathlib import Path

import pytest

from tests.support.program import ENVIRONMENT, PROGRAM, call, run

ESCAPE = "\x1b["


@pytest.fixture
def snap(guest: Path) -> Path:
    """Give a snapshot of the guest, in the present directory."""
    run("save", "-j", 1, "guest.ram", "guest.snap").ok()
    return guest / "guest.snap"


def test_a_pipe_gets_letters(snap: Path) -> None:
    """Without a terminal each cell is a letter, rows have addresses, and a legend follows."""
    shown = run("map", snap.name).ok().lines
    assert shown[0] == "ram, 8.0 MiB"
    assert shown[1].split() == ["0x0", "---.......##...."]
    assert "a cell is 512.0 KiB" in shown
    assert not any(ESCAPE in line for line in shown)


def test_colours_can_be_asked_for(snap: Path) -> None:
    """With --color always a pipe gets colours too."""
    assert ESCAPE in run("map", "--color", "always", snap.name).ok().out


@pytest.mark.parametrize("variable", ["NO_COLOR", "TERM"])
def test_a_terminal_may_have_no_colours(snap: Path, variable: str) -> None:
    """NO_COLOR and a dumb terminal are respected."""
    plain = {"NO_COLOR": "1", "TERM": "dumb"}
    environment = {**ENVIRONMENT, "TERM": "xterm", variable: plain[variable]}
    command = " ".join([*PROGRAM, "map", snap.name])
    shown = call(["script", "-qec", command, "/dev/null"], env=environment, timeout=60)
    assert "ram, 8.0 MiB" in shown.out
    assert f"{ESCAPE}38" not in shown.out


def test_a_terminal_has_colours(snap: Path) -> None:
    """A terminal gets two rows of cells in a line of colours."""
    command = " ".join([*PROGRAM, "map", snap.name])
    shown = call(
        ["script", "-qec", command, "/dev/null"], env={**ENVIRONMENT, "TERM": "xterm"}, timeout=60
    )
    assert f"{ESCAPE}38;5;214m" in shown.out


@pytest.mark.parametrize(
    ("name", "start"), [("m.svg", b"<svg"), ("m.png", b"\x89PNG"), ("m.html", b"<!DOCTYPE html>")]
)
def test_files_are_of_the_kind_of_their_name(snap: Path, name: str, start: bytes) -> None:
    """The name's end decides, and a file that exists stays as it is."""
    run("map", snap.name, "-o", name).ok(out=f"map       {name}, 16 cells of 512.0 KiB\n")
    assert Path(name).read_bytes().startswith(start)
    Path(name).write_text("mine")
    run("map", snap.name, "-o", name).fails(1, f"{name}: ", "-f overwrites it", lines=1)
    assert Path(name).read_text() == "mine"


def test_other_names_are_refused(snap: Path) -> None:
    """A name without a known end is an error of usage."""
    words = "m.gif: the name ends with '.gif', expected .svg, .png, .html"
    run("map", snap.name, "-o", "m.gif").fails(2, words, lines=1)


def test_a_program_gets_the_cells(snap: Path) -> None:
    """The line of JSON has each cell with its pages."""
    (block,) = run("map", "--json", snap.name).ok().json["blocks"]
    assert [cell["raw"] for cell in block["cells"]] == [0] * 10 + [128] * 2 + [0] * 4


def test_no_key_is_needed(guest: Path) -> None:
    """The index of an encrypted snapshot stands in the clear, as info shows it."""
    run("key", "new", guest / "key").ok()
    run("save", "-j", 1, "--encrypt", "--key-file", "key", "guest.ram", "s").ok()
    assert "---.......##...." in run("map", "s").ok().out
