"""Facts about the table of options of saves and restores, and about those who offer them."""

import inspect
import re
from pathlib import Path
from typing import get_args

import pytest

import snapmig
from snapmig.commands.main import build_parser
from snapmig.operations.options.table import API_ONLY, GROUPS, OPTIONS, names_in, options_of

DOCS = Path(__file__).parents[2] / "docs"
TABLES = ("save", "restore", "defaults", "backup")
WORDS = {
    int: "number",
    float: "number",
    str: "string",
    bool: "true, false",
    snapmig.LiveName: "string",
    list[str]: "array of strings",
    dict[str, str]: "table of strings",
    dict[str, int | str]: "table of numbers, strings",
}


def _type_words(kind):
    return WORDS[kind] if kind in WORDS else ", ".join(sorted(WORDS[one] for one in get_args(kind)))


def _arguments(function):
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


@pytest.mark.parametrize("verb", ["save", "restore"])
def test_the_function_has_every_option(verb):
    """It takes each option of its verb, with its default, and besides them callbacks only."""
    arguments = _arguments(getattr(snapmig, verb))

    assert {option.name: arguments.pop(option.name, ...) for option in options_of(verb)} == {
        option.name: option.default for option in options_of(verb)
    }
    assert sorted(arguments) == sorted(API_ONLY)


@pytest.mark.parametrize("verb", ["save", "restore"])
def test_the_command_line_has_every_option(verb):
    """Each is an option with its default; what may be repeated begins as an empty list."""
    parsed = vars(build_parser(verb).parse_args([verb, "one", "other"]))

    assert {option.name: parsed[option.name] or None for option in options_of(verb)} == {
        option.name: option.default or None for option in options_of(verb)
    }


def test_restores_take_the_options_of_their_table():
    """What a [[restore]] shares with a save are arguments of snapmig.restore(), or keys."""
    known = {*_arguments(snapmig.restore), *(option.name for option in options_of("keys"))}
    assert set(names_in("restore")) <= known


@pytest.mark.parametrize("table", ["save", "restore", "defaults"])
def test_the_batch_document_has_the_types(table):
    """docs/batch.md gives each key the type that it has."""
    text = re.split(rf"^## .*{table}.*$", (DOCS / "batch.md").read_text(), flags=re.MULTILINE)[1]
    types = dict(re.findall(r"^\| `(\w+)` \| ([^|]+?) \|", text.split("\n## ")[0], re.MULTILINE))

    assert {name: types.get(name) for name in names_in(table)} == {
        name: _type_words(OPTIONS[name].kind) for name in names_in(table)
    }


def test_the_backup_document_has_every_key():
    """docs/backups.md lists the keys of [save]."""
    (row,) = re.findall(
        r"^\| `save` \| table: (.*?), as the options", (DOCS / "backups.md").read_text(), re.M
    )

    assert sorted(re.findall(r"`(\w+)`", row)) == sorted(names_in("backup"))


def test_entries_are_sound():
    """An entry has a known group, known tables, and help that ends without its default."""
    assert [
        option.name
        for option in OPTIONS.values()
        if option.group not in GROUPS
        or not set(option.tables.split()) <= set(TABLES)
        or not set(option.verbs.split()) <= {"save", "restore", "keys"}
        or not option.help
        or option.help.endswith((")", "."))
    ] == []
