"""Facts about what becomes of jobs whose process, worker, scheduler or client is gone."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import HOSTS
from tests.support import program
from tests.support.cluster.jobs import by_job, make_images, write_jobs
from tests.support.cluster.processes import Cluster, wait_for
from tests.support.processes import children

pytestmark = pytest.mark.sweep

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
    return by_job(program.end(process, timeout=90).lines)


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


@dataclass(frozen=True)
class Loss:
    """A run that lost a part of its cluster: its lines, and its directory of snapshots."""

    lines: dict[str, dict[str, Any]]
    path: Path
    remote: int


@pytest.fixture(scope="module")
def lost_worker(own_cluster: Cluster, shared_shm: Path) -> Loss:
    """Give a run with a job, and one behind it, on a host whose worker is killed."""
    jobs = (("a", "hostA"), ("c", "hostA"), ("b", "hostB"))
    path = write_jobs(make_images(shared_shm), *jobs, top="bwlimit = '2M'")
    process = start(own_cluster, path, begun=2)
    [remote] = children(pid_of(own_cluster, "worker-a"))
    own_cluster.kill("worker-a")
    return Loss(finish(process), path, remote)


def test_a_killed_worker_fails_its_job_alone(lost_worker: Loss) -> None:
    """The sentence names the worker, the other host's job is done."""
    found = lost_worker.lines
    assert found["a"]["message"] == "worker worker-a was lost while it did this"
    assert (found["a"]["exit_code"], found["b"]["message_type"]) == (5, "save")


def test_a_killed_worker_takes_its_snapmig_along(lost_worker: Loss) -> None:
    """The process there ends and removes what it had begun."""
    out = lost_worker.path.parent / "out"
    wait_for(lambda: [path.name for path in out.iterdir()] == ["b.snap"])
    wait_for(lambda: not is_running(lost_worker.remote))


def test_jobs_behind_a_lost_worker_fail_too(lost_worker: Loss) -> None:
    """Nobody waits for a host that nobody serves any more."""
    assert lost_worker.lines["c"]["message"] == "no worker serves host 'hostA' any more"


@pytest.mark.usefixtures("lost_worker")
def test_a_lost_scheduler_fails_all_jobs(own_cluster: Cluster, write: Write) -> None:
    """Each has the sentence, and nothing partial is left on the hosts."""
    own_cluster.start_worker("worker-a", HOSTS["worker-a"])
    own_cluster.wait_for_worker("worker-a")
    path = write(("a", "hostA"), ("b", "hostB"), top=SLOW)
    process = start(own_cluster, path)
    own_cluster.kill("scheduler")
    words = f"the connection to the scheduler at {own_cluster.address} was lost"
    assert {line["message"] for line in finish(process).values()} == {words}
    wait_for(lambda: nothing_partial(path))


def test_ctrl_c_ends_what_runs_on_the_hosts(cluster: Cluster, write: Write) -> None:
    """When the run is over, nothing partial is left and no snapmig runs there."""
    path = write(("a", "hostA"), ("b", "hostB"), top=SLOW)
    process = start(cluster, path)
    os.kill(process.pid, signal.SIGINT)
    outcome = program.end(process, timeout=90)
    outcome.fails(128 + signal.SIGINT)
    assert nothing_partial(path)


def test_a_killed_client_ends_what_it_began(cluster: Cluster, write: Write) -> None:
    """The workers see that nobody wants it any more."""
    path = write(("a", "hostA"), top=SLOW)
    process = start(cluster, path)
    process.kill()
    process.communicate()
    wait_for(lambda: nothing_partial(path))
    wait_for(lambda: not children(pid_of(cluster, "worker-a")))


@pytest.fixture(scope="module")
def failed_fast(cluster: Cluster, shared_shm: Path) -> dict[str, dict[str, Any]]:
    """Give the lines of a run that ends with the first job that fails; a's snapmig is killed."""
    (shared_shm / "fast").mkdir()
    jobs = (("a", "hostA"), ("c", "hostA"), ("b", "hostB"))
    path = write_jobs(make_images(shared_shm / "fast"), *jobs, top=SLOW)
    process = start(cluster, path, "--fail-fast", begun=2)
    [remote] = children(pid_of(cluster, "worker-a"))
    os.kill(remote, signal.SIGKILL)
    return finish(process)


def test_a_killed_snapmig_fails_its_job(failed_fast: dict[str, dict[str, Any]]) -> None:
    """The sentence has the signal and the worker."""
    message = failed_fast["a"]["message"]
    assert message == "snapmig was ended by signal 9 on worker worker-a"


def test_fail_fast_cancels_what_runs_elsewhere(failed_fast: dict[str, dict[str, Any]]) -> None:
    """A host's job is ended because another host's failed."""
    assert failed_fast["b"]["state"] == "cancelled"


def test_fail_fast_lets_what_waits_be(failed_fast: dict[str, dict[str, Any]]) -> None:
    """A job behind the one that failed is not begun."""
    assert failed_fast["c"]["state"] == "skipped"
