"""The parsers' facts about each verb, as values for pages and completions."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

from snapmig.commands.main import build_parser
from snapmig.images.formats import format_names
from snapmig.operations.options.parse import default_jobs

# What completes a value, by the word that stands for it in the help: "file", "assignment" (a file
# behind the first "="), or nothing. A new word must be given its place here.
_OF_OPTIONS = dict.fromkeys(("DIR", "FILE", "OLDER", "OTHER", "SOCKET"), "file") | {
    "NAME=FILE": "assignment"
}
_OF_OPTIONS |= dict.fromkeys(
    (
        "ADDRESS",
        "AGE",
        "BLOCK=GPA",
        "CMD",
        "K/N",
        "KIND",
        "MS",
        "N",
        "NAME",
        "RATE",
        "ROOT",
        "S",
        "SECONDS",
        "SIZE",
        "TEXT",
        "TIME",
        "URI",
        "USER",
        "UUID",
    ),
    "nothing",
)
_OF_PLACES = dict.fromkeys(
    ("CONFIG", "DIR", "FILE", "IMAGE", "JOBS.toml", "ONE", "OTHER", "OUT", "SNAPSHOT", "TARGET"),
    "file",
) | {"ADDRESS": "nothing", "GUEST": "nothing", "SLOT": "nothing"}


class Value(NamedTuple):
    """
    The value to be given.

    :ivar name: as in the help; empty where nothing is to be given
    :ivar choices: all there are, where there are only so many
    :ivar completed: by what: "choices", "file", "assignment" or "nothing"
    """

    name: str = ""
    choices: tuple[str, ...] = ()
    completed: str = "nothing"


class Option(NamedTuple):
    """
    An option.

    :ivar flags: all its names, the short one first
    :ivar help: as one line
    :ivar repeats: whether it may be given again
    :ivar excluded: flags of others that can't be given with it
    :ivar group: its heading in the help
    """

    flags: tuple[str, ...]
    value: Value
    help: str
    repeats: bool
    excluded: tuple[str, ...]
    group: str


class Place(NamedTuple):
    """
    An argument without a name.

    :ivar help: as one line
    :ivar repeats: whether more may follow
    """

    value: Value
    help: str
    repeats: bool


class Verb(NamedTuple):
    """
    A verb, or the program itself, which is the one without a name.

    :ivar name: such as "save" or "backup run"
    :ivar help: the line in the list of verbs
    :ivar verbs: its own
    """

    name: str
    help: str
    usage: str
    description: str
    epilog: str
    places: tuple[Place, ...]
    options: tuple[Option, ...]
    verbs: tuple[Verb, ...]

    @property
    def command(self) -> str:
        """The command as typed."""
        return f"snapmig {self.name}".rstrip()

    def walk(self) -> Iterator[Verb]:
        """Give this and all verbs below it."""
        yield self
        for verb in self.verbs:
            yield from verb.walk()


def read_program() -> Verb:
    """Return the program with all its verbs."""
    return _verb(build_parser(), "", "")


def valued_flags(program: Verb) -> list[str]:
    """
    Return the flags, of whatever verb, that a value follows.

    :raises ValueError: one takes a value in one verb and none in another
    """
    options = [option for verb in program.walk() for option in verb.options]
    valued = {flag for option in options if option.value.name for flag in option.flags}
    alone = {flag for option in options if not option.value.name for flag in option.flags}
    if both := valued & alone:
        raise ValueError(f"with and without a value: {sorted(both)}")
    return sorted(valued)


def _verb(parser: argparse.ArgumentParser, name: str, words: str) -> Verb:
    verbs: tuple[Verb, ...] = ()
    places, options = [], []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {one.dest: one.help or "" for one in action._choices_actions}
            verbs = tuple(
                _verb(below, f"{name} {verb}".strip(), helps[verb])
                for verb, below in action.choices.items()
            )
        elif action.option_strings:
            options.append(action)
        else:
            repeats = action.nargs in ("*", "+")
            places.append(Place(_value(action, _OF_PLACES), _help(action), repeats))
    options.sort(key=lambda action: _group(parser, action))
    return Verb(
        name,
        words,
        parser.usage or "",
        parser.description or "",
        parser.epilog or "",
        tuple(places),
        tuple(_option(parser, options, action) for action in options if _is_shown(action)),
        verbs,
    )


def _group(parser: argparse.ArgumentParser, action: argparse.Action) -> int:
    return next(
        at for at, group in enumerate(parser._action_groups) if action in group._group_actions
    )


def _is_shown(action: argparse.Action) -> bool:
    return action.help != argparse.SUPPRESS


def _option(
    parser: argparse.ArgumentParser, options: list[argparse.Action], action: argparse.Action
) -> Option:
    # The contrary of an option, which its help speaks of, is a hidden one with the same result.
    contraries = [one for one in options if not _is_shown(one) and one.dest == action.dest]
    flags = [flag for one in (action, *contraries) for flag in one.option_strings]
    excluded = [
        flag
        for group in parser._mutually_exclusive_groups
        if action in group._group_actions
        for one in group._group_actions
        if one is not action
        for flag in one.option_strings
    ]
    repeats = isinstance(action, argparse._AppendAction)
    value = _value(action, _OF_OPTIONS)
    title = parser._action_groups[_group(parser, action)].title
    return Option(tuple(flags), value, _help(action), repeats, tuple(excluded), str(title))


def _value(action: argparse.Action, completed: dict[str, str]) -> Value:
    if action.nargs == 0:
        return Value()
    choices = tuple(map(str, action.choices or ()))
    if action.metavar == "FORMAT":  # that of backups is checked when a snapshot is known
        choices = choices or tuple(format_names())
    if choices:
        return Value(str(action.metavar or "|".join(choices)), choices, "choices")
    name = str(action.metavar)
    return Value(name, (), completed[name])


def _help(action: argparse.Action) -> str:
    words = " ".join((action.help or "").split())
    if action.dest == "jobs":  # which on this machine is a number
        words = words.replace(f"({default_jobs()})", "(one for each processor)")
    return words
