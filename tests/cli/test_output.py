"""
Facts about what the program prints, kept in golden/, one file for each case.

``pytest --update-golden`` writes the files anew; look at what changed before keeping it.
"""

from pathlib import Path

import pytest

import snapmig
from snapmig.container.writer import SnapshotWriter
from tests.support import ram
from tests.support.normal import normal

GOLDEN = Path(__file__).parent / "golden"

CASES = {
    "save": ["save -j 2 guest.ram guest.snap"],
    "save-json": ["save -j 2 --json guest.ram guest.snap"],
    "save-settings": [
        "save -j 1 --level 0 --window 4k --packet-size 64K --layout packed"
        " --attach domain.xml=guest.xml --attach again=guest.xml guest.ram guest.snap",
        "info guest.snap",
        "info --json guest.snap",
    ],
    "save-shares": [
        "save -j 1 --share 1/2 guest.ram guest.snap",
        "save -j 1 --share 2/2 guest.ram guest.snap",
    ],
    "info": ["info made.snap"],
    "info-json": ["info --json made.snap"],
    "info-blocks": ["info blocks.snap"],
    "info-zeros": ["info zeros.snap"],
    "info-several": ["info made.snap none.snap blocks.snap"],
    "restore": ["restore -j 2 made.snap new.ram", "restore -j 2 -f made.snap new.ram"],
    "restore-json": ["restore -j 2 --json made.snap new.ram"],
    "restore-in-place": ["restore -j 2 --in-place made.snap guest.ram"],
    "restore-block": ["restore -j 2 --block vga blocks.snap new.ram"],
    "verify": ["verify -j 2 made.snap", "verify -j 2 --quick made.snap blocks.snap"],
    "verify-json": ["verify -j 2 --json made.snap blocks.snap"],
    "damaged": [
        "verify -j 2 damaged.snap",
        "verify -j 2 --json damaged.snap",
        "restore -j 2 damaged.snap new.ram",
        "restore -j 2 --json damaged.snap new.ram",
        "info damaged.snap",
    ],
    "refused": [
        "save guest.ram made.snap",
        "save none.ram new.snap",
        "save -j 0 guest.ram new.snap",
        "save -j 0 --json guest.ram new.snap",
        "restore made.snap guest.ram",
        "restore --block none blocks.snap new.ram",
        "info guest.ram",
        "info none.snap",
        "info --json none.snap",
        "verify guest.ram",
    ],
}


@pytest.fixture
def place(guest):
    """Give a directory with a guest and snapshots of several kinds."""
    snapmig.save("guest.ram", "made.snap", attach={"domain.xml": "guest.xml"}, jobs=1)
    ram.write(guest / "zeros.ram", bytes(1 << 20))
    snapmig.save("zeros.ram", "zeros.snap")
    vga = snapmig.RamBlock.at(0xFD00_0000, 1 << 20, "vga", 2 << 20)
    blocks = [(snapmig.RamBlock.at(0, 8 << 20, "pc.ram"), "guest.ram"), (vga, "zeros.ram")]
    snapmig.save(blocks, "blocks.snap")
    raw = bytearray((guest / "made.snap").read_bytes())
    raw[(1 << 19) + 2 * (1 << 19) + 7] ^= 1
    ram.write(guest / "damaged.snap", bytes(raw))
    return guest


def _told(cli, commands):
    # A transcript: each command with its output, its messages and its exit code.
    lines = []
    for command in commands:
        outcome = cli(*command.split())
        lines += [f"$ snapmig {command}\n", normal(outcome.out)]
        lines += [f"! {line}\n" for line in normal(outcome.err).splitlines()]
        lines.append(f"= {outcome.code}\n")
    return "".join(lines)


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("name", CASES)
def test_output_is_kept(cli, request, name):
    """The program's output, messages and exit codes are those that were kept."""
    told = _told(cli, CASES[name])
    path = GOLDEN / f"{name}.txt"
    if request.config.getoption("update_golden"):
        path.write_text(told)

    assert path.read_text() == told


def test_every_kept_output_has_its_case():
    """No kept output is left of a case that is gone."""
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)


def test_a_filesystem_without_holes_is_warned_of(guest, cli, monkeypatch):
    """Where holes take space the program names the layout that needs none, on stderr."""
    monkeypatch.setattr(SnapshotWriter, "keeps_holes", property(lambda _: False))
    outcome = cli("save", "guest.ram", "guest.snap")

    outcome.ok(
        err="snapmig: warning: guest.snap: its filesystem keeps no holes, so the snapshot takes as "
        "much space as the RAM; the packed layout saves that\n"
    )
    assert (guest / "guest.snap").exists()


def test_the_packed_layout_is_not_warned_of(guest, cli, monkeypatch):
    """A packed snapshot needs no holes."""
    monkeypatch.setattr(SnapshotWriter, "keeps_holes", property(lambda _: False))
    outcome = cli("save", guest / "guest.ram", "guest.snap", "--layout", "packed")

    outcome.ok()
