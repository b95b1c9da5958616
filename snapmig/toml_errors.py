"""
TOML files written by users, and errors about them: the key, and the reason given by msgspec.

msgspec speaks of JSON, and counts items of arrays from 0; our messages count from 1.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from typing import Any, get_args

import msgspec

from snapmig.errors import SnapmigError, UsageError
from snapmig.system.files import read_small

__all__ = ("explain", "kind_of", "parse_toml", "read_text")

MAX_FILE_SIZE = 4 << 20
"""Bytes of a file that a user writes: tables of ten thousand guests have less."""

_EXPECTED = {
    "int": "a whole number", "str": "a string", "bool": "true or false", "float": "a number",
    "array": "an array", "object": "a table", "datetime": "a date", "date": "a date",
    "time": "a time", "list": "an array", "dict": "a table",
}  # fmt: skip
_FOUND = {**_EXPECTED, "float": "a number with a fraction", "datetime": "a date with a time"}

# A bare key of TOML; any other could be empty or break the line.
_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def read_text(path: str | os.PathLike[str]) -> str:
    """
    Return a file's text.

    :raises UsageError: not a regular file, too large, or not UTF-8; without the path
    :raises OSError: it can't be read
    """
    try:
        return read_small(path, MAX_FILE_SIZE).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"byte {error.start} is not UTF-8, as TOML must be") from error
    except SnapmigError as error:
        raise UsageError(error.message) from error


def parse_toml(text: str) -> dict[str, Any]:
    """
    Parse a text into a table.

    :raises UsageError: not TOML, or too deep for a table written by a person
    """
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise UsageError("not TOML that can be read: it is nested too deep") from error
    except ValueError as error:  # a number of thousands of digits is no TOMLDecodeError
        message = f"not TOML: {str(error)[:1].lower()}{str(error)[1:]}"
        raise UsageError(message) from error


def explain(
    error: msgspec.ValidationError, raw: Mapping[str, Any], table: type[msgspec.Struct]
) -> tuple[str, str]:
    """
    Return the key and the reason of an error raised by msgspec.

    :param raw: the table
    :param table: its intended type
    """
    message, _, path = str(error).partition(" - at `$.")
    path = path.rstrip("`")
    key = _key(path)
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", message, re.DOTALL):
        unknown = match[1] if _BARE.fullmatch(match[1]) else repr(match[1])
        name = ".".join(part for part in (key, unknown) if part)
        near = difflib.get_close_matches(match[1], table.__struct_fields__, 1)
        return name, "unknown key" + (f", did you mean {near[0]}?" if near else "")
    if match := re.fullmatch(r"Object missing required field `(.*)`", message):
        return match[1], "the key is missing"
    if match := re.fullmatch(r"Expected `([^`]*)`, got `([^`]*)`", message):
        kinds = [_EXPECTED.get(kind, kind) for kind in match[1].split(" | ") if kind != "null"]
        return key, f"expected {' or '.join(kinds)}, found {_FOUND.get(match[2], match[2])}"
    found = raw.get(path.split("[")[0])
    if match := re.fullmatch(r"Expected `\w+` (>=|<=) (-?\d+)", message):
        bound = "at least" if match[1] == ">=" else "at most"
        return key, f"expected {bound} {match[2]}, found {found!r}"
    if message.startswith("Invalid enum value"):
        return key, f"expected a whole number or one of {_choices(table, path)}, found {found!r}"
    return key, message


def kind_of(value: object) -> str:
    """Return the name of a TOML value's type, for messages."""
    return _FOUND.get(type(value).__name__, type(value).__name__)


def _key(path: str) -> str:
    counted = re.sub(r"\[(\d+)\]", lambda match: f" {int(match[1]) + 1}", path)
    return counted.replace("[...]", ": one of its values")


def _choices(table: type[msgspec.Struct], key: str) -> str:
    fields = msgspec.structs.fields(table)
    kinds = next((field.type for field in fields if field.name == key), None)
    texts = [text for kind in get_args(kinds) for text in get_args(kind) if isinstance(text, str)]
    return ", ".join(repr(text) for text in texts)
