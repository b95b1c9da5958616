"""Facts about sealed snapshots made and restored on the hosts of a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.test_jobs import run
from tests.support import program
from tests.support.cluster.jobs import by_job, write_jobs
from tests.support.cluster.processes import Cluster
from tests.support.secrets import write_keys

pytestmark = pytest.mark.sweep
KEYS = 'encrypt = true\nkey_file = ["key"]\n'


def test_keys_are_paths_on_every_host(cluster: Cluster, folder: Path) -> None:
    """Hosts read the key files that the batch names, and save and restore with them."""
    write_keys(folder)
    path = write_jobs(folder, ("a", "hostA"), ("b", "hostB"), top=f"[defaults]\n{KEYS}")
    found = by_job(run(cluster, path, "--json").ok(err=None).lines)
    assert set(found) == {"a", "b"}
    key = ("--key-file", folder / "key")
    for name in "ab":
        snapshot = folder / "out" / f"{name}.snap"
        program.run("verify", snapshot, *key).ok("proved by its key")

    tables = (
        f'[[restore]]\nname = "{name}"\nhost = "{host}"\nsnapshot = "out/{name}.snap"\n'
        f'image = "out/{name}.back"\nkey_file = ["key"]\n'
        for name, host in (("a", "hostB"), ("b", "hostA"))
    )
    (folder / "restores.toml").write_text("".join(tables))
    run(cluster, folder / "restores.toml").ok(err=None)
    for name in "ab":
        back = folder / "out" / f"{name}.back"
        assert back.read_bytes() == (folder / f"{name}.ram").read_bytes()
