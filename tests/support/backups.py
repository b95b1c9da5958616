"""RAM of guests that are saved by night, and snapshots of any age."""

from __future__ import annotations

from datetime import datetime

from tests.support.builders import Block, Snapshot, noise, text

RAM = noise(40_960) + text(300_000).ljust(614_400, b"\0")


def built(
    snapshot_id: int,
    time: datetime,
    parent: int | None = None,
    *,
    contents: bytes = b"contents",
    **fields: object,
) -> bytes:
    """Return a snapshot of an id, a time and perhaps a parent, by the independent writer."""
    superblock: dict[str, object] = {
        "snapshot_id": snapshot_id.to_bytes(16, "big"),
        "created_ns": int(time.timestamp() * 1_000_000) * 1000,
    }
    if parent is not None:
        whole = built(parent, time, contents=contents)
        superblock |= {"parent_id": parent.to_bytes(16, "big"), "parent_digest": whole[152:184]}
    return Snapshot([Block("ram", contents)], superblock={**superblock, **fields}).build()
