"""A repository of backups in a bucket: the same verbs, another place."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from snapmig.backups.bucket import GuestPrefix
from snapmig.backups.errors import LockedError
from snapmig.backups.object_lock import ObjectLock
from snapmig.errors import StoreError
from snapmig.stores.location import ObjectUrl
from tests.backups.conftest import RAM, built
from tests.cli import program
from tests.conftest import Outcome
from tests.s3.conftest import BUCKET, Server
from tests.s3.proxy import CutDown, CutUp, Hold, LoseAnswer, Pass
from tests.s3.test_faults import ALWAYS

NOW = datetime.now(UTC).replace(microsecond=0)
SNAPSHOT_END = r"POST \S+\.snap\?\S*uploadId"
LOCK_END = r"POST \S+\.lock\?uploadId"


@dataclass
class Place:
    """A guest, and the configuration of a repository in the bucket."""

    folder: Path
    prefix: str
    server: Server
    cli: Callable[..., Outcome]

    @property
    def config(self) -> Path:
        """The configuration."""
        return self.folder / "backup.toml"

    @property
    def guest(self) -> GuestPrefix:
        """The guest's folder."""
        return GuestPrefix(ObjectUrl(BUCKET, self.prefix), "web")

    @property
    def lock(self) -> ObjectUrl:
        """The guest's lock."""
        return self.guest.place(".lock")

    def configure(self, general: str = "", bucket: str = BUCKET) -> None:
        """Write the configuration."""
        repository = f'repository = "s3://{bucket}/{self.prefix}"'
        lines = [repository, general, "[guests.web]", 'source = "web.ram"']
        self.config.write_text("\n".join(lines))

    def backup(self, verb: str, *arguments: object) -> Outcome:
        """Run a verb of snapmig backup."""
        return self.cli("backup", verb, self.config, *arguments)

    def told(self, verb: str, *arguments: object) -> list[dict]:
        """Run a verb with --json, and return what it said on stdout."""
        out = self.backup(verb, "--json", *arguments).out
        return [json.loads(line) for line in out.splitlines()]

    def stored(self) -> list[str]:
        """Return the names of all that has the guest's prefix."""
        start = f"{self.prefix}/web/"
        return [key.removeprefix(start) for key in self.server.names(start)]

    def put(
        self, days: int, snapshot_id: int, parent: int | None = None, contents: bytes = b"contents"
    ) -> str:
        """Put a snapshot of so many days ago there, under the name that a run gives."""
        time = NOW - timedelta(days=days)
        name = f"{time:%Y-%m-%dT%H-%M-%SZ}.snap"
        self.server.put(
            f"{self.prefix}/web/{name}", built(snapshot_id, time, parent, contents=contents)
        )
        return name

    def restored(self, *arguments: object) -> bytes:
        """Restore the guest, and return the image."""
        image = self.folder / "out.ram"
        outcome = self.backup("restore", "-f", "web", image, *arguments)
        assert (outcome.code, outcome.err) == (0, "")
        return image.read_bytes()


@pytest.fixture
def place(
    request: pytest.FixtureRequest,
    server: Server,
    store: None,  # noqa: ARG001
    tmp_path: Path,
    cli: Callable[..., Outcome],
) -> Place:
    """Give a place with the guest web."""
    (tmp_path / "web.ram").write_bytes(RAM)
    prefix = request.node.name.replace("[", "-").replace("]", "")
    place = Place(tmp_path, prefix, server, cli)
    place.configure()
    return place


def test_nights_are_full_and_incremental(place):
    """Runs save into the bucket, the second one what changed since the first."""
    place.configure("full_every = 7")
    codes = [place.backup("run").code, place.backup("run").code]
    *listed, _ = place.told("list")

    assert (codes, [item["kind"] for item in listed]) == ([0, 0], ["full", "incremental"])
    assert listed[1]["parent"] == listed[0]["snapshot"]
    assert listed[0]["path"] == f"s3://{BUCKET}/{place.prefix}/web/{listed[0]['snapshot']}"
    assert place.stored() == [item["snapshot"] for item in listed]
    assert place.restored() == RAM


def test_a_repository_may_be_a_whole_bucket(place):
    """Without a prefix guests are at the top."""
    place.server.client.create_bucket(Bucket="whole")
    place.config.write_text('repository = "s3://whole"\n[guests.web]\nsource = "web.ram"')
    code = place.backup("run").code
    found = place.server.client.list_objects_v2(Bucket="whole")["Contents"]

    assert (code, [item["Key"][:4] for item in found]) == (0, ["web/"])


def test_a_guest_is_restored_by_time(place):
    """The last snapshot from before a moment is taken."""
    for days, number in ((3, 1), (2, 2), (1, 3)):
        place.put(days, number, contents=b"night %d" % number)
    moment = (NOW - timedelta(days=1, hours=12)).isoformat()

    assert place.restored("--before", moment) == b"night 2"


def test_check_reads_all(place):
    """Every snapshot is decoded and found whole."""
    place.backup("run")
    place.put(1, 7)
    *found, summary = place.told("check")

    assert [(item["result"], item["read"]) for item in found] == [("ok", True)] * 2
    assert summary["exit_code"] == 0


def test_check_finds_damage(place):
    """A byte that changed in the bucket is told, with the exit code of corruption."""
    name = place.put(1, 7)
    key = f"{place.prefix}/web/{name}"
    content = bytearray(place.server.get(key))
    content[8200] ^= 1
    place.server.put(key, bytes(content))
    outcome = place.backup("check")

    assert outcome.code == 3
    assert f"web: {name}: packet 0" in outcome.err


def test_a_network_that_fails_is_no_damage(place, proxy, monkeypatch):
    """Snapshots that can't be read for now are neither damaged nor unreadable."""
    place.put(1, 7)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    proxy.rule = CutDown(after=200, times=ALWAYS)
    outcome = place.backup("check")

    assert outcome.code == 1
    assert "closed the connection" in outcome.err


def test_prune_keeps_needed_parents(place):
    """What a kept snapshot builds on stays, what nothing builds on goes."""
    place.configure("[retention]\nkeep_last = 1")
    place.put(4, 1)
    kept = [place.put(3, 2), place.put(1, 3, parent=2)]
    place.put(2, 4, parent=1)

    assert place.backup("prune").code == 0
    assert place.stored() == kept


def test_a_dry_run_changes_nothing(place):
    """What would be done is said, and no object is made or removed."""
    place.configure("[retention]\nkeep_last = 1")
    names = [place.put(2, 1), place.put(1, 2)]
    planned = place.told("run", "--dry-run")[0]
    place.backup("prune", "--dry-run")

    assert (planned["result"], sorted(planned["removed"])) == ("planned", names)
    assert place.stored() == names


def test_what_is_not_ours_is_left_alone(place):
    """Other objects, and what is deeper, are reported and stay."""
    for name in ("notes.txt", "deeper/2026-11-23T02-15-00Z.snap"):
        place.server.put(f"{place.prefix}/web/{name}", b"something")
    place.configure("[retention]\nkeep_last = 1")
    place.put(2, 1)
    place.put(1, 2)
    outcome = place.backup("list")
    place.backup("prune")

    assert "deeper/ is not of a backup" in outcome.err
    assert "notes.txt is not of a backup" in outcome.err
    assert len(place.stored()) == 3


def test_an_object_that_says_nothing_stops_removals(place):
    """It may build on anything."""
    place.configure("[retention]\nkeep_last = 1")
    names = [place.put(3, 1), place.put(2, 2)]
    bad = f"{NOW - timedelta(days=1):%Y-%m-%dT%H-%M-%SZ}.snap"
    place.server.put(f"{place.prefix}/web/{bad}", b"no snapshot")
    outcome = place.backup("prune")

    assert (outcome.code, place.stored()) == (6, [*names, bad])


def test_a_second_run_is_refused(place):
    """While a run of this host works on a guest, another one ends with exit code 7."""
    with ObjectLock(place.lock, place.guest.shown, 0):
        outcome = place.backup("run")

    assert (outcome.code, place.stored()) == (7, [])
    assert f"/web: locked by process {os.getpid()} on " in outcome.err


def test_a_run_of_another_host_is_refused(place, tmp_path, monkeypatch):
    """Who shares no files with the other host is told by the bucket, and what to do."""
    with ObjectLock(place.lock, place.guest.shown, 0):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
        outcomes = [place.backup("run", "--lock-wait", "0.1"), place.backup("prune")]
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    assert [outcome.code for outcome in outcomes] == [7, 7]
    assert f"still so after 0.1 s; where that run is dead, remove {place.lock}" in outcomes[0].err
    assert place.stored() == []


def test_a_lock_of_another_host_is_waited_for(place, tmp_path, monkeypatch):
    """Who waits has the lock when the other host gives it back."""
    held = ObjectLock(place.lock, place.guest.shown, 0)
    held.__enter__()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    run = program.start("backup", "run", "--lock-wait", "30", place.config, env=dict(os.environ))
    held.__exit__()
    _, words = run.communicate(timeout=40)

    assert (run.returncode, words, len(place.stored())) == (0, "", 1)


def test_a_lost_answer_does_not_lock_us_out(place, proxy):
    """When only the answer to the lock's request is lost, the lock is known as ours."""
    proxy.rule = LoseAnswer(LOCK_END)

    assert place.backup("run", "-j1").code == 0
    assert (proxy.rule.cuts, len(place.stored())) == (1, 1)


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

    assert place.backup("run", "-j1").code == 0
    assert (proxy.rule.cuts, place.restored("-j1")) == (2, RAM)


def test_a_failed_upload_leaves_nothing(place, proxy, monkeypatch):
    """A guest that did not get there is an error, without an object, parts or a lock."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    proxy.rule = CutUp(after=30_000, times=ALWAYS)
    outcome = place.backup("run", "-j1")

    assert (outcome.code, place.stored(), place.server.uploads()) == (1, [], [])
    assert "closed the connection" in outcome.err


@pytest.fixture
def killed(place, proxy, server):
    """Kill a run that has sent all, and is about to have the server make the object of it."""
    held = proxy.rule = Hold(SNAPSHOT_END)
    run = program.start("backup", "run", "-j1", place.config, env=dict(os.environ))
    assert held.reached.wait(30)
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

    assert (outcome.code, outcome.err) == (0, "")
    assert "web: removed parts of 20" in outcome.out
    assert (len(place.stored()), server.uploads()) == (1, [])


@pytest.mark.usefixtures("killed")
def test_after_a_killed_run_other_hosts_are_told(place, tmp_path, monkeypatch):
    """Another host can't know whether a run is dead, and says what to do."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    outcome = place.backup("run", "-j1")

    assert outcome.code == 7
    assert f"where that run is dead, remove {place.lock}" in outcome.err


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

    assert [outcome.code for outcome in outcomes] == [1] * 4
    assert all("there is no bucket no-such-bucket" in outcome.err for outcome in outcomes)


def test_hooks_are_told_urls(place):
    """What a hook gets to know of snapshots are names that snapmig takes."""
    command = f"echo $SNAPMIG_SNAPSHOT > {place.folder}/told"
    place.configure(f'[hooks]\nafter = ["sh", "-c", "{command}"]')
    place.backup("run")

    assert (place.folder / "told").read_text().startswith(f"s3://{BUCKET}/{place.prefix}/web/20")


def test_names_come_in_pages(place, monkeypatch):
    """More objects than a server lists at a time are all seen."""
    monkeypatch.setattr("snapmig.stores.prefix.PAGE", 2)
    names = [place.put(days, days) for days in range(1, 6)]

    assert [item.name for item in place.guest.read().snapshots] == names[::-1]


def test_a_snapshot_that_is_removed_meanwhile_is_no_error(place, monkeypatch):
    """What was listed and is gone is left out."""
    place.put(1, 1)
    monkeypatch.setattr(GuestPrefix, "_names", lambda _: ["2001-01-01T00-00-00Z.snap"])

    assert place.guest.read().snapshots == place.guest.read().unreadable == ()


def test_a_list_that_fails_is_raised(place, monkeypatch):
    """Of several requests at a time the first failure counts, and none is left running."""
    place.put(1, 1)
    place.put(2, 2)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match="the secret key is wrong"):
        place.guest.read()


def test_a_run_takes_few_requests(place, proxy):
    """Beside the save: the lock, four lists, and one request for a small snapshot's superblock."""
    place.put(1, 1)
    place.backup("run", "-j1")
    about = [line.split(place.prefix)[-1][:9] for line in proxy.requests]
    lock = sum(each.startswith("/web/.loc") for each in about)
    snapshots = sum(each.startswith("/web/20") for each in about)

    assert (lock, snapshots, len(about) - lock - snapshots) == (7, 1 + 2 + 4, 4), proxy.requests
