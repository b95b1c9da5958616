"""Cloud Hypervisor's snapshots, built by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

KIB, GIB = 1 << 10, 1 << 30

TABLE = [(4 * GIB, 64 * KIB), (0, 128 * KIB)]
"""Two zones, the upper one first."""


def state(table, mappings=None, **more: Any) -> dict[str, Any]:
    """Return the tree of a snapshot's components, as Cloud Hypervisor nests it."""
    manager = {
        "memory_ranges": {"data": [{"gpa": gpa, "length": size} for gpa, size in table]},
        "guest_ram_mappings": [
            {"slot": 0, "gpa": gpa, "size": size, "zone_id": "mem0", "virtio_mem": hotplug}
            for gpa, size, hotplug in mappings or []
        ],
        "start_of_device_area": 1 << 40,
        **more,
    }
    return nest(json.dumps(manager))


def nest(manager: Any) -> dict[str, Any]:
    """Return a tree with the given state of the memory manager."""
    return {
        "snapshots": {
            "cpu-manager": {"snapshots": {}, "snapshot_data": {"state": "{}"}},
            "memory-manager": {"snapshots": {}, "snapshot_data": {"state": manager}},
        },
        "snapshot_data": {"state": "{}"},
    }


def make(directory: Path, tree: Any, size: int | None = None, config: bytes = b"{}") -> Path:
    """Write a snapshot directory; ``tree`` may be bytes."""
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_bytes(config)
    raw = tree if isinstance(tree, bytes) else json.dumps(tree).encode()
    (directory / "state.json").write_bytes(raw)
    with (directory / "memory-ranges").open("wb") as file:
        file.truncate(192 * KIB if size is None else size)
        file.write(b"upper")
        file.seek(64 * KIB)
        file.write(b"lower")
    return directory
