"""Backups in a bucket where other runs, the network or a kill are in the way."""

from __future__ import annotations

import os
import re
import signal

import pytest

from snapmig.backups import repository
from snapmig.backups.lock import LockedError
from snapmig.backups.object_lock import ObjectLock
from snapmig.errors import StoreError
from tests.s3.test_faults import ALWAYS
from tests.support import program
from tests.support.backups import RAM
from tests.support.objects.proxy import CutDown, CutUp, Hold, LoseAnswer, Pass
from tests.support.objects.server import BUCKET

pytestmark = pytest.mark.sweep

SNAPSHOT_END = r"POST \S+\.snap\?\S*uploadId"
LOCK_END = r"POST \S+\.lock\?uploadId"


def test_a_network_that_fails_is_no_damage(place, proxy, monkeypatch):
    """Snapshots that can't be read for now are neither damaged nor unreadable."""
    place.put(1, 7)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    proxy.rule = CutDown(after=200, times=ALWAYS)
    outcome = place.backup("check")

    outcome.fails(1, "closed the connection")


def test_a_second_run_is_refused(place):
    """While a run of this host works on a guest, another one ends with exit code 7."""
    with ObjectLock(place.lock, place.guest.shown, 0):
        outcome = place.backup("run")

    outcome.fails(7, f"/web: locked by process {os.getpid()} on ")
    assert place.stored() == []


def test_a_run_of_another_host_is_refused(place, tmp_path, monkeypatch):
    """A host without the other's files learns of the lock, and of a remedy, from the bucket."""
    with ObjectLock(place.lock, place.guest.shown, 0):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
        outcomes = [place.backup("run", "--lock-wait", "0.1"), place.backup("prune")]
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    waited, pruned = outcomes
    waited.fails(7, f"still so after 0.1 s; where that run is dead, remove {place.lock}")
    pruned.fails(7)
    assert place.stored() == []


def test_a_lock_of_another_host_is_waited_for(place, tmp_path, monkeypatch):
    """A waiting run has the lock when the other host gives it back."""
    held = ObjectLock(place.lock, place.guest.shown, 0)
    held.__enter__()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    run = program.start("backup", "run", "--lock-wait", "30", place.config, env=dict(os.environ))
    held.__exit__()
    outcome = program.end(run, timeout=40)

    outcome.ok()
    assert len(place.stored()) == 1


def test_a_lost_answer_does_not_lock_us_out(place, proxy):
    """When only the answer to the lock's request is lost, the lock is known as ours."""
    proxy.rule = LoseAnswer(LOCK_END)

    place.backup("run", "-j1").ok()
    assert (proxy.rule.cuts, len(place.stored())) == (1, 1)


class RemoveLock(Pass):
    """Removes a lock when it is asked for a second time: that is the proof."""

    def __init__(self, place):
        self.place, self.begun = place, 0

    def up(self, connection):
        """Remove it."""
        if re.match(r"POST \S+\.lock\?uploads", connection.requests[-1]):
            self.begun += 1
            if self.begun == 2:
                self.place.server.client.delete_object(Bucket=BUCKET, Key=self.place.lock.key)


def test_a_lock_that_is_removed_at_once_is_made_again(place, proxy):
    """A server that keeps to the condition is not blamed for a late removal by someone else."""
    proxy.rule = RemoveLock(place)
    outcome = place.backup("run", "-j1")

    outcome.ok()
    assert proxy.rule.begun == 3
    assert len(place.stored()) == 1


def test_nothing_is_removed_without_the_lock(place):
    """Where someone took the lock away, a prune that is under way removes nothing more."""
    place.put(1, 1)
    folder = place.guest
    with folder.locked(0):
        (snapshot,) = folder.read().snapshots
        place.server.put(place.lock.key, b'{"pid": 7, "host": "other", "since": "today"}')
        with pytest.raises(LockedError, match="now process 7 on other since today has it"):
            folder.remove(snapshot)

    assert place.stored() == [".lock", snapshot.name]


def test_a_run_survives_dropped_connections(place, proxy):
    """Parts that do not arrive are sent again."""
    proxy.rule = CutUp(after=30_000, times=2)

    place.backup("run", "-j1").ok()
    assert (proxy.rule.cuts, place.restored("-j1")) == (2, RAM)


def test_a_failed_upload_leaves_nothing(place, proxy, monkeypatch):
    """A guest that did not get there is an error, without an object, parts or a lock."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    proxy.rule = CutUp(after=30_000, times=ALWAYS)
    outcome = place.backup("run", "-j1")

    outcome.fails(1, "closed the connection")
    assert place.stored() == []
    assert place.server.uploads() == []


@pytest.fixture
def killed(place, proxy, server):
    """Kill a run that has sent all, and is about to have the server make the object of it."""
    held = proxy.rule = Hold(SNAPSHOT_END)
    run = program.start("backup", "run", "-j1", place.config, env=dict(os.environ))
    assert held.reached.wait(60)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    proxy.rule = Pass()
    yield
    held.go.set()
    for key, upload in server.uploads(place.prefix):
        server.client.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload)


@pytest.mark.usefixtures("killed")
def test_a_killed_run_leaves_no_snapshot(place):
    """Nobody sees what was half sent."""
    assert [item["message_type"] for item in place.told("list")] == ["summary"]
    assert place.stored() == [".lock"]


@pytest.mark.usefixtures("killed")
def test_after_a_killed_run_the_next_one_is_right(place, server):
    """The next run of this host takes the lock over, drops what was sent, and saves."""
    outcome = place.backup("run", "-j1", "-v")

    outcome.ok("web: removed parts of 20")
    assert (len(place.stored()), server.uploads()) == (1, [])


@pytest.mark.usefixtures("killed")
def test_after_a_killed_run_other_hosts_are_told(place, tmp_path, monkeypatch):
    """Another host can't know whether a run is dead, and says what to do."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    outcome = place.backup("run", "-j1")

    outcome.fails(7, f"where that run is dead, remove {place.lock}")


def test_parts_of_others_stay(place, server):
    """Of unfinished uploads only those of snapshots and locks are dropped."""
    keys = [f"{place.prefix}/web/{name}" for name in (".lock", "2026-11-23T02-15-00Z.snap", "x")]
    for key in keys:
        server.client.create_multipart_upload(Bucket=BUCKET, Key=key)
    with place.guest.locked(0):
        dropped = place.guest.remove_leftovers()
    ((key, upload),) = server.uploads(place.prefix)
    server.client.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload)

    assert dropped == ["parts of .lock", "parts of 2026-11-23T02-15-00Z.snap"]
    assert key == keys[2]


def test_a_missing_bucket_is_named(place):
    """No such bucket: one sentence for each guest."""
    place.configure(bucket="no-such-bucket")
    outcomes = [place.backup(verb) for verb in ("run", "list", "check", "prune")]

    for outcome in outcomes:
        outcome.fails(1, "there is no bucket no-such-bucket")


def test_a_snapshot_that_is_removed_meanwhile_is_no_error(place, monkeypatch):
    """A snapshot that was listed and is gone is left out."""
    place.put(1, 1)
    monkeypatch.setattr(repository._Prefix, "_names", lambda _: ["2001-01-01T00-00-00Z.snap"])

    assert place.guest.read().snapshots == place.guest.read().unreadable == ()


def test_a_list_that_fails_is_raised(place, monkeypatch):
    """Of several requests at a time the first failure counts, and none is left running."""
    place.put(1, 1)
    place.put(2, 2)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match="the secret key is wrong"):
        place.guest.read()


@pytest.mark.usefixtures("killed")
def test_after_a_killed_run_the_servers_address_may_be_written_otherwise(place, monkeypatch):
    """A slash at the end, or capitals, make no other server: the lock is still its own."""
    url = os.environ["AWS_ENDPOINT_URL"]
    monkeypatch.setenv("AWS_ENDPOINT_URL", url.replace("http", "HTTP") + "/")
    outcome = place.backup("run", "-j1", "-v")

    outcome.ok()
