from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cli import program
from tests.cluster.processes import Cluster, children, wait_for

Write = Callable[..., Path]
SLOW = "bwlimit = '200K'"


def start(
    cluster: Cluster, path: Path, *options: str, begun: int | None = None
) -> subprocess.Popen[str]:
    """Start a batch's file on a cluster, and wait until so many jobs are under way, or all."""
    jobs = path.read_text().count("[[save]]") if begun is None else begun
    arguments = ("batch", path, "--scheduler", cluster.address, "--json", "--progress", "none")
    process = program.start(*arguments, *options)
    try:
        wait_for(lambda: len(list((path.parent / "out").iterdir())) == jobs)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return process


def finish(process: subprocess.Popen[str]) -> dict[str, dict[str, Any]]:
    """Wait for a run and return its JSON lines by their jobs."""
    out, _ = process.communicate(timeout=90)
    found = map(json.loads, out.splitlines())
    return {line["job"]: line for line in found if "job" in line}


def pid_of(cluster: Cluster, worker: str) -> int:
    """Return the process of a worker."""
    return cluster.processes[worker].pid


def nothing_partial(path: Path) -> bool:
    """Say whether the directory of snapshots is empty."""
    return not list((path.parent / "out").iterdir())


def is_running(pid: int) -> bool:
    """Say whether a process is there and no zombie, which nobody may collect here."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_killed_worker_fails_its_job_alone(own_cluster: Cluster, write: Write) -> None:
    """The sentence names the worker, the other host's job is done."""
    path = write(("a", "hostA"), ("b", "hostB"), top="bwlimit = '2M'")
    process = start(own_cluster, path)
    own_cluster.processes["worker-a"].kill()
    found = finish(process)
    assert found["a"]["message"] == "worker worker-a was lost while it did this"
    assert (found["a"]["exit_code"], found["b"]["message_type"]) == (5, "save")


def test_a_killed_worker_takes_its_snapmig_along(own_cluster: Cluster, write: Write) -> None:
    """The process there ends and removes what it had begun."""
    path = write(("a", "hostA"), top=SLOW)
    process = start(own_cluster, path)
    [remote] = children(pid_of(own_cluster, "worker-a"))
    own_cluster.processes["worker-a"].kill()
    finish(process)
    wait_for(lambda: nothing_partial(path))
    wait_for(lambda: not is_running(remote))


def test_jobs_behind_a_lost_worker_fail_too(own_cluster: Cluster, write: Write) -> None:
    """Nobody waits for a host that nobody serves any more."""
    path = write(("a", "hostA"), ("b", "hostA"), top="bwlimit = '1M'")
    process = start(own_cluster, path, begun=1)
    own_cluster.processes["worker-a"].kill()
    assert finish(process)["b"]["message"] == "no worker serves host 'hostA' any more"


def test_a_lost_scheduler_fails_all_jobs(own_cluster: Cluster, write: Write) -> None:
    """Each has the sentence, and nothing partial is left on the hosts."""
    path = write(("a", "hostA"), ("b", "hostB"), top=SLOW)
    process = start(own_cluster, path)
    own_cluster.processes["scheduler"].kill()
    words = f"the connection to the scheduler at {own_cluster.address} was lost"
    assert {line["message"] for line in finish(process).values()} == {words}
    wait_for(lambda: nothing_partial(path))


def test_ctrl_c_ends_what_runs_on_the_hosts(cluster: Cluster, write: Write) -> None:
    """When the run is over, nothing partial is left and no snapmig runs there."""
    path = write(("a", "hostA"), ("b", "hostB"), top=SLOW)
    process = start(cluster, path)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 128 + signal.SIGINT, err
    assert nothing_partial(path)


def test_a_killed_client_ends_what_it_began(cluster: Cluster, write: Write) -> None:
    """The workers see that nobody wants it any more."""
    path = write(("a", "hostA"), top=SLOW)
    process = start(cluster, path)
    process.kill()
    process.communicate()
    wait_for(lambda: nothing_partial(path))
    wait_for(lambda: not children(pid_of(cluster, "worker-a")))


def test_fail_fast_cancels_what_runs_elsewhere(cluster: Cluster, write: Write) -> None:
    """A host's job is ended because another host's failed."""
    path = write(("a", "hostA"), ("b", "hostB"), top=SLOW)
    process = start(cluster, path, "--fail-fast")
    [remote] = children(pid_of(cluster, "worker-a"))
    os.kill(remote, signal.SIGKILL)
    found = finish(process)
    assert found["a"]["message"] == "snapmig was ended by signal 9 on worker worker-a"
    assert found["b"]["state"] == "cancelled"
