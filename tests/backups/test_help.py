"""Facts about the help of ``snapmig backup``: it fits a screen, and its examples run."""

import re
import shlex

import pytest

from snapmig.commands.main import build_parser
from tests.support.backups import RAM

VERBS = ("run", "list", "restore", "check", "prune", "report", "init")
COMMON = "--json -q -v --color --debug -h --help"
OPTIONS = {
    "run": "-n --dry-run --full --no-prune --lock-wait --metrics --monitor-timeout -j --jobs "
    f"--progress {COMMON}",
    "list": COMMON,
    "restore": "--before --snapshot --format -f --force --in-place --for-qemu --keep-going "
    f"--monitor-timeout -j --jobs --progress {COMMON}",
    "check": f"--all --days -j --jobs --progress {COMMON}",
    "prune": f"-n --dry-run --lock-wait --progress {COMMON}",
    "report": f"-o --output -f --force --no-maps --progress {COMMON}",
    "init": f"-f --force {COMMON}",
}


def _choices(parser):
    return parser._subparsers._group_actions[0].choices


BACKUP = _choices(build_parser())["backup"]
HELP = {"": BACKUP.format_help()}
HELP |= {verb: parser.format_help() for verb, parser in _choices(BACKUP).items()}
EXAMPLES = [
    (verb, line.strip())
    for verb, text in HELP.items()
    for line in re.findall(r"^  snapmig .*$", text, re.MULTILINE)
]
# Guests that run are restored by tests/qemu.
IMAGE_EXAMPLES = [example for example in EXAMPLES if "qmp:" not in example[1]]


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_fits_a_screen(cli, verb):
    """Help has at most 40 lines of 80 columns."""
    outcome = cli("backup", *verb.split(), "--help")
    lines = outcome.lines

    outcome.ok()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("verb", VERBS)
def test_help_names_every_option(verb):
    """A verb has the options that its help names, and no others."""
    text = re.split(r"\n\n(?=[A-Z])|examples:", HELP[verb].split("options:")[1])[0]
    found = re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text)

    assert set(found) == set(OPTIONS[verb].split())


def test_every_verb_is_there():
    """The verbs are those that are documented."""
    assert tuple(HELP)[1:] == VERBS


def test_help_lists_exit_codes():
    """The exit codes that only backups have stand in their help."""
    assert re.findall(r"^  (\d)  ", HELP[""], re.MULTILINE) == ["6", "7"]


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_ends_in_examples(verb):
    """Each help has at least two examples."""
    assert len([line for known, line in EXAMPLES if known == verb]) >= 2


@pytest.mark.parametrize("number", range(len(IMAGE_EXAMPLES)))
def test_examples_run(place, monkeypatch, number):
    """Each example runs where there is a saved guest web, with only its year put off."""
    _, line = IMAGE_EXAMPLES[number]
    line = line.replace(" 2026-", " 2126-")
    monkeypatch.chdir(place.folder)
    place.config.unlink()
    if " init backup" not in line:
        place.configure()
        place.backup("run")
        (place.folder / "web.ram").rename(place.folder / "ram")
        place.config.write_text(place.config.read_text().replace("web.ram", "ram"))
    program, *arguments = shlex.split(line)
    outcome = place.cli(*arguments)

    outcome.ok()
    assert program == "snapmig"
    if "restore" in line:
        assert (place.folder / "web.ram").read_bytes() == RAM
