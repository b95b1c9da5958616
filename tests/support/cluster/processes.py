"""A real Dask scheduler and its workers as processes on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.support import processes

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}

wait_for = partial(processes.wait_for, seconds=60)
"""Dask's own processes take a second to start, and a job on a cluster may take a while to end."""


@dataclass
class Cluster:
    """
    A scheduler's address, and all processes by their names.

    :param folder: for their logs and what they keep
    :param options: of all of them, for TLS
    :param environment: of those that are started from now on
    """

    folder: Path
    options: Sequence[str] = ()
    address: str = ""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=lambda: ENVIRONMENT)

    def start(self, name: str, kind: str, *arguments: str) -> None:
        """Start a process under a name that no other has."""
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *arguments, *self.options]
        with self.log(name).open("wb") as log:
            self.processes[name] = processes.start_server(
                command, stdout=log, stderr=log, env=self.environment, cwd=self.folder
            )

    def start_worker(self, name: str, resources: str) -> None:
        """Start a worker, which waits for the scheduler where that is not there yet."""
        self.start(
            name, "worker", "--scheduler-file", "scheduler.json", "--name", name,
            "--nthreads", "2", "--no-nanny", "--no-dashboard", "--host", "127.0.0.1",
            "--resources", resources, "--local-directory", str(self.folder / name),
        )  # fmt: skip

    def kill(self, name: str) -> None:
        """Kill a process, whose name is free then."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def wait_for_worker(self, name: str) -> None:
        """Wait until a worker says that the scheduler knows it."""
        wait_for(lambda: "Registered to:" in self.log(name).read_text())

    def log(self, name: str) -> Path:
        """Return the file of what a process says."""
        return self.folder / f"{name}.log"

    def end(self) -> None:
        """End all processes."""
        for name in reversed(list(self.processes)):
            self.kill(name)


def start_cluster(
    folder: Path,
    workers: dict[str, str],
    certificates: Sequence[Path] = (),
    environment: Mapping[str, str] = ENVIRONMENT,
) -> Cluster:
    """
    Start a scheduler and workers, and wait until they know each other.

    :param workers: names with their resources
    :param certificates: for TLS: authority, certificate, key
    :param environment: of all of them
    """
    names = ("--tls-ca-file", "--tls-cert", "--tls-key")
    tls = [f"{name}={path}" for name, path in zip(names, certificates, strict=False)]
    protocol = "tls" if tls else "tcp"
    cluster = Cluster(folder, tls, environment=environment)
    try:
        cluster.start(
            "scheduler", "scheduler", "--host", "127.0.0.1", "--port", "0", "--protocol", protocol,
            "--no-dashboard", "--scheduler-file", "scheduler.json",
        )  # fmt: skip
        for name, resources in workers.items():
            cluster.start_worker(name, resources)
        for name in workers:
            cluster.wait_for_worker(name)
        cluster.address = json.loads((folder / "scheduler.json").read_text())["address"]
    except BaseException:
        cluster.end()
        raise
    return cluster
