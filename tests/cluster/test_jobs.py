from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli import program
from tests.cluster.processes import Cluster

Write = Callable[..., Path]


def lines(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """Return the JSON lines of a run by their jobs."""
    found = map(json.loads, done.stdout.splitlines())
    return {line["job"]: line for line in found if "job" in line}


def run(cluster: Cluster, path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a batch's file on a cluster."""
    return program.run("batch", path, "--scheduler", cluster.address, *options)


def test_each_job_is_done_by_the_worker_of_its_host(cluster: Cluster, write: Write) -> None:
    """The name of who did it comes back with each result."""
    done = run(cluster, write(("a", "hostA"), ("b", "hostB"), ("c", "hostA")), "--json")
    assert done.returncode == 0, done.stderr
    workers = {name: line["worker"] for name, line in lines(done).items()}
    assert workers == {"a": "worker-a", "b": "worker-b", "c": "worker-a"}


def test_a_remote_snapshot_restores_to_its_image(cluster: Cluster, write: Write) -> None:
    """What a host saved is the guest's memory, byte for byte."""
    path = write(("a", "hostA"))
    assert run(cluster, path).returncode == 0
    restore = '[[restore]]\nhost = "hostB"\nsnapshot = "out/a.snap"\nimage = "out/back.ram"'
    path.write_text(restore)
    done = run(cluster, path)
    assert done.returncode == 0, done.stderr
    back = (path.parent / "out" / "back.ram").read_bytes()
    assert back == (path.parent / "a.ram").read_bytes()


def test_options_of_a_job_reach_its_host(cluster: Cluster, write: Write) -> None:
    """Compression, packet size and attachments are those of the file."""
    path = write(("a", "hostA"))
    text = 'compression = "none"\npacket_size = "64K"\nattach = { "x y" = "a.ram" }\n'
    path.write_text(path.read_text() + text)
    done = run(cluster, path, "-j", "1")
    assert done.returncode == 0, done.stderr
    shown = program.run("info", "--json", path.parent / "out" / "a.snap")
    facts = json.loads(shown.stdout)
    names = [each["name"] for each in facts["attachments"]]
    assert (facts["packet_size"], names) == (65536, ["x y"])


def test_a_host_without_a_worker_is_refused_at_once(cluster: Cluster, write: Write) -> None:
    """No job begins, and the sentence says which hosts there are."""
    path = write(("a", "hostA"), ("b", "hostX"))
    done = run(cluster, path)
    words = f"no worker serves host 'hostX' at {cluster.address}, which has hostA, hostB"
    assert (done.returncode, done.stderr) == (2, f"snapmig: {words}\n")
    assert list((path.parent / "out").iterdir()) == []


def test_a_job_that_fails_stops_no_other(cluster: Cluster, write: Write) -> None:
    """Its own sentence comes back, and the others are done."""
    path = write(("missing", "hostA"), ("a", "hostA"), ("b", "hostB"))
    done = run(cluster, path, "--json")
    found = lines(done)
    missing = path.parent / "missing.ram"
    assert found["missing"]["message"] == f"{missing}: No such file or directory"
    assert {name for name, line in found.items() if line["message_type"] == "save"} == {"a", "b"}


def test_the_exit_code_of_a_host_is_that_of_the_run(cluster: Cluster, write: Write) -> None:
    """A corrupt snapshot is exit code 3 from far away too."""
    path = write(("a", "hostA"))
    path.write_text('[[restore]]\nhost = "hostA"\nsnapshot = "a.ram"\nimage = "out/a"\n')
    local = program.run("restore", path.parent / "a.ram", path.parent / "out" / "a")
    done = run(cluster, path)
    assert done.returncode == local.returncode == 3
    assert local.stderr.removeprefix("snapmig: ").strip() in done.stderr


def test_fail_fast_lets_what_waits_be(cluster: Cluster, write: Write) -> None:
    """A job behind the one that failed is not begun."""
    path = write(("missing", "hostA"), ("a", "hostA"))
    found = lines(run(cluster, path, "--fail-fast", "--json"))
    assert found["a"]["state"] == "skipped"


def test_progress_comes_back(cluster: Cluster, write: Write) -> None:
    """A line tells of a guest before it is done."""
    path = write(("a", "hostA"), top="bwlimit = '2M'")
    done = run(cluster, path, "--progress", "json")
    progress = [json.loads(line) for line in done.stderr.splitlines()]
    assert {(line["job"], line["total_bytes"]) for line in progress} == {("a", 4 << 20)}


def test_the_table_has_the_hosts(cluster: Cluster, write: Write) -> None:
    """People see where each job was done."""
    done = run(cluster, write(("a", "hostA"), ("b", "hostB")))
    rows = [line.split()[:3] for line in done.stdout.splitlines()]
    assert rows == [["job", "host", "result"], ["a", "hostA", "done"], ["b", "hostB", "done"]]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tcp://127.0.0.1:1", "no Dask scheduler can be reached at tcp://127.0.0.1:1: "),
        ("127.0.0.1:1", "expected tcp://HOST:PORT or tls://HOST:PORT"),
        ("tls://127.0.0.1:1", "needs a certificate and its authority"),
    ],
)
def test_a_scheduler_that_is_not_there_is_a_sentence(
    write: Write, address: str, words: str
) -> None:
    """Nothing answers, or the address is none."""
    done = program.run("batch", write(("a", "hostA")), "--scheduler", address)
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.returncode != 0


def test_jobs_with_hosts_need_a_scheduler(write: Write) -> None:
    """Without one they would be done on the wrong machine."""
    done = program.run("batch", write(("a", "hostA")))
    assert done.returncode == 2
    assert "host is 'hostA', which needs a cluster: --scheduler" in done.stderr


def test_a_cluster_needs_a_host_for_each_job(cluster: Cluster, write: Write) -> None:
    """It is said which table lacks it."""
    path = write(("a", "hostA"))
    path.write_text('[[save]]\nimage = "a.ram"\nsnapshot = "out/a.snap"\n')
    done = run(cluster, path)
    assert done.returncode == 2
    assert "[[save]] 1: the key 'host' is missing, which a cluster needs" in done.stderr


def test_a_cluster_takes_no_patterns(cluster: Cluster, write: Write) -> None:
    """Which files a host has is not known here."""
    done = run(cluster, write(("*", "hostA")))
    assert done.returncode == 2
    assert "is a pattern, a cluster needs each file's own name" in done.stderr


def test_the_missing_extra_is_a_sentence(cluster: Cluster, write: Write) -> None:
    """It says what to install."""
    script = (
        "import sys; sys.modules['distributed'] = None\n"
        "from snapmig.commands import main; sys.exit(main())"
    )
    path = write(("a", "hostA"))
    command = [sys.executable, "-c", script, "batch", str(path), "--scheduler", cluster.address]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    words = "snapmig: a cluster needs dask.distributed: pip install 'snapmig[cluster]'\n"
    assert (done.returncode, done.stderr) == (1, words)
