"""Batch files."""

from __future__ import annotations

from pathlib import Path

from snapmig.batches.file import read_batch_file
from snapmig.batches.jobs import plan_jobs

SEEDS = (
    'jobs = 2\nmax_guests_at_once = 2\nfail_fast = true\nbwlimit = "200M"\n[defaults]\n'
    'compression = "zstd"\nlevel = 3\n[[save]]\nimage = "a*"\nsnapshot = "{name}.snap"\n'
    'attach = {state = "x"}\naddress = {ram = 0, "ram@2G" = "4G"}\n',
    '[[restore]]\nsnapshot = "s3://bucket/key"\nimage = "{stem}-{folder}.ram"\nforce = true\n'
    "keep_going = true\n",
    '[[save]]\nimage = "qmp:/run/a"\nsnapshot = "o"\nlive = "background"\nvia = "multifd"\n'
    'max_downtime = 1.5\nshare = "1/2"\nlayout = "packed"\npacket_size = "64K"\n',
)


def seeds() -> list[bytes]:
    """Return some files."""
    return [text.encode() for text in SEEDS]


def read(data: bytes, folder: Path) -> None:
    """Read a file, and plan its jobs."""
    path = folder / "jobs.toml"
    path.write_bytes(data)
    (folder / "a.ram").write_bytes(b"x")
    plan_jobs(read_batch_file(path), path)
