"""Facts about arguments of migrations whose other end belongs to somebody else."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import snapmig
from snapmig.errors import UsageError

WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "no address": ("127.0.0.1:4444", {}, "expected unix:PATH or tcp:ADDRESS:PORT"),
    "a domain": ("libvirt:web", {}, "restore --format libvirt, then virsh restore"),
    "a name": ("tcp:example.net:4444", {}, "numeric address"),
    "no port": ("tcp:127.0.0.1:0", {}, "port of tcp:127.0.0.1:0 is 0"),
    "another host": ("tcp:[2001:db8::1]:4444", {}, "at tcp:|to tcp:.*certificates"),
    "TLS at a socket": ("unix:in", {"tls": "pki"}, "TLS is for TCP"),
    "no certificates": ("tcp:127.0.0.1:4444", {"tls": "pki"}, "pki: there is no ca-cert.pem"),
    "channels": ("unix:in", {"channels": 256}, "channels are 256, expected 0 to 255"),
    "fewer than none": ("unix:in", {"channels": -1}, "channels are -1"),
    "frames on one": ("unix:in", {"channels": 0, "wire": "zstd"}, "only multifd"),
    "wire": ("unix:in", {"wire": "lz4"}, "wire is 'lz4'"),
    "UUID": ("unix:in", {"uuid": "1234"}, "uuid is '1234'"),
    "time": ("unix:in", {"timeout": 0}, "timeout is 0"),
    "rate": ("unix:in", {"bwlimit": "fast"}, "bwlimit is 'fast'"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_arguments_that_make_no_sense(kind: str) -> None:
    """A wrong argument is refused before the snapshot is opened."""
    address, options, words = WRONG[kind]
    with pytest.raises(UsageError, match=words.replace("[", r"\[")):
        snapmig.send("no.snap", address, **options)


@pytest.fixture
def thread() -> Iterator[None]:
    """Have another thread in this process."""
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    yield
    end.set()
    other.join()


@pytest.mark.usefixtures("thread")
@pytest.mark.parametrize("verb", ["send", "receive"])
def test_tls_beside_threads(verb: str, tmp_path: Path) -> None:
    """Where workers can't be forked, TLS is refused before anybody is connected to."""
    address, path = "tcp:127.0.0.1:4444", tmp_path / "snap"
    arguments = (path, address) if verb == "send" else (address, path)
    with pytest.raises(UsageError, match="without threads"):
        getattr(snapmig, verb)(*arguments, tls=tmp_path)
