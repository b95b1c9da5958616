"""Facts about who is let into a cluster, and what those are told who are not."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import program
from tests.support.cluster.jobs import make_images, write_jobs
from tests.support.cluster.processes import Cluster, start_cluster
from tests.support.outcome import Outcome
from tests.support.requirements import requires

pytestmark = pytest.mark.sweep

Write = Callable[..., Path]
FILES = ("ca.pem", "host.pem", "host.key")
NOBODY = "tcp://127.0.0.1:1"


def make_certificates(folder: Path, names: tuple[str, str, str] = FILES) -> tuple[Path, ...]:
    """Make an authority and a certificate that it signed, as docs/cluster.md says."""
    ca, cert, key = names

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(
        *new, "-x509", "-days", "30", "-subj", "/CN=test-ca", "-keyout", f"{ca}.key", "-out", ca
    )
    openssl(*new, "-subj", "/CN=test-host", "-keyout", key, "-out", f"{cert}.csr")
    sign = ("x509", "-req", "-days", "30", "-CAcreateserial")
    openssl(*sign, "-in", f"{cert}.csr", "-CA", ca, "-CAkey", f"{ca}.key", "-out", cert)
    return tuple(folder / name for name in names)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Give authority, certificate and key."""
    requires("openssl")
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls_cluster(
    tmp_path_factory: pytest.TempPathFactory, certificates: tuple[Path, ...]
) -> Iterator[Cluster]:
    """Give a cluster that speaks TLS only."""
    folder = tmp_path_factory.mktemp("cluster")
    cluster = start_cluster(folder, {"worker-a": "hostA=1"}, certificates)
    yield cluster
    cluster.end()


def options(files: tuple[Path, ...]) -> list[str]:
    """Return the options that name certificates."""
    names = ("--tls-ca", "--tls-cert", "--tls-key")
    return [f"{name}={path}" for name, path in zip(names, files, strict=True)]


@pytest.fixture(scope="module")
def strangers(
    tls_cluster: Cluster, shared_shm: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, subprocess.Popen[str]]:
    """
    Give runs that are not let in or find nobody.

    They go on side by side from the first test on: some wait until it is sure that nobody answers.
    """
    path = write_jobs(make_images(shared_shm), ("a", "hostA"))
    other = make_certificates(tmp_path_factory.mktemp("certificates"))
    runs = {
        "other authority": (tls_cluster.address, *options(other)),
        "no certificate": (tls_cluster.address.replace("tls://", "tcp://"),),
        "nobody": (NOBODY,),
    }
    return {
        name: program.start("batch", path, "--scheduler", *words) for name, words in runs.items()
    }


@pytest.fixture(scope="module")
def refusals(strangers: dict[str, subprocess.Popen[str]]) -> dict[str, Outcome]:
    """Give their outcomes."""
    return {name: program.end(process, timeout=60) for name, process in strangers.items()}


@pytest.mark.usefixtures("strangers")
def test_a_job_is_done_over_tls(
    tls_cluster: Cluster, certificates: tuple[Path, ...], write: Write
) -> None:
    """Scheduler, worker and client have certificates of one authority."""
    path = write(("a", "hostA"))
    words = ("--scheduler", tls_cluster.address, *options(certificates))
    done = program.run("batch", path, *words)
    done.ok()
    assert tls_cluster.address.startswith("tls://")
    assert (path.parent / "out" / "a.snap").exists()


def test_another_authority_is_refused(tls_cluster: Cluster, refusals: dict[str, Outcome]) -> None:
    """A certificate that it did not sign opens nothing."""
    refused = refusals["other authority"]
    refused.fails(1, f"no Dask scheduler can be reached at {tls_cluster.address}: ")
    assert "certificate" in refused.err.lower()


def test_a_client_without_tls_is_refused(
    tls_cluster: Cluster, refusals: dict[str, Outcome]
) -> None:
    """It ends in a sentence, soon."""
    address = tls_cluster.address.replace("tls://", "tcp://")
    refused = refusals["no certificate"]
    refused.fails(1, start=f"snapmig: no Dask scheduler can be reached at {address}: ")


def test_a_scheduler_that_is_not_there_is_a_sentence(refusals: dict[str, Outcome]) -> None:
    """Nothing answers."""
    start = f"snapmig: no Dask scheduler can be reached at {NOBODY}: "
    refusals["nobody"].fails(1, start=start, lines=1)
