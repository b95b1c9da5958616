"""Answers of QEMU's monitor: types and limits of all fields used."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from snapmig.geometry import MAX_RAM_SIZE, PAGE_SIZE

__all__ = (
    "Capabilities",
    "Capability",
    "FileOffset",
    "FilePath",
    "Identity",
    "MemoryDevice",
    "MemoryDevices",
    "Migration",
    "Name",
    "ObjectItem",
    "ObjectItems",
    "PageSize",
    "Status",
    "Version",
    "WrongAnswerError",
    "YankInstances",
    "typed",
)

Answer = TypeVar("Answer")
Name = Annotated[str, Meta(max_length=4096)]
Size = Annotated[int, Meta(ge=0, le=1 << 62)]
MemorySize = Annotated[int, Meta(gt=0, le=MAX_RAM_SIZE, multiple_of=PAGE_SIZE)]
FileOffset = Annotated[int, Meta(ge=0, le=MAX_RAM_SIZE, multiple_of=PAGE_SIZE)]
PageSize = Annotated[int, Meta(ge=0, le=1 << 40, multiple_of=PAGE_SIZE)]
"""0 if nobody named it."""
FilePath = Annotated[str, Meta(max_length=4096, pattern=r"^[^\x00]*$")]
_Number = Annotated[int, Meta(ge=0, lt=1 << 31)]


class WrongAnswerError(Exception):
    """An answer of an unexpected type, described in words."""


class Status(Struct, frozen=True):
    """The answer to ``query-status``."""

    status: Name


class Identity(Struct, frozen=True):
    """The answer to ``query-uuid``."""

    uuid: Annotated[str, Meta(pattern=r"^[0-9A-Fa-f-]{32,36}$")] = field(name="UUID")


class _QemuVersion(Struct, frozen=True):
    major: _Number
    minor: _Number
    micro: _Number


class Version(Struct, frozen=True):
    """The answer to ``query-version``."""

    qemu: _QemuVersion

    def __str__(self) -> str:
        return f"{self.qemu.major}.{self.qemu.minor}.{self.qemu.micro}"


class _RamCounters(Struct, frozen=True):
    transferred: Size = 0
    remaining: Size = 0


class Migration(Struct, frozen=True):
    """
    The answer to ``query-migrate``.

    :param status: ``none`` before the first migration
    :param reason: of its failure
    :param downtime_ms: milliseconds for which the guest stood still, known at the end
    """

    status: Name = "none"
    reason: str | None = field(default=None, name="error-desc")
    ram: _RamCounters = _RamCounters()
    downtime_ms: Size | None = field(default=None, name="downtime")


class Capability(Struct, frozen=True):
    """An element of the answer to ``query-migrate-capabilities``."""

    capability: Name
    state: bool


class YankInstance(Struct, frozen=True):
    """An element of the answer to ``query-yank``: something with connections that can be cut."""

    type: Name


class MemoryDevice(Struct, frozen=True):
    """
    An element of the answer to ``query-memdev``.

    :param id: None for backends not named by the user, which are no guest's RAM
    """

    size: MemorySize
    id: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    share: bool = False


class ObjectItem(Struct, frozen=True):
    """An element of the answer to ``qom-list``."""

    name: Name
    type: Name


Capabilities = Annotated[list[Capability], Meta(max_length=1000)]
YankInstances = Annotated[list[YankInstance], Meta(max_length=100_000)]
MemoryDevices = Annotated[list[MemoryDevice], Meta(max_length=1000)]
ObjectItems = Annotated[list[ObjectItem], Meta(max_length=100_000)]


def typed(answer: Any, kind: type[Answer]) -> Answer:
    """
    Return an answer as the expected type.

    :raises WrongAnswerError: it is of another type
    """
    try:
        if kind is not str:  # of libvirt's a text may be no UTF-8
            json.dumps(answer, ensure_ascii=False).encode()
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError as error:
        raise WrongAnswerError(_in_words(str(error))) from error
    except UnicodeEncodeError as error:  # JSON may have half a character
        message = "found half a character in a text, expected Unicode"
        raise WrongAnswerError(message) from error


def _in_words(text: str) -> str:
    # "Expected `int`, got `str` - at `$[0].size`" as "found str at [0].size, expected int"
    what, _, where = text.replace("`", "").partition(" - at $")
    place = f" at {where.removeprefix('.')}" if where else ""
    if match := re.fullmatch(r"Expected (.*), got (.*)", what):
        return f"found {match[2]}{place}, expected {match[1]}"
    if match := re.fullmatch(r"Object missing required field (.*)", what):
        return f"found an object{place} without {match[1]}, expected one with it"
    return f"found a value out of range{place}, {what[:1].lower()}{what[1:]}"
