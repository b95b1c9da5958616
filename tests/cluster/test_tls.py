from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli import program
from tests.cluster.processes import Cluster, start_cluster
from tests.conftest import requires

Write = Callable[..., Path]
FILES = ("ca.pem", "host.pem", "host.key")


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


def test_a_job_is_done_over_tls(
    tls_cluster: Cluster, certificates: tuple[Path, ...], write: Write
) -> None:
    """Scheduler, worker and client have certificates of one authority."""
    path = write(("a", "hostA"))
    words = ("--scheduler", tls_cluster.address, *options(certificates))
    done = program.run("batch", path, *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert tls_cluster.address.startswith("tls://")
    assert (path.parent / "out" / "a.snap").exists()


def test_another_authority_is_refused(tls_cluster: Cluster, write: Write, tmp_path: Path) -> None:
    """A certificate that it did not sign opens nothing."""
    words = ("--scheduler", tls_cluster.address, *options(make_certificates(tmp_path)))
    done = program.run("batch", write(("a", "hostA")), *words)
    assert done.returncode == 1
    assert f"no Dask scheduler can be reached at {tls_cluster.address}: " in done.stderr
    assert "certificate" in done.stderr.lower()


def test_a_client_without_tls_is_refused(tls_cluster: Cluster, write: Write) -> None:
    """It ends in a sentence, soon."""
    address = tls_cluster.address.replace("tls://", "tcp://")
    done = program.run("batch", write(("a", "hostA")), "--scheduler", address)
    assert done.returncode == 1
    assert done.stderr.startswith(f"snapmig: no Dask scheduler can be reached at {address}: ")
