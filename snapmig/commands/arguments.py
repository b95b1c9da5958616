"""Arguments shared by several verbs, and the layout of their help."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from typing import Any, NoReturn, Protocol, TypeVar, get_origin

from snapmig.errors import SnapmigError
from snapmig.operations.options.parse import default_jobs
from snapmig.operations.options.table import GROUPS, OPTIONS, Option
from snapmig.printable import printable

__all__ = (
    "Options",
    "Parser",
    "Verbs",
    "add_common",
    "add_groups",
    "add_option",
    "add_progress",
    "call",
    "checked",
)

Verbs = Any
"""Result of argparse's ``add_subparsers``; the type has no public name."""


Result = TypeVar("Result")


class Options(Protocol):
    """A parser, or a group of options in its help."""

    @property
    def add_argument(self) -> Callable[..., argparse.Action]:
        """Add an option."""


class Parser(argparse.ArgumentParser):
    """A parser of the program or of a verb, with one form for help and errors."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=HelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        """Exit after a usage error, printed without control characters."""
        super().error(printable(message))


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help in 80 columns, if possible one line per option."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=80)


def add_groups(parser: argparse.ArgumentParser) -> dict[str, Options]:
    """Add headings to the help of a verb with many options, and return them by name."""
    first, *others = GROUPS  # the first is argparse's own
    return {first: parser, **{title: parser.add_argument_group(title) for title in others}}


def add_option(parser: Options, name: str, **changes: Any) -> None:
    """
    Add an option of the table of saves and restores.

    :param changes: fields of :class:`Option` with other values in this verb
    """
    option = OPTIONS[name]._replace(**changes)
    flag = f"--{name.replace('_', '-')}"
    default = str(default_jobs()) if name == "jobs" else option.default_text
    words = f"{option.help} ({default})" if default else option.help
    parser.add_argument(*option.flags, flag, dest=name, help=words, **_action(option))
    for value, about in option.values.items():
        # argparse looks for a whole argument among the names of options first.
        parser.add_argument(
            f"{flag}={value}", dest=name, help=about, action="store_const", const=value
        )
    if option.kind is bool and option.default is None:
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


def add_common(parser: Options, json_help: str = "print the result as a line of JSON") -> None:
    """Add the options of every verb."""
    parser.add_argument("--json", action="store_true", help=json_help)
    parser.add_argument("--debug", action="store_true", help="show a traceback after an error")


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
