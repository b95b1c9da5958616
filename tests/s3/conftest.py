"""A real S3 server on loopback, a proxy before it, and a guest."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import snapmig
from tests.support import ram
from tests.support.backups import RAM as SMALL
from tests.support.objects.proxy import Proxy
from tests.support.objects.server import BUCKET, Server, serving, settings
from tests.support.outcome import Outcome


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """Run SeaweedFS in a directory of its own."""
    with serving() as found:
        yield found


@pytest.fixture
def store(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have the environment lead to the server."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    url = f"http://127.0.0.1:{server.port}"
    for name, value in settings(url, tmp_path).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def proxy(server: Server, store: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:  # noqa: ARG001
    """Have the environment lead to a proxy before the server."""
    made = Proxy(server.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
    yield made
    made.close()


RAM = np.concatenate([ram.text(512), ram.zeros(1024), ram.noise(4200), ram.text(300, 2)]).tobytes()
"""24 MiB: 2 of text, 4 of zeros, 16 of noise and a little text: three parts, one of them early."""
CHANGED = RAM[:4096] + b"changed" + RAM[4103:-1] + b"!"


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an image."""
    return ram.write(tmp_path_factory.mktemp("guest") / "guest.ram", RAM)


@pytest.fixture(scope="session")
def saved(server: Server, guest: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the URL of the guest's snapshot, made by way of a packed file."""
    path = tmp_path_factory.mktemp("saved") / "guest.snap"
    snapmig.save(guest, path, layout="packed", jobs=2)
    server.put("kept/guest.snap", path.read_bytes())
    return f"s3://{BUCKET}/kept/guest.snap"


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Give the key of an object that no other test has."""
    return f"{request.node.name}/guest.snap"


@pytest.fixture
def url(name: str) -> str:
    """Give its URL."""
    return f"s3://{BUCKET}/{name}"


@pytest.fixture
def restored(tmp_path: Path) -> Callable[[str], bytes]:
    """Give a function that restores a snapshot and returns the image."""

    def restore(snapshot: str) -> bytes:
        jobs = 2 if threading.active_count() == 1 else 1  # else workers start slowly
        snapmig.restore(snapshot, tmp_path / "out.ram", jobs=jobs, force=True)
        return (tmp_path / "out.ram").read_bytes()

    return restore


@pytest.fixture
def place(
    request: pytest.FixtureRequest,
    server: Server,
    store: None,  # noqa: ARG001
    tmp_path: Path,
    cli: Callable[..., Outcome],
) -> Any:
    """Give a guest's place with a repository that no other test has."""
    from tests.s3.place import Place

    (tmp_path / "web.ram").write_bytes(SMALL)
    prefix = request.node.name.replace("[", "-").replace("]", "")
    place = Place(tmp_path, prefix, server, cli)
    place.configure()
    return place
