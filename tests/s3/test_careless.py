"""Servers that ignore If-None-Match: nobody goes on where two writers could not be kept apart."""

from __future__ import annotations

import os
import signal

import pytest

import snapmig
from tests.s3.careless import CarelessServer
from tests.s3.conftest import RAM
from tests.s3.test_backup_faults import LOCK_END
from tests.s3.test_faults import PART
from tests.support import program
from tests.support.objects.server import KEYS

pytestmark = [pytest.mark.sweep, pytest.mark.usefixtures("store")]


@pytest.fixture
def careless(server, store, monkeypatch):  # noqa: ARG001 - the environment is changed after it
    """Have the environment lead to a server that ignores conditions."""
    access, secret = KEYS.values()
    made = CarelessServer(server.port, (access, secret))
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
    yield made
    made.close()


@pytest.fixture
def careless_place(careless, place):  # noqa: ARG001 - its environment is what matters
    """Give a guest's place in a bucket of that server."""
    return place


REFUSED = "ignores If-None-Match, so two runs can't be kept apart: expected it to refuse to make"


@pytest.mark.parametrize("verb", ["run", "prune"])
def test_nobody_has_a_lock(careless_place, careless, verb):
    """Verbs that need the lock end with exit code 1 and a sentence, and have changed nothing."""
    names = [careless_place.put(days, days) for days in (2, 1)]
    careless_place.configure("[retention]\nkeep_last = 1")
    outcome = careless_place.backup(verb)

    outcome.fails(1, f"{careless_place.lock}: the server at {careless.url} {REFUSED}")
    assert careless_place.stored() == names
    assert careless_place.server.uploads() == []


def test_two_runs_at_once_are_both_refused(careless_place, careless, tmp_path, monkeypatch):
    """Two hosts that both saw no lock: neither goes on, whoever asks first."""
    careless.hold(LOCK_END)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    late = program.start("backup", "run", careless_place.config, env=dict(os.environ))
    assert careless.reached.wait(60)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    first = careless_place.backup("run")
    careless.go.set()
    second = program.end(late, timeout=30)

    first.fails(1, REFUSED)
    second.fails(1, REFUSED)
    assert careless_place.stored() == []


def test_the_lock_of_a_killed_run_is_not_taken_over(careless_place, careless):
    """It was made while the server kept to the condition; now it is removed, and nothing begun."""
    careless.keeps = True
    careless.hold("GET .*list-type")
    run = program.start("backup", "run", careless_place.config, env=dict(os.environ))
    assert careless.reached.wait(60)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    assert careless_place.stored() == [".lock"]
    careless.keeps = False

    careless_place.backup("run").fails(1)
    assert careless_place.stored() == []


def test_the_lock_of_another_host_stays(careless_place):
    """A lock that is there is seen before anything is made."""
    held = b'{"pid": 7, "host": "other", "since": "today", "word": "theirs"}'
    careless_place.server.put(careless_place.lock.key, held)
    outcome = careless_place.backup("run")

    outcome.fails(7)
    assert careless_place.stored() == [".lock"]
    assert careless_place.server.get(careless_place.lock.key) == held


def test_verbs_without_a_lock_go_on(careless_place):
    """Snapshots can be listed, checked and restored."""
    careless_place.put(1, 7, contents=b"kept")

    careless_place.backup("list").ok()
    careless_place.backup("check").ok()
    assert careless_place.restored() == b"kept"


def test_a_save_does_not_overwrite_what_appeared_meanwhile(careless, server, guest, name, url):
    """An object that came while parts were sent is seen before the end, and stays."""
    careless.hold(PART)
    late = program.start("save", "-j1", guest, url, env=dict(os.environ))
    assert careless.reached.wait(60)
    server.put(name, b"of someone else")
    careless.go.set()
    outcome = program.end(late, timeout=30)

    outcome.fails(
        1, err=f"snapmig: {url}: was created by someone else meanwhile, -f overwrites it\n"
    )
    assert (server.get(name), server.uploads()) == (b"of someone else", [])


def test_a_save_asks_on_the_condition_all_the_same(careless, guest, url, restored):
    """A save where nobody is in the way ends as ever, and its last request has the condition."""
    snapmig.save(guest, url, jobs=1)

    assert (careless.ignored, restored(url)) == (1, RAM)
