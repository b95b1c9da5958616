"""Jobs of a cluster whose snapshots are objects: its hosts speak to the server, nobody else."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.s3.conftest import CHANGED, RAM
from tests.s3.test_faults import PART
from tests.support import program, ram
from tests.support.cluster.jobs import by_job
from tests.support.cluster.processes import ENVIRONMENT, Cluster, start_cluster
from tests.support.objects.proxy import Hold, Pass, Proxy
from tests.support.objects.server import BUCKET, KEYS, Server
from tests.support.outcome import Outcome

pytest.importorskip("distributed")
pytestmark = pytest.mark.sweep

FOLDER = f"s3://{BUCKET}/cluster"
NO_STORE = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("AWS_")} | {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_CONFIG_FILE": "/dev/null",
}
"""What leads to no server, and has no keys."""


@pytest.fixture(scope="module")
def way(server: Server) -> Iterator[Proxy]:
    """Give a proxy before the server, through which hosts go."""
    made = Proxy(server.port)
    yield made
    made.close()


@pytest.fixture(scope="module")
def cluster(way: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Give two hosts whose workers know server and keys, and one that has no keys."""
    lead = {**NO_STORE, "AWS_ENDPOINT_URL": way.url}
    hosts = {"worker-a": "hostA=1", "worker-b": "hostB=1"}
    cluster = start_cluster(tmp_path_factory.mktemp("cluster"), hosts, environment={**lead, **KEYS})
    try:
        cluster.environment = lead
        cluster.start_worker("worker-c", "hostC=1")
        cluster.wait_for_worker("worker-c")
        yield cluster
    finally:
        cluster.end()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory with a guest's image, and what it became."""
    folder = tmp_path_factory.mktemp("guests")
    ram.write(folder / "web.ram", RAM)
    ram.write(folder / "later.ram", CHANGED)
    return folder


def job(verb: str, host: str, **keys: str) -> str:
    """Return a table of a batch's file."""
    lines = [f'{name} = "{value}"' for name, value in {"host": host, **keys}.items()]
    return "\n".join([f"[[{verb}]]", *lines, ""])


def run(
    cluster: Cluster, place: Path, *tables: str, environment: Mapping[str, str] = NO_STORE
) -> Outcome:
    """Run jobs on the cluster, told by a client that knows nothing of the server."""
    return program.run(*words(cluster, place, *tables), env=environment)


def words(cluster: Cluster, place: Path, *tables: str) -> tuple[object, ...]:
    """Write a batch's file, and return the arguments of its run."""
    (place / "jobs.toml").write_text("".join(tables))
    return ("batch", "--json", "-j1", "--scheduler", cluster.address, place / "jobs.toml")


@pytest.fixture(scope="module")
def saved(cluster: Cluster, place: Path) -> dict[str, dict[str, Any]]:
    """Give the lines of a run of two saves into the bucket, the second by a host without keys."""
    tables = [
        job("save", host, image="web.ram", snapshot=f"{FOLDER}/{name}.snap", name=name)
        for name, host in (("web", "hostA"), ("keyless", "hostC"))
    ]
    return by_job(run(cluster, place, *tables).lines)


@pytest.fixture(scope="module")
def grown(cluster: Cluster, place: Path, saved: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Give the lines of a run in which the other host saves what changed since."""
    parent, child = f"{FOLDER}/web.snap", f"{FOLDER}/later.snap"
    assert saved["web"]["message_type"] == "save"
    done = run(
        cluster, place, job("save", "hostB", image="later.ram", snapshot=child, parent=parent)
    )
    return by_job(done.lines)


def test_a_host_saves_into_a_bucket(server: Server, saved: dict[str, dict[str, Any]]) -> None:
    """The object is there, complete, and the host's worker made it."""
    assert saved["web"]["worker"] == "worker-a"
    assert len(server.get("cluster/web.snap")) == saved["web"]["file_size"]


def test_another_host_saves_what_changed(grown: dict[str, dict[str, Any]]) -> None:
    """A parent in the bucket is any host's."""
    facts = grown["later"]
    assert (facts["worker"], facts["parent"]) == ("worker-b", f"{FOLDER}/web.snap")
    assert facts["same_pages"] > 5000


@pytest.mark.usefixtures("grown")
def test_hosts_restore_from_a_bucket(cluster: Cluster, place: Path) -> None:
    """A snapshot saved by one host is restored by another, byte for byte, also with a parent."""
    tables = [
        job("restore", host, snapshot=f"{FOLDER}/{name}.snap", image=f"{name}.out")
        for name, host in (("web", "hostB"), ("later", "hostA"))
    ]
    done = run(cluster, place, *tables)

    done.ok()
    assert [(place / f"{name}.out").read_bytes() for name in ("web", "later")] == [RAM, CHANGED]


def test_a_host_without_keys_fails_its_own_job(saved: dict[str, dict[str, Any]]) -> None:
    """Its sentence comes back, and names the object."""
    facts = saved["keyless"]
    assert (facts["state"], facts["exit_code"]) == ("failed", 1)
    assert facts["message"].startswith(f"{FOLDER}/keyless.snap: no credentials found: check")


def test_keys_of_the_client_reach_no_host(cluster: Cluster, place: Path, server: Server) -> None:
    """They stay where they are: a host has its own, or none."""
    environment = {**NO_STORE, **KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}"}
    table = job("save", "hostC", image="web.ram", snapshot=f"{FOLDER}/theirs.snap")
    done = run(cluster, place, table, environment=environment)

    done.fails(1)
    assert "no credentials found" in done.out


def test_an_interrupted_run_leaves_nothing_in_the_bucket(
    cluster: Cluster, place: Path, way: Proxy, server: Server
) -> None:
    """The host drops what it had sent before the run ends here."""
    held = way.rule = Hold(PART)
    table = job("save", "hostA", image="web.ram", snapshot=f"{FOLDER}/half.snap")
    process = program.start(*words(cluster, place, table), env=NO_STORE)
    try:
        assert held.reached.wait(60)
        begun = server.uploads("cluster/half.snap")
        process.send_signal(signal.SIGTERM)
        outcome = program.end(process, timeout=60)
    finally:
        way.rule = Pass()
        held.go.set()
        process.kill()

    outcome.fails(128 + signal.SIGTERM)
    assert len(begun) == 1
    assert server.names("cluster/half.snap") == server.uploads("cluster/half.snap") == []
