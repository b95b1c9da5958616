"""What msgspec says of a table, whose words are JSON's, in words of TOML, with the key."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, get_args

import msgspec

__all__ = ("explain", "kind_of")

_WORDS = {
    "int": "a whole number", "str": "a string", "bool": "true or false", "float": "a number",
    "array": "an array", "object": "a table", "datetime": "a date", "date": "a date",
    "time": "a time", "list": "an array", "dict": "a table",
}  # fmt: skip


def explain(words: str, raw: Mapping[str, Any], table: type[msgspec.Struct]) -> tuple[str, str]:
    """
    Return the key that msgspec's refusal of a table is about, and the refusal in TOML's words.

    :param words: what its error says
    :param raw: the table
    :param table: what it was to become
    """
    words, _, path = words.partition(" - at `$.")
    key = path.rstrip("`")
    if match := re.fullmatch(r"Object contains unknown field `(.*)`", words, re.DOTALL):
        name = ".".join(part for part in (key, match[1]) if part)
        near = difflib.get_close_matches(match[1], table.__struct_fields__, 1)
        return name, "unknown key" + (f", did you mean {near[0]}?" if near else "")
    if match := re.fullmatch(r"Object missing required field `(.*)`", words):
        return match[1], "expected this key, it is not there"
    found = raw.get(key.split("[")[0])
    if match := re.fullmatch(r"Expected `([^`]*)`, got `([^`]*)`", words):
        kinds = [_WORDS.get(kind, kind) for kind in match[1].split(" | ") if kind != "null"]
        return key, f"expected {' or '.join(kinds)}, found {_WORDS.get(match[2], match[2])}"
    if match := re.fullmatch(r"Expected `\w+` (>=|<=) (-?\d+)", words):
        bound = "at least" if match[1] == ">=" else "at most"
        return key, f"expected {bound} {match[2]}, found {found!r}"
    if words.startswith("Invalid enum value"):
        return key, f"expected a whole number or one of {_choices(table, key)}, found {found!r}"
    return key, words


def _choices(table: type[msgspec.Struct], key: str) -> str:
    hint = msgspec.structs.fields(table)
    kinds = next((item.type for item in hint if item.name == key), None)
    texts = [text for kind in get_args(kinds) for text in get_args(kind) if isinstance(text, str)]
    return ", ".join(repr(text) for text in texts)


def kind_of(value: object) -> str:
    """Return what a value of TOML is, in words."""
    return _WORDS.get(type(value).__name__, type(value).__name__)
