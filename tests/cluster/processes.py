"""A real Dask scheduler and its workers as processes on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

WAIT = """
import sys
from distributed import Client
from distributed.security import Security
address, count, *files = sys.argv[1:]
names = ("tls_ca_file", "tls_client_cert", "tls_client_key")
security = Security(**dict(zip(names, files)), require_encryption=True) if files else None
with Client(address, security=security) as client:
    client.wait_for_workers(int(count), timeout=60)
"""


@dataclass
class Cluster:
    """A scheduler's address, and all processes by their names."""

    address: str
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def end(self) -> None:
        """End all processes."""
        for process in reversed(self.processes.values()):
            process.kill()
            process.wait()


def start_cluster(
    folder: Path, workers: dict[str, str], certificates: Sequence[Path] = ()
) -> Cluster:
    """
    Start a scheduler and workers, and wait until they know each other.

    :param workers: names with their resources
    :param certificates: for TLS: authority, certificate, key
    """
    names = ("--tls-ca-file", "--tls-cert", "--tls-key")
    tls = [f"{name}={path}" for name, path in zip(names, certificates, strict=False)]
    protocol = "tls" if tls else "tcp"
    file = folder / "scheduler.json"
    cluster = Cluster("")
    try:
        cluster.processes["scheduler"] = _start(
            folder, "scheduler", "--host", "127.0.0.1", "--port", "0", "--protocol", protocol,
            "--no-dashboard", "--scheduler-file", str(file), *tls,
        )  # fmt: skip
        cluster.address = json.loads(wait_for(lambda: file.exists() and file.read_text()))[
            "address"
        ]
        for name, resources in workers.items():
            start_worker(folder, cluster, name, resources, tls)
        wait_for_workers(cluster, len(workers), certificates)
    except BaseException:
        cluster.end()
        raise
    return cluster


def start_worker(
    folder: Path, cluster: Cluster, name: str, resources: str, tls: Sequence[str] = ()
) -> None:
    """Start one more worker."""
    cluster.processes[name] = _start(
        folder, "worker", cluster.address, "--name", name, "--nthreads", "2", "--no-nanny",
        "--no-dashboard", "--host", "127.0.0.1", "--resources", resources,
        "--local-directory", str(folder / name), *tls,
    )  # fmt: skip


def wait_for_workers(cluster: Cluster, count: int, certificates: Sequence[Path] = ()) -> None:
    """Wait until a scheduler has so many workers."""
    command = [sys.executable, "-c", WAIT, cluster.address, str(count), *map(str, certificates)]
    subprocess.run(command, check=True, timeout=90, env=ENVIRONMENT)


def wait_for(found: Callable[[], object], seconds: float = 60) -> object:
    """Wait until a function finds something, and return that."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
    return value


def children(pid: int) -> list[int]:
    """Return the processes that a process has started and that are there."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found


def _start(folder: Path, kind: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments]
    with (folder / f"{kind}.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT, cwd=folder)
