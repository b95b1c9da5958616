"""Configurations of backups."""

from __future__ import annotations

from pathlib import Path

from snapmig.backups.config import load_config
from snapmig.backups.template import TEMPLATE


def seeds() -> list[bytes]:
    """Return the file that ``backup init`` writes, with and without its comments."""
    plain = "\n".join(line.removeprefix("# ") for line in TEMPLATE.splitlines() if " = " in line)
    small = 'repository = "repo"\n[retention]\nkeep_within = "1y5m7d2h"\nkeep_last = 3\n'
    return [
        TEMPLATE.encode(),
        plain.encode(),
        f'{small}[save]\nlevel = 1\n[guests.web]\nsource = "qmp:/run/web"\n'.encode(),
    ]


def read(data: bytes, folder: Path) -> None:
    """Read a file."""
    path = folder / "backup.toml"
    path.write_bytes(data)
    load_config(path)
