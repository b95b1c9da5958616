"""Facts about jobs on a cluster's hosts; several are seen on one run, since each takes seconds."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import program
from tests.support.cluster.jobs import IMAGE_SIZE, by_job, make_images, write_jobs
from tests.support.cluster.processes import Cluster
from tests.support.outcome import Outcome

Write = Callable[..., Path]
NOBODY = "tcp://127.0.0.1:1"
OPTIONS = 'compression = "none"\npacket_size = "64K"\nattach = { "x y" = "a.ram" }\n'


def run(cluster: Cluster, path: Path, *options: str) -> Outcome:
    """Run a batch's file on a cluster."""
    return program.run("batch", path, "--scheduler", cluster.address, *options)


@pytest.fixture(scope="module")
def place(shared_shm: Path) -> Path:
    """Give a directory with images for the runs of this module."""
    return make_images(shared_shm)


@pytest.fixture(scope="module")
def mixed(cluster: Cluster, place: Path) -> dict[str, dict[str, Any]]:
    """Give the lines of a run with saves on both hosts; one lacks its image, one has options."""
    jobs = (("missing", "hostA"), ("a", "hostA"), ("b", "hostB"), ("c", "hostA"))
    path = write_jobs(place, *jobs)
    path.write_text(path.read_text() + OPTIONS)
    return by_job(run(cluster, path, "--json", "-j", "1").lines)


@pytest.fixture(scope="module")
def restored(cluster: Cluster, place: Path, mixed: dict[str, Any]) -> Outcome:
    """Give a run with restores of what was saved, on another host, and of what is no snapshot."""
    assert "a" in mixed
    tables = (
        f'[[restore]]\nname = "{image}"\nhost = "{host}"\nsnapshot = "{snapshot}"\n'
        f'image = "out/{image}"\n'
        for host, snapshot, image in (("hostB", "out/a.snap", "back"), ("hostA", "a.ram", "none"))
    )
    (place / "restores.toml").write_text("".join(tables))
    return run(cluster, place / "restores.toml")


@pytest.fixture(scope="module")
def watched(cluster: Cluster, place: Path) -> Outcome:
    """Give a slow run of two saves with a table and lines of progress."""
    jobs = (("a", "hostA"), ("b", "hostB"))
    path = write_jobs(place, *jobs, top="bwlimit = '2M'\ndefaults.force = true")
    return run(cluster, path, "--progress", "json")


def test_each_job_is_done_by_the_worker_of_its_host(mixed: dict[str, dict[str, Any]]) -> None:
    """The name of who did it comes back with each result."""
    workers = {name: mixed[name]["worker"] for name in "abc"}
    assert workers == {"a": "worker-a", "b": "worker-b", "c": "worker-a"}


def test_a_job_that_fails_stops_no_other(place: Path, mixed: dict[str, dict[str, Any]]) -> None:
    """Its own sentence comes back, and the others are done."""
    missing = place / "missing.ram"
    assert mixed["missing"]["message"] == f"{missing}: No such file or directory"
    assert {name for name, line in mixed.items() if line["message_type"] == "save"} == {*"abc"}


def test_options_of_a_job_reach_its_host(place: Path, mixed: dict[str, dict[str, Any]]) -> None:
    """Compression, packet size and attachments are those of the file, jobs those of the run."""
    facts = program.run("info", "--json", place / "out" / "c.snap").json
    names = [each["name"] for each in facts["attachments"]]
    assert (facts["packet_size"], names) == (65536, ["x y"])
    assert (mixed["c"]["compression"], mixed["c"]["jobs"]) == ("none", 1)


@pytest.mark.usefixtures("restored")
def test_a_remote_snapshot_restores_to_its_image(place: Path) -> None:
    """A snapshot saved by a host holds the guest's memory, byte for byte."""
    assert (place / "out" / "back").read_bytes() == (place / "a.ram").read_bytes()


def test_the_exit_code_of_a_host_is_that_of_the_run(place: Path, restored: Outcome) -> None:
    """A corrupt snapshot is exit code 3 from far away too."""
    local = program.run("restore", place / "a.ram", place / "out" / "none")
    local.fails(3)
    restored.fails(3, local.err.removeprefix("snapmig: ").strip())


def test_progress_comes_back(watched: Outcome) -> None:
    """A line tells of a guest before it is done."""
    progress = [json.loads(line) for line in watched.err.splitlines()]
    assert {(line["job"], line["total_bytes"]) for line in progress} == {
        ("a", IMAGE_SIZE),
        ("b", IMAGE_SIZE),
    }


def test_a_job_names_the_key_that_overwrites(cluster: Cluster, write: Write) -> None:
    """A refusal on another host ends with the same words as one on this host."""
    path = write(("a", "hostA"))
    (path.parent / "out" / "a.snap").touch()
    first = run(cluster, path).err.splitlines()[0]
    assert first.endswith("out/a.snap: exists already, force = true overwrites it")


def test_the_table_has_the_hosts(watched: Outcome) -> None:
    """People see where each job was done."""
    rows = [line.split()[:3] for line in watched.lines]
    watched.ok(err=None)
    assert rows == [["job", "host", "result"], ["a", "hostA", "done"], ["b", "hostB", "done"]]


def test_a_host_without_a_worker_is_refused_at_once(cluster: Cluster, write: Write) -> None:
    """No job begins, and the sentence says which hosts there are."""
    path = write(("a", "hostA"), ("b", "hostX"))
    done = run(cluster, path)
    words = f"no worker serves host 'hostX' at {cluster.address}; it has hostA, hostB"
    done.fails(2, err=f"snapmig: {words}\n")
    assert list((path.parent / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("127.0.0.1:1", "expected tcp://HOST:PORT or tls://HOST:PORT"),
        ("tls://127.0.0.1:1", "needs a certificate and its authority"),
    ],
)
def test_an_address_that_is_none_is_a_sentence(
    cli: Callable[..., Any], write: Write, address: str, words: str
) -> None:
    """Nobody is asked there."""
    outcome = cli("batch", write(("a", "hostA")), "--scheduler", address)
    outcome.fails(2, words, lines=1)


def test_jobs_with_hosts_need_a_scheduler(cli: Callable[..., Any], write: Write) -> None:
    """Without one they would be done on the wrong machine."""
    outcome = cli("batch", write(("a", "hostA")))
    words = "host is 'hostA', but there is no scheduler of a cluster: give one by --scheduler"
    outcome.fails(2, words)


def test_a_cluster_needs_a_host_for_each_job(cli: Callable[..., Any], write: Write) -> None:
    """It is said which table lacks it, before anything is connected."""
    path = write(("a", "hostA"))
    path.write_text('[[save]]\nimage = "a.ram"\nsnapshot = "out/a.snap"\n')
    outcome = cli("batch", path, "--scheduler", NOBODY)
    outcome.fails(2, "[[save]] 1: host: the key is missing, and a cluster needs it")


def test_a_cluster_takes_no_patterns(cli: Callable[..., Any], write: Write) -> None:
    """The files of a host are not known here."""
    outcome = cli("batch", write(("*", "hostA")), "--scheduler", NOBODY)
    outcome.fails(2, "is a pattern, a cluster needs each file's own name")


def test_the_missing_extra_is_a_sentence(
    cli: Callable[..., Any], write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says what to install."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "snapmig.cluster.client", raising=False)
    outcome = cli("batch", write(("a", "hostA")), "--scheduler", NOBODY)
    words = "snapmig: a cluster needs dask.distributed: pip install 'snapmig[cluster]'\n"
    outcome.fails(1, err=words)
