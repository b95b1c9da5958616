"""A cluster of two hosts for the tests of a module, and a directory with guests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.processes import Cluster, start_cluster
from tests.system import ram

pytest.importorskip("distributed")

MIB = 1 << 20
HOSTS = {"worker-a": "hostA=1", "worker-b": "hostB=1"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Give a scheduler with a worker for each of two hosts."""
    cluster = start_cluster(tmp_path_factory.mktemp("cluster"), HOSTS)
    yield cluster
    cluster.end()


@pytest.fixture
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Give the same for a test that ends parts of it."""
    cluster = start_cluster(tmp_path_factory.mktemp("cluster"), HOSTS)
    yield cluster
    cluster.end()


@pytest.fixture
def folder(shm: Path) -> Path:
    """Give a directory with three small images, a.ram to c.ram, and one for what is made."""
    for number, name in enumerate("abc"):
        ram.write(shm / f"{name}.ram", ram.mixed(4 * MIB, number))
    (shm / "out").mkdir()
    return shm


@pytest.fixture
def write(folder: Path) -> Callable[..., Path]:
    """Give a function that writes a batch's file with a save for each name and host."""

    def write(*jobs: tuple[str, str], top: str = "") -> Path:
        tables = (
            f'[[save]]\nhost = "{host}"\nimage = "{name}.ram"\nsnapshot = "out/{{name}}.snap"\n'
            for name, host in jobs
        )
        (folder / "jobs.toml").write_text(f"{top}\n{''.join(tables)}")
        return folder / "jobs.toml"

    return write
