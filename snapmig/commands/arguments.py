"""Arguments shared by several verbs, and the layout of their help."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, Protocol, TypeVar, get_origin

from snapmig.commands.style import COLORS, RED, paint
from snapmig.errors import SnapmigError
from snapmig.operations.options.parse import default_jobs
from snapmig.operations.options.table import GROUPS, KEYS, OPTIONS, Option
from snapmig.printable import printable

__all__ = (
    "Options",
    "Parser",
    "Verbs",
    "add_common",
    "add_groups",
    "add_keys",
    "add_option",
    "add_progress",
    "call",
    "checked",
)

Verbs = Any
"""Result of argparse's ``add_subparsers``; the type has no public name."""


Result = TypeVar("Result")

IN_DESCRIPTIONS = frozenset(option.name for option in OPTIONS.values() if option.group == KEYS)
"""Options that help names in a sentence, for seven lines in each verb would drown the others."""

_COMMON = {
    "quiet": ("-q", "--quiet"),
    "verbose": ("-v", "--verbose"),
    "color": ("--color",),
    "debug": ("--debug",),
}
"""Options of every verb that share a line of its help; that of the program explains them."""
_COMMON_HELP = 'print less, more, in colour: "snapmig --help"'

_OPENING = """\
sealed snapshots open with --key-file FILE, --passphrase-file FILE,
with --passphrase-command CMD or age's --identity FILE, see docs/encryption.md"""
_LOCKING = """\
sealed snapshots open with --key-file FILE, --passphrase-file FILE,
with --passphrase-command CMD or age's --identity FILE, and the new one is
locked for these and --recipient AGE, see docs/encryption.md"""
_SEALING = """\
with --encrypt or --sign it is sealed for --key-file FILE, --recipient AGE,
for --passphrase-file FILE or --passphrase-command CMD; these and
age's --identity FILE open parents; --mixed-chain: see docs/encryption.md"""


class Options(Protocol):
    """A parser, or a group of options in its help."""

    @property
    def add_argument(self) -> Callable[..., argparse.Action]:
        """Add an option."""


class Parser(argparse.ArgumentParser):
    """A parser of the program or of a verb, with one form for help and errors."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=HelpFormatter, **options)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Return the arguments; exit after unknown ones, with the option that may be meant."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            words = f"unrecognized arguments: {' '.join(unknown)}"
            first = next((word for word in unknown if word.startswith("-")), "").partition("=")[0]
            self.error(words + _meant(first, _option_names(self)))
        return found

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            meant = _meant(str(value), map(str, action.choices or ()))
            if meant and "maybe you meant" not in error.message:  # Python's own words, from 3.14 on
                raise argparse.ArgumentError(action, f"invalid choice: {value!r}{meant}") from error
            raise

    def error(self, message: str) -> NoReturn:
        """Exit after a usage error, printed without control characters."""
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {paint('error:', RED, sys.stderr)} {printable(message)}\n")


def _meant(word: str, known: Iterable[str]) -> str:
    # "; did you mean ...?" for a word that is nearly one of those known.
    from difflib import get_close_matches  # noqa: PLC0415 - after a mistake only

    close = get_close_matches(word, list(known), 1, 0.7) if word else []
    return f"; did you mean {close[0]}?" if close else ""


def _option_names(parser: argparse.ArgumentParser) -> Iterator[str]:
    # Of a parser and of the verbs that it has.
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _option_names(verb)


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """
    Help in 80 columns, if possible one line per option.

    Those of a group may share a text, and those of every verb share a line.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=80)

    def add_argument(self, action: argparse.Action) -> None:
        """Leave out an option that its group's description or the line of the common ones names."""
        if action.dest not in IN_DESCRIPTIONS and action.dest not in list(_COMMON)[1:]:
            super().add_argument(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if action.dest in _COMMON:
            return ", ".join(flags[0] for flags in _COMMON.values())
        return super()._format_action_invocation(action)

    def _expand_help(self, action: argparse.Action) -> str:
        return _COMMON_HELP if action.dest in _COMMON else super()._expand_help(action)


def add_groups(parser: argparse.ArgumentParser) -> dict[str, Options]:
    """Add headings to the help of a verb with many options, and return them by name."""
    first, *others = GROUPS  # the first is argparse's own
    return {first: parser, **{title: parser.add_argument_group(title) for title in others}}


def add_keys(group: Any, *, seals: bool = False, locks: bool = False) -> None:
    """
    Add the options of keys.

    :param group: a group of options, or a parser, which gets a group of its own
    :param seals: the verb has ``--encrypt`` and ``--sign``
    :param locks: the verb makes snapshots, sealed as they were
    """
    if isinstance(group, argparse.ArgumentParser):
        group = group.add_argument_group(KEYS)
    group.description = _SEALING if seals else _LOCKING if locks else _OPENING
    for name in ("passphrase_file", "passphrase_command", "key_file", "identity"):
        add_option(group, name)
    if seals or locks:
        add_option(group, "recipient")


def add_option(parser: Options, name: str, *, prefix: str = "", **changes: Any) -> None:
    """
    Add an option of the table of saves and restores.

    :param prefix: a word before its name
    :param changes: fields of :class:`Option` with other values in this verb
    """
    option = OPTIONS[name]._replace(**changes)
    name = f"{prefix}_{name}" if prefix else name
    flag = f"--{name.replace('_', '-')}"
    default = str(default_jobs()) if name == "jobs" else option.default_text
    words = f"{option.help} ({default})" if default else option.help
    parser.add_argument(*option.flags, flag, dest=name, help=words, **_action(option))
    for value, about in option.values.items():
        # argparse looks for a whole argument among the names of options first.
        parser.add_argument(
            f"{flag}={value}", dest=name, help=about, action="store_const", const=value
        )
    if option.kind is bool and option.default is not False:
        parser.add_argument(
            f"--no-{flag[2:]}", dest=name, action="store_false", help=argparse.SUPPRESS
        )


def _action(option: Option) -> dict[str, Any]:
    if option.kind is bool or option.values:
        return {"action": "store_true", "default": option.default}
    parse = checked(option.parse) if option.parse else int if option.kind is int else None
    value = {"metavar": option.metavar, "choices": option.choices, "type": parse}
    if get_origin(option.kind) in (dict, list):
        return {**value, "action": "append", "default": []}
    return {**value, "default": option.default}


def add_progress(parser: Options) -> None:
    """Add ``--progress``."""
    parser.add_argument(
        "--progress",
        choices=("auto", "tty", "json", "none"),
        default="auto",
        metavar="KIND",
        help="auto (a bar on a terminal), tty, json (lines), none",
    )


def add_common(parser: Any, json_help: str = "print the result as a line of JSON") -> None:
    """
    Add the options of every verb.

    :param parser: a parser, or a group of its options
    """
    parser.add_argument("--json", action="store_true", help=json_help)
    loud = parser.add_mutually_exclusive_group()
    words = "print errors and warnings only"
    loud.add_argument(*_COMMON["quiet"], dest="quiet", action="store_true", help=words)
    words = "print also what took how long, of backup results everywhere"
    loud.add_argument(*_COMMON["verbose"], dest="verbose", action="store_true", help=words)
    parser.add_argument(
        *_COMMON["color"], dest="color", choices=COLORS, default="auto", metavar="WHEN",
        help="auto (on a terminal without NO_COLOR), always or never",
    )  # fmt: skip
    words = "show a traceback after an error"
    parser.add_argument(*_COMMON["debug"], dest="debug", action="store_true", help=words)


def call(function: Callable[..., Result], options: argparse.Namespace, /, **more: Any) -> Result:
    """
    Call a verb's function with the options that are arguments of it.

    :param more: further arguments, and those with another value than on the command line
    """
    known = inspect.signature(function).parameters
    given = {name: value for name, value in vars(options).items() if name in known}
    return function(**{**given, **more})


def checked(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a parser of one argument; argparse shows its errors with the option's name."""

    def parse_argument(text: str) -> Any:
        try:
            return parse(text)
        except SnapmigError as error:
            raise argparse.ArgumentTypeError(error.message) from error

    return parse_argument
