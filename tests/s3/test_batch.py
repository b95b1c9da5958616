"""Batches whose snapshots are objects."""

from __future__ import annotations

import json
import threading

import pytest

import snapmig
from tests.s3.conftest import CHANGED, RAM
from tests.s3.test_faults import ALWAYS, PART
from tests.support import ram
from tests.support.objects.proxy import CutUp, Hold
from tests.support.objects.server import BUCKET

pytestmark = [pytest.mark.sweep, pytest.mark.usefixtures("store")]

BEGIN = r"POST \S+uploads"


@pytest.fixture
def prefix(request):
    """Give a prefix that no other test has."""
    return f"s3://{BUCKET}/{request.node.name.replace('[', '-').replace(']', '')}"


@pytest.fixture
def folder(tmp_path):
    """Give a directory with two images."""
    ram.write(tmp_path / "web.ram", RAM)
    ram.write(tmp_path / "db.ram", ram.text(64))
    return tmp_path


def test_guests_go_up_and_come_down(cli, folder, prefix):
    """Snapshots saved by a batch into a bucket are restored by another."""
    names = ("web", "db")
    restores = [
        f'[[restore]]\nsnapshot = "{prefix}/{name}.snap"\nimage = "{name}.out"' for name in names
    ]
    (folder / "save.toml").write_text(
        f'[[save]]\nimage = "*.ram"\nsnapshot = "{prefix}/{{name}}.snap"'
    )
    (folder / "restore.toml").write_text("\n".join(restores))

    cli("batch", "-j2", folder / "save.toml").ok()
    cli("batch", "-j2", folder / "restore.toml").ok()
    assert [(folder / f"{name}.out").read_bytes() for name in names] == [
        RAM,
        ram.text(64).tobytes(),
    ]


def test_a_batch_takes_a_parent_from_a_bucket(cli, folder, prefix, saved):
    """Only what changed since a snapshot in the bucket goes up."""
    ram.write(folder / "db.ram", CHANGED)
    (folder / "jobs.toml").write_text(
        f'[[save]]\nimage = "db.ram"\nsnapshot = "{prefix}/db.snap"\nparent = "{saved}"'
    )
    line = json.loads(cli("batch", "-j2", "--json", folder / "jobs.toml").lines[0])

    assert (line["parent"], line["same_pages"] > 5000) == (saved, True)


def both(folder, prefix):
    """Have a guest go into the bucket, and beside it a larger one to disk."""
    ram.write(folder / "db.ram", RAM + RAM)
    tables = [
        f'[[save]]\nimage = "web.ram"\nsnapshot = "{prefix}/web.snap"',
        '[[save]]\nimage = "db.ram"\nsnapshot = "db.snap"',
    ]
    (folder / "jobs.toml").write_text("\n".join(tables))
    return folder / "jobs.toml"


def test_a_failed_upload_fails_its_own_job(proxy, server, folder, prefix, monkeypatch):
    """The guest that is saved to disk meanwhile is none the worse."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    proxy.rule = CutUp(after=1_000_000, times=ALWAYS)
    result = snapmig.batch(both(folder, prefix), jobs=1)

    assert [job.state for job in result.jobs] == ["failed", "done"]
    assert "closed the connection" in result.jobs[0].message
    assert server.uploads() == []


@pytest.mark.parametrize("request_", [BEGIN, PART], ids=["begin", "part"])
def test_a_server_that_hangs_holds_up_its_own_job_only(proxy, folder, prefix, request_):
    """While one guest's upload waits for the server, another guest is saved to disk."""
    held = proxy.rule = Hold(request_)
    ended = []

    def note(job):
        ended.append((job.name, held.go.is_set()))
        if job.name == "db":
            assert held.reached.wait(60)
            held.go.set()

    result = snapmig.batch(both(folder, prefix), jobs=1, ended=note)

    assert ended == [("db", False), ("web", True)]
    assert [job.state for job in result.jobs] == ["done", "done"]


def test_a_cancelled_upload_ends_at_once(proxy, server, folder, prefix, tmp_path):
    """With fail_fast, a job that waits for its last parts gives up, and drops what was sent."""
    held = proxy.rule = Hold(PART)
    (tmp_path / "bad.ram").write_bytes(b"")
    path = both(folder, prefix)
    late = '[[save]]\nimage = "bad.ram"\nsnapshot = "bad.snap"\nformat = "elf"'
    path.write_text(f"fail_fast = true\n{path.read_text()}\n{late}")
    waiting = threading.Event()

    def note(job):
        if job.name == "db":
            assert held.reached.wait(60)
            waiting.set()

    result = snapmig.batch(path, jobs=1, ended=note)

    assert waiting.is_set()
    assert [job.state for job in result.jobs] == ["cancelled", "done", "failed"]
    assert server.uploads() == []


@pytest.fixture
def wide(folder, prefix):
    """Give a snapshot in the bucket whose index is larger than what a first look takes."""
    image = ram.write_sparse(folder / "wide", 1 << 30, {0: RAM[: 1 << 20]})
    url = f"{prefix}/wide.snap"
    snapmig.save(image, url, packet_size="64K", jobs=1)
    image.unlink()
    return url


@pytest.mark.parametrize(("room", "more"), [(True, 1), (False, 3)], ids=["room", "tight"])
def test_a_batch_reads_an_index_once_more_only_where_space_is_tight(
    proxy, folder, wide, monkeypatch, room, more
):
    """Beside what the restore itself asks for: a look, or two and the index."""
    if not room:  # for holes, but for all that is not zero
        monkeypatch.setattr("snapmig.batches.space.free_bytes", lambda _: 1 << 29)
    (folder / "jobs.toml").write_text(f'[[restore]]\nsnapshot = "{wide}"\nimage = "batch.out"')
    proxy.requests.clear()
    snapmig.restore(wide, folder / "alone.out", jobs=1)
    alone = len(proxy.requests)
    result = snapmig.batch(folder / "jobs.toml", jobs=1)

    assert [job.state for job in result.jobs] == ["done"]
    assert len(proxy.requests) - alone == alone + more
