"""
Configuration: a TOML file to checked values, or one sentence with the place of the fault.

All faults are found before the first guest is touched. Paths are relative to the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from snapmig.backups.durations import Duration, parse_duration
from snapmig.backups.hooks import Hooks
from snapmig.backups.retention import UNLIMITED, Rules
from snapmig.backups.saving import refused_option
from snapmig.backups.schema import TABLES, GuestTable, HooksTable, RetentionTable, TopTable
from snapmig.errors import UsageError
from snapmig.images.formats import format_names
from snapmig.operations.options.keys import keys_of, placed_keys, with_keys
from snapmig.operations.options.parse import DOMAIN_PREFIX, GUEST_PREFIX
from snapmig.sealing.keyring import Keys
from snapmig.stores.location import Location, parse_folder
from snapmig.system.libc import IO_CLASSES
from snapmig.toml_errors import explain, kind_of, parse_toml, read_text

__all__ = ("Config", "ConfigError", "GuestConfig", "IoPriority", "load_config", "parse_config")


class ConfigError(UsageError):
    """Invalid configuration; the message has the place."""


_GUEST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", re.ASCII)
Table = TypeVar("Table", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class IoPriority:
    """A class of ioprio_set(2) by name, and a level in it from 0, the highest, to 7."""

    name: str
    level: int


@dataclass(frozen=True, slots=True)
class GuestConfig:
    """
    A guest and its rules.

    :param source: the image argument of :func:`snapmig.save`
    :param save: its keyword arguments
    :param optional: skip the guest if its source does not exist
    :param full_every: one full snapshot in that many, or after that long
    :param check_days: period in days within which everything is read; None: each time
    :param max_age: age from which the last good snapshot is late; None: none is
    """

    name: str
    source: str
    save: Mapping[str, Any]
    keys: Keys | None
    roots: Path | None
    optional: bool
    full_every: int | Duration
    check_days: int | None
    max_age: Duration | None
    rules: Rules
    hooks: Hooks


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration; ``lock_wait`` is in seconds, ``repository`` may be a prefix of keys."""

    path: Path
    repository: Location
    lock_wait: float
    nice: int | None
    ionice: IoPriority | None
    guests: tuple[GuestConfig, ...]

    def guest(self, name: str) -> GuestConfig:
        """
        Return a guest by its name.

        :raises UsageError: there is none of this name
        """
        for guest in self.guests:
            if guest.name == name:
                return guest
        known = ", ".join(guest.name for guest in self.guests) or "none"
        raise UsageError(f"there is no guest {name!r}, only {known}", path=str(self.path))


def load_config(path: str | os.PathLike[str]) -> Config:
    """
    Read a configuration.

    :raises ConfigError: an invalid value, with its place
    :raises OSError: it can't be read
    """
    try:
        text = read_text(path)
    except UsageError as error:
        raise ConfigError(error.message, path=str(path)) from error
    return parse_config(text, Path(path))


def parse_config(text: str, path: Path) -> Config:
    """
    Return the configuration in a text.

    :param path: its file, for messages and as the base of relative paths
    :raises ConfigError: an invalid value, with its place
    """
    try:
        raw = parse_toml(text)
    except UsageError as error:
        raise ConfigError(error.message, path=str(path)) from error
    return _Parser(path).config(raw)


class _Parser:
    # Knows the file's name for messages. `place` is the table as users write it between brackets.
    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = Path(os.path.abspath(path)).parent

    def config(self, raw: dict[str, Any]) -> Config:
        top = self._convert(raw, TopTable, "")
        self._repository = self._place(self._text(top.repository, "", "repository"))
        for name in TABLES:
            self._convert(getattr(top, name), TABLES[name], name)
        return Config(
            path=self._path,
            repository=self._repository,
            lock_wait=top.lock_wait,
            nice=top.nice,
            ionice=None if top.ionice is None else self._ionice(top.ionice),
            guests=tuple(self._guest(top, name, raw) for name, raw in top.guests.items()),
        )

    def _place(self, text: str) -> Location:
        try:
            place = parse_folder(text)
        except UsageError as error:
            raise self._error("", "repository", f"{error.message}, found {text!r}") from error
        return self._folder / place if isinstance(place, Path) else place

    def _guest(self, top: TopTable, name: str, raw: Any) -> GuestConfig:
        place = f"guests.{name}"
        if _GUEST_NAME.fullmatch(name) is None:
            message = "expected a name of letters, digits, '_', '-' and '.', for it names a folder"
            raise self._error("guests", repr(name), message)
        if not isinstance(raw, dict):
            raise self._error("guests", name, f"expected a table, found {kind_of(raw)}")
        guest = self._convert(raw, GuestTable, place)
        within = top.check_within if guest.check_within is None else guest.check_within
        retention = self._merged(top, guest, "retention", place)
        words = self._save(guest, self._merged(top, guest, "save", place), place)
        words |= placed_keys(words, lambda path: str(self._folder / path))
        keys = keys_of(words)
        return GuestConfig(
            name=name,
            source=self._source(guest.source, place),
            save=with_keys(words),
            keys=keys,
            roots=self._roots(top, name),
            optional=guest.optional,
            full_every=self._full_every(guest, top, place),
            check_days=None if within is None else self._days(within, place),
            max_age=self._max_age(guest, top, place),
            rules=self._rules(retention, place),
            hooks=self._hooks(self._merged(top, guest, "hooks", place)),
        )

    def _roots(self, top: TopTable, name: str) -> Path | None:
        if top.roots is None:
            return None
        folder = self._folder / self._text(top.roots, "", "roots")
        if isinstance(self._repository, Path) and folder.is_relative_to(self._repository):
            message = (
                "expected a folder outside the repository: whoever changes that could change it"
            )
            raise self._error("", "roots", message)
        return folder / f"{name}.json"

    def _merged(self, top: TopTable, guest: GuestTable, name: str, place: str) -> Any:
        own = getattr(guest, name)
        self._convert(
            own, TABLES[name], f"{place}.{name}"
        )  # alone, so that messages have its place
        return self._convert({**getattr(top, name), **own}, TABLES[name], f"{place}.{name}")

    def _source(self, text: str, place: str) -> str:
        self._text(text, place, "source")
        if text.startswith(DOMAIN_PREFIX):
            if text == DOMAIN_PREFIX:
                raise self._error(place, "source", "expected the name of a domain, found ''")
            return text
        if text.startswith(GUEST_PREFIX):
            socket = self._text(text.removeprefix(GUEST_PREFIX), place, "source")
            return f"{GUEST_PREFIX}{self._folder / socket}"
        return str(self._folder / text)

    def _save(self, guest: GuestTable, table: Any, place: str) -> dict[str, Any]:
        given = msgspec.structs.asdict(table)
        options = {key: value for key, value in given.items() if value is not None}
        if (refused := refused_option(options, self._repository)) is not None:
            raise self._error(f"{place}.save", *refused)
        if not guest.source.startswith(DOMAIN_PREFIX):
            options.pop("connect", None)  # for all guests, as far as it concerns them
        if guest.format is not None:
            if guest.format not in (names := format_names(to_save=True)):
                message = f"expected one of {', '.join(names)}, found {guest.format!r}"
                raise self._error(place, "format", message)
            options["format"] = guest.format
        if guest.base:
            options["base"] = [str(self._folder / name) for name in guest.base]
        if guest.attach:
            options["attach"] = self._attachments(guest.attach, f"{place}.attach")
        return options

    def _attachments(self, table: dict[str, Any], place: str) -> dict[str, Path]:
        for name, path in table.items():
            if not isinstance(path, str):
                raise self._error(place, name, f"expected a string, found {kind_of(path)}")
            self._text(path, place, name)
        return {name: self._folder / path for name, path in table.items()}

    def _full_every(self, guest: GuestTable, top: TopTable, place: str) -> int | Duration:
        own = guest.full_every is not None
        value = guest.full_every if guest.full_every is not None else top.full_every
        if isinstance(value, int):
            return value
        return self._span(value, place if own else "", "full_every")

    def _max_age(self, guest: GuestTable, top: TopTable, place: str) -> Duration | None:
        if guest.max_age is not None:
            return self._span(guest.max_age, place, "max_age", zero=True) or None
        return None if top.max_age is None else self._span(top.max_age, "", "max_age")

    def _days(self, text: str, place: str) -> int:
        days = self._span(text, place, "check_within").in_days()
        if days < 1:
            raise self._error(place, "check_within", f"expected a day at least, found {text!r}")
        return days

    def _rules(self, table: RetentionTable, place: str) -> Rules:
        counts = {
            name: UNLIMITED if count == "unlimited" else count
            for name, count in (
                (name, getattr(table, f"keep_{name}"))
                for name in ("last", "hourly", "daily", "weekly", "monthly", "yearly")
            )
        }
        within = table.keep_within
        span = None
        if within is not None:
            span = self._span(within, f"{place}.retention", "keep_within", zero=True)
        return Rules(within=span, **counts)

    @staticmethod
    def _hooks(table: HooksTable) -> Hooks:
        return Hooks(
            before=tuple(table.before),
            after=tuple(table.after),
            error=tuple(table.error),
            timeout=table.timeout,
        )

    def _span(self, text: str, place: str, key: str, *, zero: bool = False) -> Duration:
        try:
            span = parse_duration(text)
        except UsageError as error:
            raise self._error(place, key, error.message) from error
        if not span and not zero:
            raise self._error(place, key, f"expected more than nothing, found {text!r}")
        return span

    def _ionice(self, text: str) -> IoPriority:
        name, colon, level = text.partition(":")
        known = name in IO_CLASSES
        if not known or (colon and (name == "idle" or level not in tuple("01234567"))):
            message = f"expected idle, best-effort:0 to :7 or realtime:0 to :7, found {text!r}"
            raise self._error("", "ionice", message)
        return IoPriority(name, int(level or 4))

    def _text(self, text: str, place: str, key: str) -> str:
        if not text or "\0" in text:
            raise self._error(place, key, f"expected a path, found {text!r}")
        return text

    def _convert(self, raw: dict[str, Any], table: type[Table], place: str) -> Table:
        try:
            return msgspec.convert(raw, table)
        except msgspec.ValidationError as error:
            where, message = explain(error, raw, table)
            raise self._error(place, where, message) from error

    def _error(self, place: str, key: str, message: str) -> ConfigError:
        where = ".".join(part for part in (place, key) if part)
        return ConfigError(f"{where}: {message}" if where else message, path=str(self._path))
