"""``info``: facts about a snapshot from its superblock, tables and index."""

from __future__ import annotations

import os

from snapmig.container.head import SnapshotHead
from snapmig.operations.options.arguments import checks_arguments
from snapmig.operations.options.keys import parse_keys
from snapmig.operations.runs.snapshot_facts import (
    AttachmentInfo,
    BlockInfo,
    SnapshotInfo,
    facts_of,
)
from snapmig.sealing.keyring import Keys

__all__ = ("AttachmentInfo", "BlockInfo", "SnapshotInfo", "info")


@checks_arguments
def info(snapshot: str | os.PathLike[str], *, keys: Keys | None = None) -> SnapshotInfo:
    """
    Return facts about a snapshot. The whole index is checked; packets are not read.

    :param snapshot: a path, or ``s3://BUCKET/KEY``
    :param keys: for a sealed snapshot; without one for an encrypted snapshot the result has what
        stands in the clear
    :raises CorruptSnapshotError: not a snapshot, or damaged outside its packets
    :raises UnsupportedError: needs a feature unknown to this version
    :raises StoreError: object storage can't be reached, or refused a request
    :raises OSError: it can't be read
    """
    with SnapshotHead(os.fspath(snapshot), keys=parse_keys(keys), locked=True) as source:
        return facts_of(source)
