"""RAM of guests that are saved by night, and snapshots of any age."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from tests.support.builders import Block, Snapshot, noise, root, text

RAM = noise(40_960) + text(300_000).ljust(614_400, b"\0")


def built(
    snapshot_id: int,
    time: datetime,
    parent: int | None = None,
    *,
    contents: bytes = b"contents",
    **fields: object,
) -> bytes:
    """
    Return a snapshot of an id, a time and perhaps a parent, by the independent writer.

    :param parent: id of one that is nowhere, unless ``fields`` have its root
    """
    superblock: dict[str, object] = {
        "snapshot_id": snapshot_id.to_bytes(16, "big"),
        "created_ns": int(time.timestamp() * 1_000_000) * 1000,
    }
    if parent is not None:
        superblock |= {"parent_id": parent.to_bytes(16, "big"), "parent_root": b"\1" * 32}
    return Snapshot([Block("ram", contents)], superblock={**superblock, **fields}).build()


def root_among(snapshots: Iterable[bytes], snapshot_id: int | None) -> dict[str, bytes]:
    """Return the field ``parent_root`` for the snapshot of an id, nothing if it is not there."""
    wanted = None if snapshot_id is None else snapshot_id.to_bytes(16, "big")
    found = [root(raw) for raw in snapshots if raw[32:48] == wanted]
    return {"parent_root": found[0]} if found else {}
