"""Checks of a job's table by itself, before the first job begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from snapmig.architectures import find_architecture
from snapmig.batches.file import RestoreTable, SaveTable
from snapmig.encodings.engines import ENGINES
from snapmig.errors import SnapmigError, UsageError
from snapmig.images.formats import format_names
from snapmig.operations.options.addresses import parse_addresses
from snapmig.operations.options.engine import AUTO, choose_coding
from snapmig.operations.options.keys import keys_of, parse_sealing
from snapmig.operations.options.parse import (
    check_connect,
    is_guest,
    is_waiting_guest,
    parse_depth,
    parse_layout,
    parse_packet_size,
    parse_way_in,
)
from snapmig.operations.runs.lost import check_keep_going
from snapmig.operations.shares import parse_share
from snapmig.stores.location import ObjectUrl, check_new_name, is_url

__all__ = ("SchedulerMissingError", "check_restore", "check_save", "placed")


class SchedulerMissingError(UsageError):
    """A job is for a host of a cluster, and there is no scheduler."""


@contextmanager
def placed(place: str) -> Iterator[None]:
    """Prefix errors raised inside with the place in the file."""
    try:
        yield
    except SnapmigError as error:
        kind = type(error) if isinstance(error, UsageError) else UsageError
        raise kind(f"{place}: {error}") from error


def check_save(table: SaveTable, *, here: bool) -> None:
    """
    Refuse values that a save would refuse before it opens any file.

    :param here: the job runs on this host
    :raises SnapmigError: an invalid value
    """
    _check_coding(table, here=here)
    _check_place(table)
    if table.packet_size is not None:
        parse_packet_size(table.packet_size)
    _check_format(table.format, format_names(to_save=True))
    _check_addresses(table)
    if table.share is not None:
        parse_share(table.share)
    if table.live and not is_guest(table.image):
        raise UsageError("only a running guest can be saved live, as qmp:SOCKET or libvirt:DOMAIN")
    if table.resume and (is_guest(table.image) or table.share is not None):
        raise UsageError("a running guest, or a share, is saved from its start, without resume")
    check_connect(table.image, table.connect)
    keys = keys_of(msgspec.structs.asdict(table))
    parse_sealing(keys, encrypt=bool(table.encrypt), sign=bool(table.sign))


def _check_coding(table: SaveTable, *, here: bool) -> None:
    accelerator = table.accelerator or AUTO
    if not here and accelerator in ENGINES:
        return  # only its host knows its abilities
    try:
        choose_coding(
            table.compression or "zlib",
            accelerator,
            table.level,
            table.window,
            table.huffman or "dynamic",
            table.depth,
        )
    except SnapmigError as error:
        if here or isinstance(error, UsageError):
            raise  # and not for a library missing on this host only
    if not here and any("=" in name for name in table.attach or {}):
        raise UsageError("an attachment's name has '=', which a cluster can't pass on")


def check_restore(table: RestoreTable) -> None:
    """
    Refuse values that a restore would refuse before it opens any file.

    :raises SnapmigError: an invalid value
    """
    _check_image(table.image)
    to_guest = is_waiting_guest(table.image) and not table.for_qemu
    if not table.for_qemu and not to_guest:
        check_new_name(table.image)
    parse_depth(table.depth)
    parse_way_in(table.via, table.wire, bool(table.postcopy), table.working_set, to_guest=to_guest)
    check_keep_going(keep_going=bool(table.keep_going), to_guest=to_guest or bool(table.for_qemu))
    _check_format(table.format, format_names())
    _check_addresses(table)
    if table.resume and (to_guest or table.for_qemu):
        raise UsageError("a QEMU takes the whole snapshot as it is, without resume")
    if sum(map(bool, (table.force, table.in_place, table.for_qemu))) > 1:
        raise UsageError("force, in_place and for_qemu exclude each other")


def _check_addresses(table: SaveTable | RestoreTable) -> None:
    parse_addresses(table.address or {})
    if table.arch is not None:
        find_architecture(table.arch)


def _check_format(name: str | None, known: tuple[str, ...]) -> None:
    if name is not None and name not in known:
        raise UsageError(f"format is {name!r}, expected one of {', '.join(known)}")


def _check_place(table: SaveTable) -> None:
    _check_image(table.image)
    if not is_url(table.snapshot):
        check_new_name(table.snapshot)
        parse_layout(table.layout)
        return
    bucket, _slash, key = table.snapshot.removeprefix("s3://").partition("/")
    parse_layout(table.layout, ObjectUrl(bucket, key))  # placeholders are not filled in yet
    if table.live:
        raise UsageError("a live save writes packets again, expected a snapshot that is a file")
    if table.share is not None:
        raise UsageError("shares need a filesystem that all hosts have, expected a file")


def _check_image(image: str) -> None:
    is_guest(image)
    if is_url(image):
        raise UsageError(f"an image is a file, only snapshots are objects, found {image}")
