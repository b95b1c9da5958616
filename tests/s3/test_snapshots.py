"""Snapshots as objects: what is stored is the format, and every verb reads it from there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import snapmig
from snapmig.stores.location import ObjectUrl
from snapmig.stores.upload import MIN_PART, PartialObject
from tests.s3.conftest import CHANGED, RAM
from tests.support import digests, ram
from tests.support.objects.server import BUCKET
from tests.support.processes import wait_for

pytestmark = pytest.mark.usefixtures("store")

EXAMPLE = Path(__file__).parents[2] / "examples" / "read_snapshot.py"


def pages(proxy):
    """Return how many requests were made since the last call."""
    count = len(proxy.requests)
    proxy.requests.clear()
    return count


def test_an_upload_says_what_is_left(guest, url):
    """The packets are done before their last parts are sent."""
    seen = []
    snapmig.save(guest, url, jobs=1, progress=seen.append)
    assert seen[-1].phase == "sending the last parts"


def test_a_saved_object_is_what_an_independent_reader_expects(server, guest, name, url, tmp_path):
    """The specification's own reader gets the guest's RAM out of the object's bytes."""
    snapmig.save(guest, url, jobs=2)
    (tmp_path / "object.snap").write_bytes(server.get(name))
    subprocess.run(
        [sys.executable, EXAMPLE, tmp_path / "object.snap", "--output", tmp_path / "out.ram"],
        check=True,
    )

    assert (tmp_path / "out.ram").read_bytes() == RAM


def test_workers_that_jobs_share_save_and_restore_objects(guest, url, tmp_path):
    """A group of workers for many jobs does for objects what an operation's own workers do."""
    with snapmig.WorkerGroup(2, 2) as group:
        snapmig.save(guest, url, workers=group)
        snapmig.restore(url, tmp_path / "out.ram", workers=group)

    assert (tmp_path / "out.ram").read_bytes() == RAM


def test_an_object_goes_up_in_parts(proxy, server, guest, name, url):
    """An upload has a part for each 8 MiB, sent in requests of their own."""
    snapmig.save(guest, url, jobs=1)
    size = len(server.get(name))

    sent = {re.search(r"partNumber=(\d+)", line)[1] for line in proxy.requests if "partN" in line}
    assert sent == {str(number) for number in range(1, -(-size // MIN_PART) + 1)}


def test_a_small_object_goes_up_in_three_requests(proxy, tmp_path, url):
    """An object no larger than a part is one, between the upload's begin and end."""
    snapmig.save(ram.write(tmp_path / "small.ram", ram.text(64)), url, jobs=1)

    verbs = [line.split()[0] for line in proxy.requests]
    assert [verb for verb in verbs if verb != "GET"] == ["POST", "PUT", "POST"]


def test_parts_that_are_sent_leave_no_space_taken(url, server):
    """The temporary file keeps only what is not sent yet."""
    size = 6 * MIN_PART
    with PartialObject(ObjectUrl(*url.removeprefix("s3://").split("/", 1)), size, 4096) as partial:
        for at in range(0, size, MIN_PART):
            partial.write(os.urandom(MIN_PART), at)
        full = os.fstat(partial.fd).st_blocks * 512
        partial.advance(size)
        wait_for(lambda: os.fstat(partial.fd).st_blocks * 512 <= MIN_PART)

    assert full == size
    assert server.uploads() == []


def test_a_network_slower_than_the_workers_holds_them_up(guest, url, restored, monkeypatch):
    """Workers that have to wait for each part end with the same snapshot."""
    monkeypatch.setattr("snapmig.stores.upload.QUEUED", -3)
    snapmig.save(guest, url, jobs=2, packet_size="64K")

    assert restored(url) == RAM


def test_restores_from_an_object(saved, restored):
    """A snapshot that was copied to a bucket restores to the RAM it is of."""
    assert restored(saved) == RAM


def test_a_restore_asks_for_batches(proxy, saved, restored):
    """The packets of a reproxy come in far fewer requests than there are packets."""
    restored(saved)

    assert len(proxy.requests) <= 3 + len(RAM) // (4 << 20) + 1


def test_a_fixed_snapshot_in_a_bucket_restores(server, guest, name, url, restored, tmp_path):
    """Any snapshot can be copied to a bucket, also one with holes."""
    snapmig.save(guest, tmp_path / "fixed.snap", jobs=2)
    server.put(name, (tmp_path / "fixed.snap").read_bytes())

    assert restored(url) == RAM


def test_verify_passes(saved):
    """All of an object is checked."""
    assert snapmig.verify(saved, jobs=2).ok


def test_page_digests_are_in_an_object(server, guest, name, url, tmp_path):
    """They go up at last, with the index, and are those of the pages."""
    snapmig.save(guest, url, jobs=2, page_digests=True)
    (tmp_path / "object.snap").write_bytes(server.get(name))

    assert digests.read(tmp_path / "object.snap") == digests.expected(RAM, 512 << 10)
    assert snapmig.verify(url, jobs=2).ok


def test_of_a_parent_with_page_digests_no_packet_is_fetched(proxy, guest, url, tmp_path):
    """A save, and a comparison, read superblock, index and page digests once for all workers."""
    snapmig.save(guest, url, jobs=1, page_digests=True)
    pages(proxy)
    child = tmp_path / "child.snap"
    result = snapmig.save(ram.write(tmp_path / "new", CHANGED), child, parent=url, jobs=2)
    asked = pages(proxy)
    snapmig.restore(child, tmp_path / "out.ram", jobs=2, follow_remote_parents=True)

    assert (asked <= 5, result.page_digests, result.delta_pages) == (True, True, 0)
    assert (tmp_path / "out.ram").read_bytes() == CHANGED
    pages(proxy)
    assert 0 < snapmig.diff(url, child, jobs=2, follow_remote_parents=True).changed_pages < 5000
    assert pages(proxy) <= 10


@pytest.mark.usefixtures("saved")
def test_verify_finds_damage(server, name, url):
    """A byte that changed in the store is found, and told with the packet."""
    content = bytearray(server.get("kept/guest.snap"))
    content[len(content) // 2] ^= 1
    server.put(name, bytes(content))
    result = snapmig.verify(url, jobs=2)

    assert (result.exit_code, result.damaged_packets) == (3, 1)


@pytest.mark.usefixtures("saved")
def test_a_cut_object_is_corrupt(server, name, url):
    """An object that ends too early is refused."""
    server.put(name, server.get("kept/guest.snap")[:-1])
    with pytest.raises(snapmig.CorruptSnapshotError, match="truncated"):
        snapmig.info(url)


@pytest.mark.parametrize("content", [b"", b"no snapshot"])
def test_another_object_is_no_snapshot(server, name, url, content):
    """An empty object, or one of something else, is refused as a file would be."""
    server.put(name, content)
    with pytest.raises(snapmig.CorruptSnapshotError):
        snapmig.info(url)


def test_info_takes_three_requests(proxy, saved):
    """The superblock with its tables, the rest of the index, and the last table."""
    found = snapmig.info(saved)

    assert (found.ram_size, found.layout, found.data_pages) == (len(RAM), "packed", 5012)
    assert pages(proxy) <= 3


def test_a_page_takes_few_requests(proxy, saved):
    """Opening takes one request, the first page of a packet one more, the next one none."""
    with snapmig.open(saved) as snapshot:
        opened = pages(proxy)
        first = bytes(snapshot.page(3000))
        read = pages(proxy)
        second = bytes(snapshot.page(3001))
        assert (opened, read, pages(proxy)) == (1, 1, 0)

    assert first + second == RAM[3000 * 4096 : 3002 * 4096]


def test_a_parent_is_found_beside_its_child(saved, tmp_path, restored):
    """A snapshot that builds on an object restores, and its chain is told."""
    child = saved.replace("guest.snap", "child.snap")
    ram.write(tmp_path / "changed.ram", CHANGED)
    result = snapmig.save(tmp_path / "changed.ram", child, parent=saved, jobs=2, force=True)

    assert result.same_pages > 5000
    assert [link.snapshot for link in snapmig.chain(child)] == [child, saved]
    assert restored(child) == CHANGED


def test_a_parent_of_another_name_is_found(server, saved, tmp_path, restored):
    """A parent that was renamed together with its child is found under the same prefix."""
    server.put("moved/monday", server.get("kept/guest.snap"))
    ram.write(tmp_path / "changed.ram", CHANGED)
    snapmig.save(tmp_path / "changed.ram", f"s3://{BUCKET}/moved/child", parent=saved, jobs=2)
    child = server.get("moved/child")
    server.put("moved/child", child.replace(b"s3://snapshots/kept", b"s3://snapshots/gone"))

    links = snapmig.chain(f"s3://{BUCKET}/moved/child")
    assert links[1].snapshot in (saved, f"s3://{BUCKET}/moved/monday")
    assert restored(f"s3://{BUCKET}/moved/child") == CHANGED


def test_a_file_may_have_an_object_as_parent(saved, tmp_path):
    """A snapshot on disk names its parent in a bucket, which is followed when asked."""
    ram.write(tmp_path / "changed.ram", CHANGED)
    child = tmp_path / "child.snap"
    snapmig.save(tmp_path / "changed.ram", child, parent=saved, jobs=2)
    with pytest.raises(snapmig.SnapmigError, match="following remote parents is asked for"):
        snapmig.restore(child, tmp_path / "restored", jobs=2)
    snapmig.restore(child, tmp_path / "restored", jobs=2, follow_remote_parents=True)

    assert (tmp_path / "restored").read_bytes() == CHANGED


def test_merges_and_repacks_between_files_and_objects(saved, url, tmp_path):
    """A snapshot goes from a bucket to a file of another form, and back."""
    snapmig.repack(saved, tmp_path / "fixed.snap", layout="fixed", jobs=2)
    snapmig.merge(tmp_path / "fixed.snap", url, jobs=2)

    assert snapmig.info(url).layout == "packed"
    assert snapmig.diff(saved, url, jobs=2).changed_pages == 0


def test_attachments_come_back(guest, url):
    """An attachment is read from the object."""
    snapmig.save(guest, url, attach={"domain.xml": b"<domain/>"}, jobs=2)
    with snapmig.open(url) as snapshot:
        assert snapshot.attachments["domain.xml"] == b"<domain/>"


def test_an_existing_object_is_not_replaced(saved, guest):
    """Without force a name that is taken is refused, and the object stays."""
    with pytest.raises(snapmig.DestinationExistsError, match="exists already"):
        snapmig.save(guest, saved, jobs=2)


def test_force_replaces_an_object(server, name, url, guest, restored):
    """With force it is replaced."""
    server.put(name, b"something else")
    snapmig.save(guest, url, force=True, jobs=2)

    assert restored(url) == RAM
