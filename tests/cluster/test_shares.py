"""Facts about one snapshot that several processes or hosts write together."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import snapmig
from snapmig.container.shares import share_packets
from snapmig.errors import DestinationExistsError, SnapmigError, UsageError
from snapmig.geometry import Geometry, RamBlock
from tests.support import program, ram
from tests.support.cluster.processes import Cluster, wait_for
from tests.support.steady import STEADY

pytestmark = pytest.mark.sweep

MIB = 1 << 20
SUPERBLOCK = 4096
INDEX_PAGE = 4096
EQUAL = {"jobs": 1, **STEADY}


@pytest.fixture(scope="module")
def guest(shared_shm: Path) -> Path:
    """Give an image whose index has several pages: a MiB of data in each 4 MiB of 64."""
    content = ram.mixed(16 * MIB, 3)
    pieces = {4 * at: content[at : at + MIB] for at in range(0, len(content), MIB)}
    return ram.write_sparse(shared_shm / "guest.ram", 64 * MIB, pieces)


@pytest.fixture(scope="module")
def single(guest: Path) -> bytes:
    """Give what a single save makes of it, as :func:`parts` does."""
    snapmig.save(guest, guest.with_name("single.snap"), **EQUAL)
    return parts(guest.with_name("single.snap"))


@pytest.fixture
def snapshot(shm: Path) -> Path:
    """Give the name of a snapshot, alone in its directory."""
    return shm / "guest.snap"


def parts(snapshot: Path) -> bytes:
    """Return all of a snapshot but its superblock, which has an id and a time of its own."""
    return snapshot.read_bytes()[SUPERBLOCK:]


def save_all(guest: Path, snapshot: Path, shares: int) -> None:
    """Save all shares, the last one first."""
    for share in range(shares, 0, -1):
        snapmig.save(guest, snapshot, share=f"{share}/{shares}", **EQUAL)


@pytest.mark.parametrize("shares", [1, 2, 3, 7])
def test_shares_together_are_what_one_save_makes(
    guest: Path, single: bytes, snapshot: Path, shares: int
) -> None:
    """Block table, index, slots and attachments are the same bytes."""
    save_all(guest, snapshot, shares)
    snapmig.commit(snapshot)
    assert parts(snapshot) == single


def test_a_commit_leaves_the_snapshot_alone(guest: Path, snapshot: Path) -> None:
    """Nothing of the shares is left beside it, and it verifies."""
    save_all(guest, snapshot, 2)
    result = snapmig.commit(snapshot)
    assert list(snapshot.parent.iterdir()) == [snapshot]
    assert snapmig.verify(snapshot).ram_size == result.ram_size == 64 * MIB


def test_processes_on_two_workers_write_at_a_time(
    cluster: Cluster, guest: Path, single: bytes, snapshot: Path, tmp_path: Path
) -> None:
    """Two hosts of a cluster save a share each, a commit makes what one save makes."""
    tables = (
        f'[[save]]\nname = "part {share}"\nhost = "host{host}"\nshare = "{share}/2"\n'
        f'image = "{guest}"\nsnapshot = "{snapshot}"\naccelerator = "python"\n'
        for share, host in ((1, "A"), (2, "B"))
    )
    (tmp_path / "jobs.toml").write_text("bwlimit = '10M'\n" + "".join(tables))
    words = ("batch", tmp_path / "jobs.toml", "--scheduler", cluster.address)
    done = program.run(*words)
    done.ok()
    program.run("commit", snapshot).ok()
    assert parts(snapshot) == single


def test_a_killed_share_is_named_and_can_be_done_again(
    guest: Path, single: bytes, snapshot: Path
) -> None:
    """Before that there is no snapshot, after it the same as of one save."""
    snapmig.save(guest, snapshot, share="1/2", **EQUAL)
    data = snapshot.with_name(".guest.snap.shares") / "data"
    before = data.stat().st_blocks
    words = ("--share", "2/2", "--bwlimit", "500K", "--accelerator", "python")
    slow = program.start("save", *words, guest, snapshot)
    wait_for(lambda: data.stat().st_blocks > before + 500)
    with pytest.raises(SnapmigError, match="is being written by another process"):
        snapmig.commit(snapshot)
    slow.send_signal(signal.SIGKILL)
    slow.communicate()
    with pytest.raises(SnapmigError, match="share 2 is not done, of 2 shares"):
        snapmig.commit(snapshot)
    assert not snapshot.exists()
    snapmig.save(guest, snapshot, share="2/2", **EQUAL)
    snapmig.commit(snapshot)
    assert parts(snapshot) == single


def test_a_second_commit_is_refused(guest: Path, snapshot: Path) -> None:
    """There is nothing left to commit, and the snapshot stays."""
    save_all(guest, snapshot, 2)
    snapmig.commit(snapshot)
    before = snapshot.read_bytes()
    with pytest.raises(UsageError, match="no share of it was begun, or it is committed"):
        snapmig.commit(snapshot)
    assert snapshot.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ({"share": "2/3"}, "shares have shares 2, and this one has 3"),
        ({"share": "2/2", "packet_size": "64K"}, "shares have packet_size 524288, and this one"),
        ({"share": "2/2", "compression": "none"}, "shares have compression 'zlib', and this one"),
        ({"share": "2/2", "window": "4k"}, "shares have window_bits 15, and this one has 12"),
    ],
)
def test_a_share_with_other_settings_is_refused(
    guest: Path, snapshot: Path, words: dict[str, str], found: str
) -> None:
    """Things that a single snapshot has once must be one."""
    snapmig.save(guest, snapshot, share="1/2", jobs=1)
    with pytest.raises(UsageError, match=found):
        snapmig.save(guest, snapshot, jobs=1, **words)


def test_a_share_of_a_changed_image_is_refused(snapshot: Path) -> None:
    """Parts of two moments are no guest."""
    image = snapshot.with_name("guest.ram")
    image.write_bytes(bytes(MIB))
    snapmig.save(image, snapshot, share="1/2", jobs=1)
    with image.open("r+b") as file:
        file.write(b"x")
    with pytest.raises(UsageError, match="shares have image"):
        snapmig.save(image, snapshot, share="2/2", jobs=1)


@pytest.mark.parametrize("words", ["0/2", "3/2", "1", "a/b", "1/9999", "-1/2"])
def test_what_is_no_share_is_refused(guest: Path, snapshot: Path, words: str) -> None:
    """It is K of N."""
    with pytest.raises(UsageError, match="expected K/N"):
        snapmig.save(guest, snapshot, share=words)


def test_shares_have_fixed_places_only(guest: Path, snapshot: Path) -> None:
    """In the packed layout a place depends on all before it."""
    with pytest.raises(UsageError, match="shares have the fixed layout"):
        snapmig.save(guest, snapshot, share="1/2", layout="packed")


def test_abandoned_shares_are_gone(guest: Path, snapshot: Path) -> None:
    """Nothing is left."""
    snapmig.save(guest, snapshot, share="1/2", jobs=1)
    program.run("commit", "--abandon", snapshot).ok()
    assert list(snapshot.parent.iterdir()) == []


def test_a_commit_replaces_nothing_unasked(guest: Path, snapshot: Path) -> None:
    """Somebody made a snapshot of that name meanwhile; the shares stay."""
    save_all(guest, snapshot, 2)
    snapshot.write_bytes(b"other")
    with pytest.raises(DestinationExistsError):
        snapmig.commit(snapshot)
    assert snapshot.read_bytes() == b"other"
    snapmig.commit(snapshot, force=True)
    assert snapmig.verify(snapshot).ram_size == 64 * MIB


@pytest.mark.parametrize("packet_size", [65536, 524288, 4 * MIB])
@pytest.mark.parametrize("shares", [1, 2, 5, 64])
def test_shares_meet_between_pages_of_the_index(packet_size: int, shares: int) -> None:
    """Each packet is in one share, and no page of the index is in two."""
    geometry = Geometry((RamBlock("ram", 1000 * MIB + 4096),), packet_size)
    record = {65536: 104, 524288: 128, 4 * MIB: 352}[packet_size]
    found = [share_packets(geometry, share, shares) for share in range(1, shares + 1)]
    assert [packet for each in found for packet in each] == list(range(geometry.packet_count))
    assert all(each.start * record % INDEX_PAGE == 0 for each in found if each)
