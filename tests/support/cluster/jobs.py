"""Images and files of a batch for a cluster's hosts, and what a run says of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support import ram

MIB = 1 << 20
IMAGE_SIZE = 4 * MIB


def make_images(folder: Path) -> Path:
    """Put three small images, a.ram to c.ram, and a directory for what is made, into one."""
    for number, name in enumerate("abc"):
        ram.write(folder / f"{name}.ram", ram.mixed(IMAGE_SIZE, number))
    (folder / "out").mkdir()
    return folder


def write_jobs(folder: Path, *jobs: tuple[str, str], top: str = "") -> Path:
    """Write a batch's file with a save for each name and host."""
    tables = (
        f'[[save]]\nhost = "{host}"\nimage = "{name}.ram"\nsnapshot = "out/{{name}}.snap"\n'
        for name, host in jobs
    )
    (folder / "jobs.toml").write_text(f"{top}\n{''.join(tables)}")
    return folder / "jobs.toml"


def by_job(lines: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the JSON lines of a run by their jobs."""
    found = map(json.loads, lines)
    return {line["job"]: line for line in found if "job" in line}
