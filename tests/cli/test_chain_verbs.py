"""
Facts about the verbs of chains: help, examples, and what they print, kept in golden-chains/.

``pytest --update-golden`` writes the files anew; look at what changed before keeping it.
"""

import contextlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

import snapmig
from snapmig.commands.main import build_parser
from tests.cli.conftest import RAM
from tests.support import kinds, ram
from tests.support.normal import normal

GOLDEN = Path(__file__).parent / "golden-chains"
VERBS = ("chain", "diff", "merge", "rebase", "repack")
KEYS = "--passphrase-file --passphrase-command --key-file --identity"
COMMON = f"--json -q -v --color --debug -h --help {KEYS}"
READ = f"--follow-remote-parents --progress {COMMON}"
DIGESTS, DELTAS = "--page-digests --no-page-digests", "--deltas --no-deltas"
OPTIONS = {
    "chain": f"--follow-remote-parents {COMMON}",
    "diff": f"-j --jobs --ranges {READ}",
    "merge": f"--recipient -j --jobs {DIGESTS} -f --force {READ}",
    "rebase": f"--recipient --parent -j --jobs {DIGESTS} {DELTAS} {READ}",
    "repack": "--recipient --sealing -j --jobs --compression --accelerator --depth --level "
    f"--window --packet-size --layout {DIGESTS} {DELTAS} -f --force {READ}",
}
PARSERS = {
    verb: parser
    for action in build_parser()._subparsers._group_actions
    for verb, parser in action.choices.items()
}
HELP = {verb: PARSERS[verb].format_help() for verb in VERBS}
EXAMPLES = [
    line.strip()
    for text in HELP.values()
    for line in re.findall(r"^  snapmig .*$", text, re.MULTILINE)
]
CASES = {
    "save": [
        "save -j 2 --parent sunday.snap monday.ram new.snap",
        "save -j 1 --json --parent monday.snap monday.ram new2.snap",
    ],
    "info": ["info monday.snap", "info --json monday.snap"],
    "page-digests": [
        "save -j 1 --parent sunday.snap --no-page-digests monday.ram new.snap",
        "info new.snap",
        "save -j 1 -f --parent new.snap monday.ram new2.snap",
        "info new2.snap",
    ],
    "chain": ["chain tuesday.snap", "chain --json tuesday.snap", "chain sunday.snap"],
    "diff": [
        "diff -j 2 sunday.snap tuesday.snap",
        "diff -j 2 --ranges sunday.snap tuesday.snap",
        "diff -j 2 --ranges tuesday.snap tuesday.snap",
        "diff -j 2 --ranges blocks1.snap blocks2.snap",
    ],
    "diff-json": ["diff -j 2 --json blocks1.snap blocks2.snap"],
    "merge": ["merge -j 2 tuesday.snap new.snap", "merge -j 2 --json -f tuesday.snap tuesday.snap"],
    "rebase": [
        "rebase -j 2 tuesday.snap --parent sunday.snap",
        "rebase -j 2 --json tuesday.snap --parent sunday.snap",
    ],
    "repack": [
        "repack -j 2 --compression zstd --layout packed tuesday.snap new.snap",
        "repack -j 2 --json --packet-size 64K sunday.snap new2.snap",
    ],
    "refused": [
        "chain none.snap",
        "diff sunday.snap blocks1.snap",
        "merge tuesday.snap sunday.snap",
        "merge -f tuesday.snap sunday.snap",
        "rebase sunday.snap --parent tuesday.snap",
        "rebase sunday.snap",
        "repack tuesday.snap new.snap --packet-size 64K",
        "repack tuesday.snap new.snap --compression zstd --window 4k",
        "save --parent blocks1.snap monday.ram new.snap",
        "restore lost.snap new.ram",
        "verify -j 1 lost.snap",
        "chain --json lost.snap",
    ],
}


@pytest.fixture(scope="module")
def week(shared_shm):
    """Make snapshots of three days, and of a guest with two RAM blocks."""
    ram.write(shared_shm / "guest.ram", RAM)
    ram.write(shared_shm / "monday.ram", _later(RAM, 1))
    ram.write(shared_shm / "tuesday.ram", _later(_later(RAM, 1), 200))
    with contextlib.chdir(shared_shm):
        snapmig.save("guest.ram", "sunday.snap", page_digests=False, jobs=1)
        snapmig.save("monday.ram", "monday.snap", parent="sunday.snap", jobs=1)
        snapmig.save("tuesday.ram", "tuesday.snap", parent="monday.snap", deltas=True, jobs=1)
        _save_blocks("blocks1.snap", "monday.ram", "guest.ram")
        _save_blocks("blocks2.snap", "tuesday.ram", "monday.ram")
        snapmig.save("guest.ram", "gone.snap", jobs=1)
        snapmig.save("monday.ram", "lost.snap", parent="gone.snap", jobs=1)
        Path("gone.snap").unlink()
    return shared_shm


@pytest.fixture
def place(guest, week):
    """Give a directory with those snapshots; the program replaces files, and never writes them."""
    for path in week.iterdir():
        if path.name != "guest.ram":
            (guest / path.name).hardlink_to(path)
    return guest


def _save_blocks(snapshot, main, vga):
    blocks = [(snapmig.RamBlock.at(0, len(RAM), "pc.ram"), main)]
    snapmig.save([*blocks, (snapmig.RamBlock("vga", len(RAM)), vga)], snapshot, jobs=1)


def _later(content, page):
    # Four pages written anew, one that lost its contents, and a few bytes in each of ten others.
    pages = np.frombuffer(content, np.uint8).reshape(-1, ram.PAGE).copy()
    pages[page : page + 4] = ram.noise(4, page)
    pages[page + 5] = 0
    pages[page + 10 : page + 20, :32] ^= 255
    return pages.tobytes()


@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_a_screen(cli, verb):
    """Help has at most 44 lines of 80 columns."""
    lines = cli(verb, "--help").lines

    assert (len(lines) <= 44, max(map(len, lines)) <= 80) == (True, True)


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_every_option(verb):
    """A verb has the options that its help names, and no others."""
    options = HELP[verb].split("options:\n")[1].split("examples:")[0]

    assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", options)) == set(OPTIONS[verb].split())


@pytest.mark.parametrize("verb", VERBS)
def test_help_ends_in_examples(verb):
    """Each help has at least two examples."""
    assert HELP[verb].count("\n  snapmig ") >= 2


@pytest.mark.parametrize("line", EXAMPLES)
def test_examples_run(place, cli, line):
    """Each example of the help runs as it stands."""
    (place / "guest.snap").hardlink_to(place / "sunday.snap")
    outcome = cli(*line.split()[1:])

    outcome.ok()


def _told(cli, place, commands):
    # A transcript: each command with its output, its messages and its exit code.
    lines = []
    for command in commands:
        outcome = cli(*command.split())
        out, err = (re.sub(r"\b[0-9a-f]{32}\b", "<id>", normal(t)) for t in outcome[1:])
        lines += [f"$ snapmig {command}\n", out.replace(str(place), "<folder>")]
        lines += [f"! {line}\n" for line in err.replace(str(place), "<folder>").splitlines()]
        lines.append(f"= {outcome[0]}\n")
    return "".join(lines)


@pytest.mark.parametrize("name", CASES)
def test_output_is_kept(cli, place, request, name):
    """The program's output, messages and exit codes are those that were kept."""

    def call(*words):
        outcome = cli(*words)
        return outcome.code, outcome.out, outcome.err

    told = _told(call, place, CASES[name])
    path = GOLDEN / f"{name}.txt"
    if request.config.getoption("update_golden"):
        path.write_text(told)

    assert path.read_text() == told


def test_every_kept_output_has_its_case():
    """No kept output is left of a case that is gone."""
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)


@pytest.mark.parametrize(
    "arguments",
    [
        "chain",
        "chain a b",
        "diff sunday.snap",
        "diff sunday.snap monday.snap -j 0",
        "merge tuesday.snap",
        "merge tuesday.snap new.snap -j 0",
        "merge tuesday.snap new.snap --layout packed",
        "rebase tuesday.snap",
        "repack tuesday.snap",
        "repack tuesday.snap new.snap --layout flat",
        "repack tuesday.snap new.snap --level 99",
        "repack tuesday.snap new.snap --compression gzip",
        "repack tuesday.snap new.snap --packet-size 3K",
    ],
)
def test_usage_errors(place, cli, arguments):
    """Arguments that make no sense are refused with code 2, and nothing is made."""
    outcome = cli(*arguments.split())

    outcome.fails(2, out="")
    assert not (place / "new.snap").exists()


@pytest.mark.usefixtures("place")
def test_each_snapshot_of_a_chain_is_a_line_of_json(cli):
    """A chain in JSON is a line for each member, each naming the next one's id."""
    links = cli("chain", "--json", "tuesday.snap").json_lines

    assert [link["parent_id"] for link in links] == [links[1]["snapshot_id"],
                                                      links[2]["snapshot_id"], None]  # fmt: skip


@pytest.mark.usefixtures("place")
def test_a_refusal_in_json(cli):
    """With --json an error is a line of JSON, too."""
    outcome = cli("chain", "--json", "lost.snap")

    assert (outcome.out, json.loads(outcome.err)["exit_code"]) == ("", 1)


ONTO_DIGESTS, ONTO_NONE = "monday.snap", "sunday.snap"
"""Parents with page digests, and without."""


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("verb", ["rebase", "repack"])
@pytest.mark.parametrize(
    ("parent", "option", "any_there"),
    [
        (ONTO_DIGESTS, "", False),
        (ONTO_DIGESTS, "--deltas", True),
        (ONTO_NONE, "", True),
        (ONTO_NONE, "--no-deltas", False),
    ],
)
def test_differences_as_a_save_stores_them(cli, verb, parent, option, any_there):
    """Where the parent has page digests only if asked for, else always; the guest is the same."""
    rebase = f"rebase tuesday.snap --parent {parent}"
    lines = [f"{rebase} {option}"]
    if verb == "repack":
        lines = [rebase, f"repack -f tuesday.snap tuesday.snap {option}"]
    for line in [*lines, "restore tuesday.snap restored.ram"]:
        cli(*line.split()).ok()
    found = {kind for packet in kinds.read("tuesday.snap") for kind in packet.kinds}

    assert (kinds.DELTA in found) == any_there
    assert Path("restored.ram").read_bytes() == Path("tuesday.ram").read_bytes()
