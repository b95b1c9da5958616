"""Facts about ``receive`` by TLS: whose guests are taken, and broken handshakes."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from contextlib import contextmanager

import pytest

import snapmig
from tests.support import certificates, program
from tests.support.multifd import faults, wire
from tests.support.multifd.dialects import QEMU_10
from tests.support.multifd.plan import usual
from tests.support.multifd.play import play
from tests.support.multifd.secure import SecureRelay, client_context
from tests.support.multifd.talk import write
from tests.support.sweep import sweep

# Python forgets to close a socket that is reset before its handshake.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning"
)

PLAN = usual(2, 2)
TALK = write(PLAN, QEMU_10)
HOST = "127.0.0.1"
WAITING = re.compile(r"waiting for a migration at tcp:127\.0\.0\.1:(\d+), with")
HELLO = bytes.fromhex("16 03 01 02 00 01 00 01 fc 03 03")
"""The beginning of a client's first words."""
WORDS = {
    "expired": "the other side's certificate is not valid: certificate has expired",
    "strangers": "not valid: unable to get local issuer certificate",
    "nobody": "no TLS connection: the other side shows no certificate",
    "plain": "no TLS connection: the other side does not speak TLS",
}
"""Parts of the sentences."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Give an authority."""
    return certificates.make_authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def ends(authority):
    """Give its certificates for both ends."""
    return certificates.make_ends(authority, authority.parent / "ends", HOST)


@pytest.fixture(scope="module")
def expired(authority):
    """Give its certificates of the day before yesterday."""
    return certificates.make_ends(authority, authority.parent / "expired", HOST, days=-1)


@pytest.fixture(scope="module")
def strangers(authority, ends):
    """Give certificates of another authority, with this one's to check the server by."""
    other = certificates.make_authority(authority.parent / "other")
    folder = certificates.make_ends(other, authority.parent / "strangers", HOST)
    shutil.copy(ends / "ca-cert.pem", folder)
    return folder


@contextmanager
def receiving(snapshot, folder):
    """Start a receive with TLS, and give the process and its address."""
    listen = ("--listen", f"tcp:{HOST}:0", "--tls", folder)
    process = program.start("receive", *listen, snapshot, "-j", 2)
    try:
        found = WAITING.search(process.stderr.readline())
        yield process, (HOST, int(found[1]))
    finally:
        process.kill()
        process.communicate()


def refused(process, snapshot):
    """Return the sentence of a receive that fails, after checking that nothing is left of it."""
    outcome = program.end(process, timeout=60)
    outcome.fails(1, start="snapmig: ", lines=1)
    assert list(snapshot.parent.iterdir()) == []
    return outcome.err


@pytest.fixture
def snapshot(tmp_path):
    """Give a path in an empty folder."""
    (tmp_path / "to").mkdir()
    return tmp_path / "to" / "guest.snap"


@pytest.mark.parametrize("says_bye", [True, False], ids=["with close_notify", "without"])
def test_a_guest_comes(snapshot, ends, says_bye):
    """With a certificate of the same authority all of it comes, however the source goes."""
    with receiving(snapshot, ends) as (process, target):
        with SecureRelay(target, client_context(ends), says_bye=says_bye) as relay:
            report = play(TALK, relay.address)
        program.end(process, timeout=60).ok(err=None)

    with snapmig.open(snapshot) as found:
        assert found.read(0, len(found)) == PLAN.all_ram
    assert report.shut == 0


@pytest.mark.parametrize(
    ("who", "place"),
    sweep(
        [(who, place) for who in WORDS for place in ("first", "second")],
        lambda way: way[1] == "first" or way[0] == "plain",
    ),
)
def test_a_source_without_a_valid_certificate(request, snapshot, ends, who, place):
    """On the main connection or on a channel: it is refused in one sentence."""
    context = None
    if who == "nobody":
        context = client_context(ends, certificate=False)
    elif who != "plain":
        context = client_context(request.getfixturevalue(who))
    contexts = [client_context(ends), context] if place == "second" else [context]
    with receiving(snapshot, ends) as (process, target), SecureRelay(target, *contexts) as relay:
        report = play(TALK, relay.address, patience=10)

        words = refused(process, snapshot)

    assert WORDS[who] in words
    assert report.shut != 0


@pytest.mark.parametrize("first", [b"", b"\x16", HELLO, b"GET / HTTP/1.1\r\n\r\n"], ids=len)
def test_an_end_in_the_handshake(snapshot, ends, first):
    """A connection that ends there is one sentence."""
    with receiving(snapshot, ends) as (process, target):
        with socket.create_connection(target) as end:
            end.sendall(first)

        words = refused(process, snapshot)
        assert "no TLS connection: the other side " in words


def test_a_source_that_does_not_trust_us(snapshot, ends, expired):
    """Our own certificate has expired: the source refuses it, and we say so."""
    with receiving(snapshot, expired) as (process, target):
        with SecureRelay(target, client_context(ends)) as relay:
            play(TALK, relay.address, patience=10)
            assert "certificate has expired" in relay.failures[0]

        assert "no TLS connection: " in refused(process, snapshot)


@pytest.mark.parametrize(
    "says_bye", [True, pytest.param(False, marks=pytest.mark.sweep)], ids=["with bye", "without"]
)
@pytest.mark.parametrize(
    "name",
    [
        "main closes 20 bytes into list",
        f"channel 0 closes {wire.RAM_SIZE + 100} bytes into packet",
        "offset far outside of the block",
    ],
)
def test_a_fault_behind_tls(snapshot, ends, name, says_bye):
    """Connections that end, and packets that lie, are found as without it."""
    talk = faults.FAULTS[name](write(PLAN, QEMU_10, return_path=False))
    with (
        receiving(snapshot, ends) as (process, target),
        SecureRelay(target, client_context(ends), says_bye=says_bye) as relay,
    ):
        play(talk, relay.address, patience=10)

        refused(process, snapshot)


def _truncated(folder):
    (folder / "server-cert.pem").write_bytes((folder / "server-cert.pem").read_bytes()[:300])


def _of_another(folder):
    key = ["openssl", "genrsa", "-out", folder / "server-key.pem", "2048"]
    subprocess.run(key, check=True, capture_output=True)


DAMAGE = {
    "no authority": lambda folder: (folder / "ca-cert.pem").unlink(),
    "no key": lambda folder: (folder / "server-key.pem").unlink(),
    "half a certificate": _truncated,
    "another's key": _of_another,
    "no list of revoked ones": lambda folder: (folder / "ca-crl.pem").write_text("none"),
    "no folder": lambda folder: shutil.rmtree(folder),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_certificates_that_are_none(cli, snapshot, ends, tmp_path, name):
    """They are refused before anybody can connect."""
    folder = shutil.copytree(ends, tmp_path / "certificates")
    DAMAGE[name](folder)

    outcome = cli("receive", "--listen", f"tcp:{HOST}:0", "--tls", folder, snapshot)

    outcome.fails(2, str(folder), lines=1)
