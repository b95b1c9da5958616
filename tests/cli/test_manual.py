"""Facts about the manual pages: what is in them, who reads them, where they are installed."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import snapmig
from snapmig.commands.main import VERBS
from tests.manual.__main__ import COMPLETIONS, PAGES, ROOT, dated
from tests.manual.page import DATE, make_pages
from tests.manual.words import ENVIRONMENT
from tests.support import program
from tests.support.requirements import requires

NAMES = ["snapmig.1", *(f"snapmig-{verb}.1" for verb in VERBS)]
BACKUP_VERBS = ("run", "list", "restore", "check", "prune", "init")
KEY_VERBS = ("list", "add", "rotate", "remove", "new")
HELPS = [(name, name[8:-2].split()) for name in NAMES]
HELPS += [("snapmig-backup.1", ["backup", verb]) for verb in BACKUP_VERBS]
KEY_HELPS = [("snapmig-key.1", ["key", verb]) for verb in KEY_VERBS]
READER_SECTIONS = "NAME SYNOPSIS DESCRIPTION OPTIONS EXIT STATUS EXAMPLES SEE ALSO"


def _read(name):
    # A page as its reader sees it, in lines as long as they want to be.
    requires("mandoc")
    done = subprocess.run(
        ["mandoc", "-T", "ascii", "-O", "width=1000", PAGES / name],
        capture_output=True,
        text=True,
        check=True,
    )
    return re.sub(".\b", "", done.stdout)


def test_there_is_a_page_of_the_program_and_of_each_verb():
    """Nobody looks for a page that is not there, or finds one of a verb that is not there."""
    assert sorted(path.name for path in PAGES.iterdir()) == sorted(NAMES)


def test_pages_are_made_from_the_options():
    """The pages are those that "make docs" makes, apart from their dates."""
    kept = {path.name: path.read_text() for path in PAGES.iterdir()}
    dates = re.compile(r'(?<= 1 ")\d{4}-\d\d-\d\d(?=")')

    assert {name: dates.sub(DATE, text, count=1) for name, text in kept.items()} == make_pages()


@pytest.mark.parametrize("name", NAMES)
def test_mandoc_finds_no_fault(name):
    """A page is sound for mandoc, also in its style."""
    requires("mandoc")
    done = program.call(["mandoc", "-T", "lint", PAGES / name])

    done.ok(out="")


@pytest.mark.parametrize("name", NAMES)
def test_groff_finds_no_fault(name):
    """A page is sound for groff, which formats what most people's man shows."""
    requires("groff")
    done = program.call(["groff", "-man", "-Tutf8", "-ww", "-z", PAGES / name])

    done.ok()


@pytest.mark.parametrize(
    ("name", "words"), [*HELPS, *KEY_HELPS], ids=[" ".join(words) for _, words in HELPS + KEY_HELPS]
)
def test_a_page_has_every_option_of_the_help(cli, name, words):
    """The page explains the options listed by --help, in the same words."""
    page = _read(name)
    text = cli(*words, "--help").out.split("options:\n")[1].replace(*SHARED)
    options = re.findall(r"^  (-\S.*?)(?:  |$)", text, re.MULTILINE)

    assert options
    assert [option for option in options if _shown(option) not in page] == []


# The options of every verb share a line in the help.
SHARED = (
    "  -q, -v, --color, --debug  ",
    "  -q, --quiet\n  -v, --verbose\n  --color WHEN\n  --debug  ",
)


def _shown(option):
    # Help has "-j N, --jobs N" before Python 3.13, and {4k,32k} where a page has 4k|32k.
    option = re.sub(r"^(-\w) \S+, (--\S+ )", r"\1, \2", option)
    return re.sub(r"\{(.*)\}", lambda found: found[1].replace(",", "|"), option)


@pytest.mark.parametrize(("name", "words"), HELPS, ids=[" ".join(words) for _, words in HELPS])
def test_a_page_has_the_examples_of_the_help(cli, name, words):
    """The examples, which other tests run, are on the page as they are."""
    examples = re.findall(r"^  (snapmig .*)$", cli(*words, "--help").out, re.MULTILINE)
    page = {line.strip() for line in _read(name).splitlines()}

    assert examples
    assert set(examples) <= page


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_the_sections_that_readers_look_for(name):
    """They stand in the usual order."""
    sections = re.findall(r"^[A-Z][A-Z ]+$", _read(name), re.MULTILINE)

    assert " ".join(one for one in sections if one in READER_SECTIONS) == READER_SECTIONS


def test_the_programs_page_has_every_exit_code():
    """Those that the help lists."""
    status = _read("snapmig.1").split("EXIT STATUS")[1].split("ENVIRONMENT")[0]

    assert re.findall(r"^ +(\d|128\+N) +\S", status, re.MULTILINE) == [*"01234567", "128+N"]


def test_variables_that_the_code_reads_are_on_a_page():
    """No variable of the environment changes what happens without a word in the manual."""
    code = "\n".join(path.read_text() for path in Path(snapmig.__path__[0]).rglob("*.py"))
    read = set(re.findall(r'environ(?:\.get\(|\[)f?"([A-Z0-9_]+)', code))
    known = {
        name for pairs in ENVIRONMENT.values() for names, _ in pairs for name in names.split(", ")
    }

    assert len(read) >= 8
    assert read - known == set()


def test_a_page_keeps_its_date_while_its_text_stays(tmp_path):
    """Pages that say the same do not differ by the day on which they were made."""
    page = f'.TH SNAPMIG 1 "{DATE}"\ntext\n'
    kept = tmp_path / "snapmig.1"
    kept.write_text(page.replace(DATE, "2026-01-02"))

    assert dated(page, kept, "2027-03-04") == kept.read_text()
    assert dated(f"{page}more\n", kept, "2027-03-04") == '.TH SNAPMIG 1 "2027-03-04"\ntext\nmore\n'


def test_the_wheel_installs_pages_and_completions(tmp_path):
    """They go where man and the shells look for them."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    (wheel,) = tmp_path.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    shared = {
        name.split(".data/data/share/")[1]: data
        for name, data in files.items()
        if ".data/data/share/" in name
    }
    expected = {f"man/man1/{path.name}": path.read_bytes() for path in PAGES.iterdir()}
    for name, place in {
        "snapmig.bash": "bash-completion/completions/snapmig",
        "_snapmig": "zsh/site-functions/_snapmig",
        "snapmig.fish": "fish/vendor_completions.d/snapmig.fish",
    }.items():
        expected[place] = (COMPLETIONS / name).read_bytes()
        assert files[f"snapmig/commands/completions/{name}"] == expected[place]

    assert shared == expected
