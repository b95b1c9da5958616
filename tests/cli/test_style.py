"""Facts about ``--quiet``, ``--verbose`` and ``--color``."""

import json
import re

import pytest

import snapmig
from tests.support import ram

RED, YELLOW, GREEN = "\x1b[31m", "\x1b[33m", "\x1b[32m"


@pytest.fixture
def snap(guest):
    """Give a snapshot's name, beside its guest."""
    snapmig.save("guest.ram", "guest.snap", jobs=1)
    return guest / "guest.snap"


@pytest.fixture
def damaged(snap):
    """Damage the snapshot in a packet."""
    raw = bytearray(snap.read_bytes())
    raw[(1 << 19) + 2 * (1 << 19) + 7] ^= 1
    ram.write(snap, bytes(raw))
    return snap


@pytest.mark.usefixtures("snap")
@pytest.mark.parametrize(
    "words",
    [
        "save -f guest.ram new.snap",
        "restore guest.snap new.ram",
        "verify guest.snap",
        "repack guest.snap small.snap",
        "diff guest.snap guest.snap",
        "map guest.snap",
        "info guest.snap",
        "info guest.snap guest.snap",
        "chain guest.snap",
    ],
)
def test_a_quiet_verb_prints_nothing(cli, words):
    """Where all is well there is nothing to read."""
    verb, *rest = words.split()
    cli(verb, "-q", *rest).ok(out="", err="")


@pytest.mark.usefixtures("guest")
def test_a_quiet_batch_prints_nothing(guest, cli):
    """It has no table either."""
    (guest / "jobs.toml").write_text('[[save]]\nimage = "guest.ram"\nsnapshot = "new.snap"\n')
    cli("batch", "--quiet", "jobs.toml").ok(out="", err="")


def test_a_quiet_verb_prints_errors(cli, damaged):
    """Damage is told, on stderr."""
    outcome = cli("verify", "-q", damaged.name)

    outcome.fails(3, "packet 2", out="")


@pytest.mark.usefixtures("snap")
def test_json_comes_before_quiet(cli):
    """A program that asks for a line gets it."""
    outcome = cli("verify", "-q", "--json", "guest.snap")
    assert json.loads(outcome.ok().out)["damaged_packets"] == 0


@pytest.mark.usefixtures("snap")
def test_quiet_and_verbose_exclude_each_other(cli):
    """Nobody is told both."""
    cli("verify", "-q", "-v", "guest.snap").fails(2, "not allowed with")


@pytest.mark.parametrize(
    ("words", "phases"),
    [
        ("save guest.ram new.snap", "start packets reading waiting"),
        ("restore guest.snap new.ram", "start packets waiting"),
        ("verify guest.snap", "start packets"),
        ("verify --quick guest.snap", "start packets"),
    ],
)
@pytest.mark.usefixtures("snap")
def test_verbose_tells_the_times(cli, words, phases):
    """Each phase has its duration, on stderr."""
    line = cli(*words.split(), "-v").ok(err=None).err
    parts = line.split(": ")[2].split(", ")

    assert [part.split()[0] for part in parts] == phases.split()
    assert all(re.search(r" \d+\.\d\d s$", part.strip()) for part in parts)


@pytest.mark.usefixtures("snap")
def test_verbose_names_the_engine_of_a_restore(cli):
    """It is what decoded zlib."""
    result = snapmig.restore("guest.snap", "new.ram")
    outcome = cli("restore", "-v", "-f", "guest.snap", "new.ram").ok(err=None)

    assert f"by        {result.accelerator}\n" in outcome.out


def test_errors_are_red(cli, guest):
    """The program's name stands out."""
    outcome = cli("info", "--color", "always", guest / "none.snap")
    assert outcome.err.startswith(f"{RED}snapmig:\x1b[0m ")


def test_warnings_are_yellow(cli, guest, monkeypatch):
    """The word stands out."""
    monkeypatch.setattr(
        "snapmig.container.writer.SnapshotWriter.keeps_holes", property(lambda _: False)
    )
    outcome = cli("save", "--color=always", guest / "guest.ram", "new.snap")
    assert f"snapmig: {YELLOW}warning:\x1b[0m " in outcome.err


@pytest.mark.usefixtures("snap")
def test_ok_is_green(cli):
    """A sound snapshot's word is green, and nothing else is coloured."""
    out = cli("verify", "--color", "always", "guest.snap").ok().out

    assert out.startswith(f"guest.snap: {GREEN}ok\x1b[0m, ")
    assert out.count("\x1b") == 2


def test_damage_is_red(cli, damaged):
    """Likewise a damaged one's."""
    out = cli("verify", "--color", "always", damaged.name).out
    assert out.startswith(f"guest.snap: {RED}damaged\x1b[0m, ")


@pytest.mark.usefixtures("snap")
def test_a_pipe_has_no_colours(cli):
    """By default colours are for terminals only."""
    outcome = cli("verify", "guest.snap", "none.snap")
    assert "\x1b" not in outcome.out + outcome.err


@pytest.mark.usefixtures("snap")
def test_the_table_of_snapshots_has_a_head_in_bold(cli):
    """Of several snapshots; its columns stay where they are."""
    plain = cli("info", "guest.snap", "guest.snap").ok().lines
    bold = cli("info", "--color=always", "guest.snap", "guest.snap").ok().lines

    assert bold == [f"\x1b[1m{plain[0]}\x1b[0m", *plain[1:]]


def test_columns_align_below_a_head_longer_than_the_names(snap, cli):
    """Short names are as wide as the word above them."""
    (snap.parent / "a").hardlink_to(snap)
    head, *rows = cli("info", "a", "a").ok().lines

    assert [row.index("full") for row in rows] == [head.index("kind")] * 2
    assert {len(row) for row in rows} == {len(head)}
