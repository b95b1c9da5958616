"""``chain``: a snapshot and its parents."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

from snapmig.chains.lookup import open_parents
from snapmig.container.format import PageKind
from snapmig.container.head import SnapshotHead
from snapmig.operations.options.arguments import checks_arguments
from snapmig.operations.options.keys import parse_keys
from snapmig.sealing.keyring import Keys

__all__ = ("ChainLink", "chain")


@dataclass(frozen=True, slots=True)
class ChainLink:
    """
    A snapshot of a chain; sizes are in bytes.

    :param changed_pages: pages stored in it: data, and differences
    :param same_pages: pages taken from its parent
    :param root: SHA-256 of its superblock, and so of all that it holds, in hexadecimal digits
    :param sealing: ``none``, ``signed`` or ``encrypted``
    :param disk_size: present size of the file on its filesystem
    """

    snapshot: str
    snapshot_id: str
    parent_id: str | None
    created: str
    ram_size: int
    changed_pages: int
    delta_pages: int
    same_pages: int
    file_size: int
    disk_size: int
    root: str
    sealing: str


@checks_arguments
def chain(
    snapshot: str | os.PathLike[str],
    *,
    follow_remote_parents: bool = False,
    keys: Keys | None = None,
) -> list[ChainLink]:
    """
    Return a snapshot and its parents, the youngest first.

    :param follow_remote_parents: look for parents anywhere, as named by snapshots; default: only
        beside a snapshot and below
    :param keys: for sealed snapshots
    :returns: a :class:`ChainLink` each; sizes are in bytes
    :raises CorruptSnapshotError: one is damaged, or is not the one its child was built on
    :raises SnapmigError: one is missing
    :raises OSError: one can't be read
    """
    with (
        SnapshotHead(os.fspath(snapshot), keys=parse_keys(keys), locked=True) as file,
        ExitStack() as stack,
    ):
        parents = open_parents(file, stack, follow_remote=follow_remote_parents)
        return [_link(each) for each in parents]


def _link(file: SnapshotHead) -> ChainLink:
    file.index.check_digest()
    block = file.superblock
    pages = file.index.counts().pages
    deltas = pages[PageKind.DELTA_AGAINST_PARENT]
    return ChainLink(
        snapshot=file.shown,
        snapshot_id=block.snapshot_id.hex(),
        parent_id=block.parent_id.hex() if file.has_parent else None,
        created=datetime.fromtimestamp(block.created_ns / 1e9, UTC).isoformat("T", "seconds"),
        ram_size=file.geometry.ram_size,
        changed_pages=pages[PageKind.DATA] + deltas,
        delta_pages=deltas,
        same_pages=pages[PageKind.SAME_AS_PARENT],
        file_size=block.file_size,
        disk_size=file.disk_size,
        root=block.root.hex(),
        sealing=file.sealing.name.lower(),
    )
