"""``chain``: a snapshot and its parents."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

from snapmig.chains.lookup import open_parents
from snapmig.container.format import PageKind
from snapmig.container.reader import SnapshotFile
from snapmig.operations.options.arguments import checks_arguments

__all__ = ("ChainLink", "chain")


@dataclass(frozen=True, slots=True)
class ChainLink:
    """
    A snapshot of a chain; sizes are in bytes.

    :param changed_pages: pages stored in it: data, and differences
    :param same_pages: pages taken from its parent
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


@checks_arguments
def chain(
    snapshot: str | os.PathLike[str], *, follow_remote_parents: bool = False
) -> list[ChainLink]:
    """
    Return a snapshot and its parents, the youngest first.

    :param follow_remote_parents: look for parents anywhere, as named by snapshots; default: only
        beside a snapshot and below
    :returns: a :class:`ChainLink` each; sizes are in bytes
    :raises CorruptSnapshotError: one is damaged, or is not the one its child was built on
    :raises SnapmigError: one is missing
    :raises OSError: one can't be read
    """
    with SnapshotFile(os.fspath(snapshot)) as file, ExitStack() as stack:
        parents = open_parents(file, stack, follow_remote=follow_remote_parents)
        return [_link(each) for each in parents]


def _link(file: SnapshotFile) -> ChainLink:
    file.index.check_digest()
    block = file.superblock
    counts = file.index.kind_counts()
    deltas = int(counts[PageKind.DELTA_AGAINST_PARENT])
    return ChainLink(
        snapshot=file.shown,
        snapshot_id=block.snapshot_id.hex(),
        parent_id=block.parent_id.hex() if file.has_parent else None,
        created=datetime.fromtimestamp(block.created_ns / 1e9, UTC).isoformat("T", "seconds"),
        ram_size=file.geometry.ram_size,
        changed_pages=int(counts[PageKind.DATA]) + deltas,
        delta_pages=deltas,
        same_pages=int(counts[PageKind.SAME_AS_PARENT]),
        file_size=block.file_size,
        disk_size=file.disk_size,
    )
