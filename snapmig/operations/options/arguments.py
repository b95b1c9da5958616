"""Arguments of the verbs as Python functions: what is of another type is refused at the door."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar

from snapmig.errors import UsageError
from snapmig.sealing.keyring import Keys
from snapmig.stores.location import ObjectUrl

__all__ = ("checks_arguments",)

Words = ParamSpec("Words")
Result = TypeVar("Result")


class _Kind(NamedTuple):
    expected: str
    fits: Callable[[Any], bool]


def _is_path(value: object) -> bool:
    if isinstance(value, os.PathLike):
        return isinstance(os.fspath(value), str)
    return isinstance(value, str | ObjectUrl)


def _is_list(value: object) -> bool:
    text = isinstance(value, str | bytes | bytearray | memoryview)
    return isinstance(value, Sequence) and not text and not _is_path(value)


def _is_number(value: object) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


_PATH = _Kind("a path", _is_path)
_KINDS = {
    **dict.fromkeys(("snapshot", "one", "other", "out", "parent", "path", "image"), _PATH),
    "base": _Kind("a list of paths", _is_list),
    "attach": _Kind("a mapping of names", lambda value: isinstance(value, Mapping)),
    **dict.fromkeys(("jobs", "depth"), _Kind("a whole number", _is_number)),
    "keys": _Kind("snapmig.Keys", lambda value: isinstance(value, Keys)),
    **dict.fromkeys(("progress", "ended", "notice"), _Kind("a function", callable)),
}
_IMAGE = _Kind(
    "a path or a list of RAM blocks with their files", lambda v: _is_path(v) or _is_list(v)
)


def checks_arguments(function: Callable[Words, Result]) -> Callable[Words, Result]:
    """
    Have a verb refuse arguments of other types by name, before it does anything.

    Those that are left at their defaults are not looked at.
    """
    signature = inspect.signature(function)
    kinds = {name: kind for name, kind in _KINDS.items() if name in signature.parameters}
    if "base" in kinds:  # only what saves takes RAM blocks for an image
        kinds["image"] = _IMAGE

    @wraps(function)
    def checked(*args: Words.args, **options: Words.kwargs) -> Result:
        given = signature.bind(*args, **options).arguments
        for name, kind in kinds.items():
            if name not in given or given[name] is signature.parameters[name].default:
                continue
            if not kind.fits(given[name]):
                found = type(given[name]).__name__
                raise UsageError(f"{name} is of type {found}, expected {kind.expected}")
        return function(*args, **options)

    return checked
