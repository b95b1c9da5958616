"""A snapshot of a Linux guest for debuggers."""

from __future__ import annotations

from pathlib import Path

import snapmig
from tests.support.guests import build
from tests.support.requirements import lacks

IMAGE = build.CACHE / "linux-256M.ram"


def save_linux(folder: Path) -> Path:
    """Return the snapshot of a guest with 256 MiB at address 0; its image is made if missing."""
    facts, _ = build.build(build.Request(256 << 20, IMAGE))
    if facts["kind"] != build.LINUX_GUEST:
        lacks(f"packages for a guest ({facts['reason']})")
    snapmig.save(IMAGE, folder / "snap", address=["ram=0"], arch="x86_64")
    return folder / "snap"
