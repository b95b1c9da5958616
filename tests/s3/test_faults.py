"""Networks, servers and neighbours that misbehave: one sentence, or no harm at all."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

import pytest

import snapmig
from tests.s3.conftest import RAM
from tests.support import program, ram
from tests.support.objects.proxy import CutDown, CutUp, Hold, LoseAnswer, Pass
from tests.support.objects.server import BUCKET

pytestmark = [pytest.mark.sweep, pytest.mark.usefixtures("store")]

PART = r"PUT \S+partNumber="
COMPLETE = r"POST \S+uploadId="
ALWAYS = 1 << 30


def test_a_restore_survives_dropped_connections(proxy, saved, restored):
    """Answers that break off are asked for again from where they broke off."""
    proxy.rule = CutDown(after=300_000, times=4)

    assert restored(saved) == RAM
    assert proxy.rule.cuts == 4


def test_a_save_survives_dropped_connections(proxy, guest, url, restored):
    """Parts that do not arrive are sent again."""
    proxy.rule = CutUp(after=2_000_000, times=2)
    snapmig.save(guest, url, jobs=1)

    assert proxy.rule.cuts == 2
    assert restored(url) == RAM


def test_a_lost_answer_is_no_failure(proxy, guest, url, restored):
    """When only the answer to the last request is lost, our object is not taken for another's."""
    proxy.rule = LoseAnswer(COMPLETE)
    snapmig.save(guest, url, jobs=1)

    assert proxy.rule.cuts == 1
    assert restored(url) == RAM


def test_a_lost_answer_to_a_small_object_is_no_failure(proxy, tmp_path, url):
    """Likewise where there is only one part."""
    proxy.rule = LoseAnswer(COMPLETE)
    snapmig.save(ram.write(tmp_path / "small.ram", ram.text(64)), url, jobs=1)

    assert proxy.rule.cuts == 1
    assert snapmig.info(url).ram_size == 64 * 4096


def test_a_restore_gives_up(proxy, saved, tmp_path, monkeypatch):
    """A connection that always breaks is a failure, and leaves no image."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    proxy.rule = CutDown(after=100_000, times=ALWAYS)
    with pytest.raises(snapmig.StoreError, match=r"closed the connection, after 2 attempts$"):
        snapmig.restore(saved, tmp_path / "out.ram", jobs=1)

    assert list(tmp_path.iterdir()) == []


def test_verify_does_not_blame_the_snapshot(proxy, saved, monkeypatch):
    """A network that fails says nothing of the snapshot."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    proxy.rule = CutDown(after=100_000, times=ALWAYS)
    with pytest.raises(snapmig.StoreError):
        snapmig.verify(saved, jobs=1)


def test_a_save_gives_up(proxy, server, guest, name, url, monkeypatch):
    """A part that never arrives is a failure; no object and no part is left."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    proxy.rule = CutUp(after=1_000_000, times=ALWAYS)
    with pytest.raises(snapmig.StoreError, match="connection"):
        snapmig.save(guest, url, jobs=1)

    assert (name in server.names(), server.uploads(name)) == (False, [])


def test_a_silent_server_is_given_up(proxy, saved, monkeypatch):
    """A server that takes requests and never answers does not hold the program for ever."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setenv("SNAPMIG_S3_TIMEOUT", "0.3")
    proxy.rule = Hold("GET ")
    with pytest.raises(snapmig.StoreError, match=r"stopped answering, after 2 attempts$"):
        snapmig.info(saved)


def test_a_killed_upload_leaves_no_object(proxy, server, guest, name, url):
    """After SIGKILL nothing has the name; the parts wait for the bucket's rule, or for an abort."""
    proxy.rule = Hold(PART, after=2_000_000)
    process = program.start("save", "-j1", guest, url, env=dict(os.environ))
    assert proxy.rule.reached.wait(60)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()

    left = [upload for key, upload in server.uploads() if key == name]
    assert (name in server.names(), len(left)) == (False, 1)
    server.client.abort_multipart_upload(Bucket=BUCKET, Key=name, UploadId=left[0])


REQUESTS = {"begin": r"POST \S+uploads", "part": PART}


@pytest.mark.parametrize("moment", REQUESTS)
def test_the_run_after_a_killed_upload(proxy, server, guest, name, url, restored, moment):
    """After SIGKILL nothing has the name, and the next run works."""
    rule = proxy.rule = Hold(REQUESTS[moment])
    process = program.start("save", "-j1", guest, url, env=dict(os.environ))
    assert rule.reached.wait(60)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert name not in server.names()

    proxy.rule = Pass()
    snapmig.save(guest, url, jobs=1)

    assert restored(url) == RAM
    rule.go.set()
    for _, upload in server.uploads(name):  # other tests count all of them
        server.client.abort_multipart_upload(Bucket=BUCKET, Key=name, UploadId=upload)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_upload_leaves_nothing(proxy, server, guest, name, url, number):
    """A signal ends an upload, and what was sent is dropped."""
    proxy.rule = Hold(PART, after=2_000_000)
    process = program.start("save", "-j1", guest, url, env=dict(os.environ))
    assert proxy.rule.reached.wait(60)
    process.send_signal(number)
    outcome = program.end(process, timeout=30)

    told = f"snapmig: interrupted by {number.name}; what was sent of {url} was dropped\n"
    outcome.fails(128 + number, err=told)
    assert (name in server.names(), server.uploads(name)) == (False, [])


def test_of_two_saves_of_a_name_one_wins(proxy, server, guest, name, url, tmp_path, monkeypatch):
    """The first to complete has the name; the other reports it, and leaves nothing."""
    proxy.rule = Hold(COMPLETE)
    late = program.start("save", "-j1", guest, url, env=dict(os.environ))
    assert proxy.rule.reached.wait(60)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
    first = snapmig.save(ram.write(tmp_path / "other.ram", ram.text(64)), url, jobs=1)
    proxy.rule.go.set()
    outcome = program.end(late, timeout=30)

    outcome.fails(
        1, err=f"snapmig: {url}: was created by someone else meanwhile, -f overwrites it\n"
    )
    assert (snapmig.info(url).snapshot_id, server.uploads(name)) == (first.snapshot_id, [])


def test_an_object_that_is_replaced_is_noticed(server, saved, name, url):
    """Bytes of two objects are never mixed."""
    server.put(name, server.get(saved.removeprefix(f"s3://{BUCKET}/")))
    with snapmig.open(url) as snapshot:
        server.put(name, b"another")
        with pytest.raises(snapmig.StoreError, match="was replaced by another object"):
            snapshot.page(3000)


def test_an_upload_that_someone_aborts_fails(proxy, server, guest, url):
    """An upload whose parts were dropped by someone else says so."""
    proxy.rule = Hold(COMPLETE)
    found: list[snapmig.SnapmigError] = []

    def save() -> None:
        try:
            snapmig.save(guest, url, jobs=1)
        except snapmig.SnapmigError as error:
            found.append(error)

    thread = threading.Thread(target=save)
    thread.start()
    assert proxy.rule.reached.wait(60)
    for key, upload in server.uploads():
        server.client.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload)
    proxy.rule.go.set()
    thread.join()

    assert [error.message for error in found] == ["the upload was aborted by someone else"]


def test_a_missing_object_is_named(url):
    """No such object: one sentence."""
    with pytest.raises(snapmig.StoreError, match=f"^{url}: there is no such object$"):
        snapmig.info(url)


@pytest.mark.parametrize("verb", ["info", "save"])
def test_a_missing_bucket_is_named(verb, guest):
    """No such bucket: one sentence, before any work."""
    arguments = (guest,) if verb == "save" else ()
    with pytest.raises(snapmig.StoreError, match=r"there is no bucket no-such-bucket$"):
        getattr(snapmig, verb)(*arguments, "s3://no-such-bucket/guest.snap")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "the secret key is wrong: check"),
        ("AWS_ACCESS_KEY_ID", "nobody", "the server does not know the access key: check"),
        ("AWS_PROFILE", "none", r"profile \(none\) could not be found"),
        ("AWS_ENDPOINT_URL", "nonsense", "S3 settings make no sense: Invalid endpoint"),
        ("AWS_ENDPOINT_URL", "http://192.0.2.1", "expected https, or AWS_ALLOW_HTTP=true"),
        ("SNAPMIG_S3_TIMEOUT", "soon", "SNAPMIG_S3_TIMEOUT is 'soon', expected seconds"),
    ],
)
def test_settings_that_are_wrong_are_named(monkeypatch, saved, name, value, words):
    """Each wrong setting has its sentence."""
    monkeypatch.setenv(name, value)
    with pytest.raises(snapmig.SnapmigError, match=words):
        snapmig.info(saved)


def test_missing_credentials_are_named(monkeypatch, saved):
    """Without credentials nothing is asked of the server."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(snapmig.StoreError, match="no credentials found"):
        snapmig.info(saved)


def test_a_refused_connection_is_named(monkeypatch, saved):
    """Where no server listens the program says so, with the exit code of a failure."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    done = program.run("info", saved, env=dict(os.environ))

    done.fails(
        1, err=f"snapmig: {saved}: can't connect to http://127.0.0.1:{port}, after 2 attempts\n"
    )


def test_the_fixed_layout_is_refused(guest, url):
    """An object has no holes, so the layout that needs them is refused."""
    with pytest.raises(snapmig.UsageError, match="layout is fixed, expected packed"):
        snapmig.save(guest, url, layout="fixed")


def test_an_image_is_no_object(saved):
    """Only snapshots are objects."""
    with pytest.raises(snapmig.UsageError, match="an image is a file"):
        snapmig.restore(saved, f"s3://{BUCKET}/guest.ram")


def test_the_missing_extra_is_named(url):
    """Without botocore the program says what to install."""
    code = (
        "import sys; sys.modules['botocore'] = None; from snapmig.commands import main; "
        f"sys.exit(main(['info', {url!r}]))"
    )
    done = program.call([sys.executable, "-c", code])

    done.fails(
        1,
        err=f"snapmig: {url}: s3:// needs the Python package botocore: pip install 'snapmig[s3]'\n",
    )


def test_the_kept_object_has_no_name_before_the_end(proxy, server, guest, name, url):
    """While parts are being sent nobody sees an object."""
    proxy.rule = Hold(COMPLETE)
    process = program.start("save", "-j1", guest, url, env=dict(os.environ))
    assert proxy.rule.reached.wait(60)
    assert name not in server.names()
    proxy.rule.go.set()
    outcome = program.end(process, timeout=30)

    outcome.ok()
    assert len(server.get(name)) == snapmig.info(url).file_size
