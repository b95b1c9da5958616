"""A cluster of two hosts for all tests here, and directories with guests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.cluster.jobs import make_images, write_jobs
from tests.support.cluster.processes import Cluster, start_cluster

pytest.importorskip("distributed")

HOSTS = {"worker-a": "hostA=1", "worker-b": "hostB=1"}


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Give a scheduler with a worker for each of two hosts, for tests that leave it whole."""
    cluster = start_cluster(tmp_path_factory.mktemp("cluster"), HOSTS)
    yield cluster
    cluster.end()


@pytest.fixture(scope="module")
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Give the same for a module that ends parts of it."""
    cluster = start_cluster(tmp_path_factory.mktemp("cluster"), HOSTS)
    yield cluster
    cluster.end()


@pytest.fixture
def folder(shm: Path) -> Path:
    """Give a directory with three small images, a.ram to c.ram, and one for what is made."""
    return make_images(shm)


@pytest.fixture
def write(folder: Path) -> Callable[..., Path]:
    """Give a function that writes a batch's file with a save for each name and host."""

    def write(*jobs: tuple[str, str], top: str = "") -> Path:
        return write_jobs(folder, *jobs, top=top)

    return write
