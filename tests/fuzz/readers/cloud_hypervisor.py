"""Cloud Hypervisor's states beside a memory file."""

from __future__ import annotations

import json
from pathlib import Path

from tests.fuzz.images import read_image
from tests.support.cloud_hypervisor import TABLE, make, state


def seeds() -> list[bytes]:
    """Return states with and without mappings."""
    mapped = [(4 << 30, 64 << 10, False), (0, 128 << 10, False)]
    return [json.dumps(tree).encode() for tree in (state(TABLE), state(TABLE, mapped))]


def read(data: bytes, folder: Path) -> None:
    """Read a snapshot's folder."""
    make(folder / "snapshot", data)
    read_image(folder / "snapshot", "cloud-hypervisor")
