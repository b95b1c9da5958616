"""The jobs of a batch: tables with globs and placeholders filled in, checked against each other."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from snapmig.batches.checks import SchedulerMissingError, check_restore, check_save, placed
from snapmig.batches.file import BatchFile, RestoreTable, SaveTable, Table
from snapmig.errors import UsageError
from snapmig.operations.options.keys import placed_keys
from snapmig.operations.options.parse import DOMAIN_PREFIX, GUEST_PREFIX, GUEST_PREFIXES
from snapmig.stores.location import is_url, parse_location

__all__ = ("PlannedJob", "plan_jobs")

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")


@dataclass(frozen=True)
class PlannedJob:
    """
    A checked job, not yet begun.

    :param verb: ``save`` or ``restore``
    :param place: its place in the file
    :param source: path it reads, and ``destination`` the path it makes
    :param arguments: further arguments of the verb's function
    :param reads: other files it reads
    :param makes: other files it makes
    :param host: the cluster's host with all its files
    """

    name: str
    verb: str
    place: str
    source: str
    destination: str
    arguments: Mapping[str, Any]
    reads: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    host: str | None = None

    @property
    def expected_bytes(self) -> int:
        """Guest RAM in bytes, as far as the image's size tells; else 0."""
        if self.host is not None:
            return 0
        with suppress(OSError):
            if self.verb == "save" and not self.source.startswith(GUEST_PREFIXES):
                return os.stat(self.source).st_size
        return 0


def plan_jobs(file: BatchFile, path: Path, *, on_cluster: bool = False) -> list[PlannedJob]:
    """
    Return all jobs of a file in its order, saves first.

    :param path: path of the file; paths in it are relative to its directory
    :param on_cluster: each job has a host, and its files are there and not here
    :raises UsageError: an invalid value, a glob without a match, or conflicting jobs
    """
    expander = _Expander(path, on_cluster=on_cluster)
    jobs = [
        job
        for number, save in enumerate(file.saves(str(path)), 1)
        for job in expander.saves(save, f"{path}: [[save]] {number}")
    ]
    jobs += [
        job
        for number, restore in enumerate(file.restores(str(path)), 1)
        for job in expander.restores(restore, f"{path}: [[restore]] {number}")
    ]
    if file.monitor_timeout is not None:
        jobs = [_with_timeout(job, file.monitor_timeout) for job in jobs]
    _check_names(jobs)
    _check_files(jobs)
    return jobs


def _with_timeout(job: PlannedJob, seconds: float) -> PlannedJob:
    if not any(each.startswith(GUEST_PREFIXES) for each in (job.source, job.destination)):
        return job
    return replace(job, arguments={**job.arguments, "monitor_timeout": seconds})


class _Expander:
    def __init__(self, path: Path, *, on_cluster: bool) -> None:
        self._folder = path.parent.absolute() if on_cluster else path.parent
        self._on_cluster = on_cluster

    def saves(self, table: SaveTable, place: str) -> Iterator[PlannedJob]:
        with placed(place):
            self._check_host(table)
            check_save(table, here=not self._on_cluster)
        for source, fill in self._sources(table.image, table, place):
            attach = {name: fill(file) for name, file in (table.attach or {}).items()}
            base = [fill(file) for file in table.base or ()]
            parent = [] if table.parent is None else [fill(table.parent)]
            arguments = {**_given(table), "attach": attach, "base": base}
            arguments |= placed_keys(arguments, fill)
            arguments |= {"parent": parent[0]} if parent else {}
            destination = fill(table.snapshot)
            with placed(place):
                for each in (destination, *parent):
                    parse_location(each)
            yield PlannedJob(
                name=fill("{name}", path=False),
                verb="save",
                place=place,
                source=source,
                destination=destination,
                arguments=arguments,
                reads=(*base, *parent, *attach.values()),
                host=table.host,
            )

    def restores(self, table: RestoreTable, place: str) -> Iterator[PlannedJob]:
        with placed(place):
            self._check_host(table)
            check_restore(table)
        for source, fill in self._sources(table.snapshot, table, place):
            known = [] if table.working_set is None else [fill(table.working_set)]
            yield PlannedJob(
                name=fill("{name}", path=False),
                verb="restore",
                place=place,
                source=source,
                destination=fill(table.image),
                arguments={
                    **_given(table),
                    **({"working_set": known[0]} if known else {}),
                    **placed_keys(_given(table), fill),
                },
                reads=tuple(filter(self._is_here, known)),
                makes=tuple(path for path in known if not self._is_here(path)),
                host=table.host,
            )

    def _is_here(self, path: str) -> bool:
        # A host of a cluster may have it all the same, but only it can tell.
        return not self._on_cluster and os.path.lexists(path)

    def _check_host(self, table: Table) -> None:
        if self._on_cluster and not table.host:
            raise UsageError("host: the key is missing, and a cluster needs it")
        if not self._on_cluster and table.host is not None:
            message = f"host is {table.host!r}, but there is no scheduler of a cluster"
            raise SchedulerMissingError(message)

    def _sources(
        self, pattern: str, table: Table, place: str
    ) -> Iterator[tuple[str, Callable[..., str]]]:
        # Each source, with a function to fill in a text's placeholders for it.
        for source in self._matches(self._at(pattern), place):
            known = _names(source)
            known |= {} if table.host is None else {"host": table.host}
            stem = known["stem"]
            known["name"] = stem if table.name is None else _fill(table.name, known, place)

            def fill(text: str, known: dict[str, str] = known, *, path: bool = True) -> str:
                filled = _fill(text, known, place)
                return self._at(filled) if path else filled

            yield source, fill

    def _at(self, text: str) -> str:
        # Relative to the file's directory, if it is a path.
        if is_url(text) or text.startswith(DOMAIN_PREFIX):
            return text
        if text.startswith(GUEST_PREFIX):
            return GUEST_PREFIX + str(self._folder / text.removeprefix(GUEST_PREFIX))
        return str(self._folder / text)

    def _matches(self, pattern: str, place: str) -> list[str]:
        if is_url(pattern):
            with placed(place):
                return [_object(pattern)]
        if pattern.startswith(DOMAIN_PREFIX):
            return [pattern]
        prefix = GUEST_PREFIX if pattern.startswith(GUEST_PREFIX) else ""
        path = pattern.removeprefix(prefix)
        if self._on_cluster and glob.has_magic(path):
            raise UsageError(f"{place}: {path} is a pattern, a cluster needs each file's own name")
        if self._on_cluster:
            return [pattern]
        if not glob.has_magic(path) or os.path.lexists(path):
            return [pattern]
        found = sorted(glob.glob(path))  # noqa: PTH207 - the folder may itself be a pattern
        if not found:
            raise UsageError(f"{place}: nothing matches {path}")
        return [prefix + each for each in found]


def _names(source: str) -> dict[str, str]:
    if source.startswith(DOMAIN_PREFIX):
        return {"stem": source.removeprefix(DOMAIN_PREFIX)}
    path = Path(source.removeprefix(GUEST_PREFIX))
    return {"stem": path.stem, "folder": path.absolute().parent.name}


def _object(name: str) -> str:
    if glob.has_magic(name):
        raise UsageError(f"{name} is a pattern, objects are named one by one")
    return str(parse_location(name))


def _fill(text: str, known: Mapping[str, str], place: str) -> str:
    def value(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        if match[1] not in known:
            names = ", ".join(f"{{{name}}}" for name in sorted(known))
            raise UsageError(f"{place}: {text!r} has {match[0]}, expected one of {names}")
        return known[match[1]]

    return _PLACEHOLDER.sub(value, text)


def _given(table: Table) -> dict[str, Any]:
    return {
        name: value
        for name, value in msgspec.structs.asdict(table).items()
        if value is not None and name not in Table.__struct_fields__
    }


def _check_names(jobs: list[PlannedJob]) -> None:
    seen: dict[str, PlannedJob] = {}
    for job in jobs:
        other = seen.setdefault(job.name, job)
        if other is not job:
            message = (
                f"{job.place}: {job.source} would be named {job.name!r} as {other.source} is, "
                "give one of them a name"
            )
            raise UsageError(message)


def _check_files(jobs: list[PlannedJob]) -> None:
    # No two jobs may touch one destination or one guest.
    makers: dict[tuple[str | None, str], PlannedJob] = {}
    for job in jobs:
        own = [job.destination, *job.makes]
        own += [job.source] if job.source.startswith(GUEST_PREFIXES) else []
        for path in own:
            other = makers.setdefault(_identity(job, path), job)
            if other is not job and not _are_shares(job, other):
                message = f"{job.place}: {job.name!r} and {other.name!r} both have {path}"
                raise UsageError(message)
    for job in jobs:
        for path in (job.source, *job.reads):
            maker = makers.get(_identity(job, path))
            if maker is not None and maker is not job:
                message = f"{job.place}: {job.name!r} reads {path}, which {maker.name!r} makes"
                raise UsageError(message)


def _are_shares(job: PlannedJob, other: PlannedJob) -> bool:
    # Two shares of one snapshot may be made side by side.
    shares = [each.arguments.get("share") for each in (job, other)]
    return None not in shares and shares[0] != shares[1]


def _identity(job: PlannedJob, path: str) -> tuple[str | None, str]:
    # Each host has its own files, but objects are common to all; links are followed if possible.
    if is_url(path):
        return None, path
    if path.startswith(DOMAIN_PREFIX):
        return job.host, path
    prefix = GUEST_PREFIX if path.startswith(GUEST_PREFIX) else ""
    bare = path.removeprefix(prefix)
    follow = os.path.realpath if job.host is None else os.path.normpath
    return job.host, prefix + follow(bare)
