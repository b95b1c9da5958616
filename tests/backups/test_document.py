"""Facts about docs/backups.md: it says what the program does."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from snapmig.backups.check import CheckResult
from snapmig.backups.listing import ListedSnapshot
from snapmig.backups.prune import PruneResult
from snapmig.backups.report import Failure, Note, Warned
from snapmig.backups.result import BackupResult
from snapmig.commands.backup_output import InitResult, Summary
from snapmig.commands.main import build_parser

DOCUMENT = (Path(__file__).parents[2] / "docs" / "backups.md").read_text()
JSON = DOCUMENT.split("### Lines of JSON")[1]
TYPES = {
    "backup": BackupResult,
    "prune": PruneResult,
    "check": CheckResult,
    "snapshot": ListedSnapshot,
    "init": InitResult,
    "summary": Summary,
    "warning": Warned,
    "note": Note,
    "error": Failure,
}


@pytest.mark.parametrize("name", TYPES)
def test_every_field_is_documented(name):
    """The document names each field of a line of JSON, where it describes that line."""
    items = re.split(r"^- ", JSON, flags=re.MULTILINE)
    (text,) = [item for item in items if f"`{name}`" in re.match(r"(?:`\w+`(?:, )?)*", item)[0]]

    assert [item.name for item in fields(TYPES[name]) if f"`{item.name}`" not in text] == []


@pytest.mark.parametrize("code", ["0", "1", "2", "3", "4", "5", "6", "7", "128+N"])
def test_every_exit_code_is_documented(code):
    """The document has a line for each exit code."""
    assert f"\n| {code} | " in DOCUMENT


@pytest.mark.parametrize(
    "line", re.findall(r"^    snapmig (backup [^#\n]*)", DOCUMENT, re.MULTILINE)
)
def test_commands_are_right(line):
    """Each command of the document is one that the parser knows."""
    assert build_parser().parse_args(shlex.split(line)).verb == "backup"


def test_hooks_environment_is_documented():
    """Each name that a hook may see is in the document."""
    code = (Path(__file__).parents[2] / "snapmig" / "backups" / "run.py").read_text()
    facts = re.search(r"def _facts.*?return \{(.*?)\}", code, re.DOTALL)[1]
    names = {"event", *re.findall(r'"(\w+)":', facts), *re.findall(r'\{"(\w+)": ', code)}

    assert {name for name in names if f"`SNAPMIG_{name.upper()}`" not in DOCUMENT} == set()
    assert {"size", "error", "guest"} <= names
