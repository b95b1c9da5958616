from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import snapmig
from snapmig.container.shares import share_packets
from snapmig.errors import DestinationExistsError, SnapmigError, UsageError
from snapmig.geometry import Geometry, RamBlock
from tests.cli import program
from tests.cluster.processes import Cluster, wait_for
from tests.system import ram

MIB = 1 << 20
SUPERBLOCK = 4096
INDEX_PAGE = 4096


@pytest.fixture
def guest(shm: Path) -> Iterator[Path]:
    """Give an image of 64 MiB, whose index has several pages."""
    ram.write(shm / "guest.ram", ram.mixed(64 * MIB, 3))
    return shm / "guest.ram"


def parts(snapshot: Path) -> bytes:
    """Return all of a snapshot but its superblock, which has an id and a time of its own."""
    return snapshot.read_bytes()[SUPERBLOCK:]


def save_all(guest: Path, snapshot: Path, shares: int) -> None:
    """Save all shares, the last one first."""
    for share in range(shares, 0, -1):
        snapmig.save(guest, snapshot, share=f"{share}/{shares}", jobs=1)


@pytest.mark.parametrize("shares", [1, 2, 3, 7])
def test_shares_together_are_what_one_save_makes(guest: Path, shares: int) -> None:
    """Block table, index, slots and attachments are the same bytes."""
    both = guest.with_name("shared.snap"), guest.with_name("single.snap")
    save_all(guest, both[0], shares)
    snapmig.commit(both[0])
    snapmig.save(guest, both[1], jobs=1)
    assert parts(both[0]) == parts(both[1])


def test_a_commit_leaves_the_snapshot_alone(guest: Path) -> None:
    """Nothing of the shares is left beside it, and it verifies."""
    snapshot = guest.with_name("guest.snap")
    save_all(guest, snapshot, 2)
    result = snapmig.commit(snapshot)
    assert sorted(path.name for path in guest.parent.iterdir()) == ["guest.ram", "guest.snap"]
    assert snapmig.verify(snapshot).ram_size == result.ram_size == 64 * MIB


def test_processes_on_two_workers_write_at_a_time(
    cluster: Cluster, guest: Path, tmp_path: Path
) -> None:
    """Two hosts of a cluster save a share each, a commit makes what one save makes."""
    snapshot = guest.with_name("guest.snap")
    tables = (
        f'[[save]]\nname = "part {share}"\nhost = "host{host}"\nshare = "{share}/2"\n'
        f'image = "{guest}"\nsnapshot = "{snapshot}"\n'
        for share, host in ((1, "A"), (2, "B"))
    )
    (tmp_path / "jobs.toml").write_text("bwlimit = '40M'\n" + "".join(tables))
    words = ("batch", tmp_path / "jobs.toml", "--scheduler", cluster.address)
    done = program.run(*words)
    assert done.returncode == 0, done.stderr
    assert program.run("commit", snapshot).returncode == 0
    snapmig.save(guest, guest.with_name("single.snap"), jobs=1)
    assert parts(snapshot) == parts(guest.with_name("single.snap"))


def test_a_killed_share_is_named_and_can_be_done_again(guest: Path) -> None:
    """Before that there is no snapshot, after it the same as of one save."""
    snapshot = guest.with_name("guest.snap")
    snapmig.save(guest, snapshot, share="1/2", jobs=1)
    data = guest.with_name(".guest.snap.shares") / "data"
    before = data.stat().st_blocks
    slow = program.start("save", "--share", "2/2", "--bwlimit", "2M", guest, snapshot)
    wait_for(lambda: data.stat().st_blocks > before + 1000)
    with pytest.raises(SnapmigError, match="is being written by another process"):
        snapmig.commit(snapshot)
    slow.send_signal(signal.SIGKILL)
    slow.communicate()
    with pytest.raises(SnapmigError, match="share 2 is not done, of 2 shares"):
        snapmig.commit(snapshot)
    assert not snapshot.exists()
    snapmig.save(guest, snapshot, share="2/2", jobs=1)
    snapmig.commit(snapshot)
    snapmig.save(guest, guest.with_name("single.snap"), jobs=1)
    assert parts(snapshot) == parts(guest.with_name("single.snap"))


def test_a_second_commit_is_refused(guest: Path) -> None:
    """There is nothing left to commit, and the snapshot stays."""
    snapshot = guest.with_name("guest.snap")
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
    guest: Path, words: dict[str, str], found: str
) -> None:
    """What a single snapshot has once must be one."""
    snapshot = guest.with_name("guest.snap")
    snapmig.save(guest, snapshot, share="1/2", jobs=1)
    with pytest.raises(UsageError, match=found):
        snapmig.save(guest, snapshot, jobs=1, **words)


def test_a_share_of_a_changed_image_is_refused(guest: Path) -> None:
    """Parts of two moments are no guest."""
    snapshot = guest.with_name("guest.snap")
    snapmig.save(guest, snapshot, share="1/2", jobs=1)
    with guest.open("r+b") as file:
        file.write(b"x")
    with pytest.raises(UsageError, match="shares have image"):
        snapmig.save(guest, snapshot, share="2/2", jobs=1)


@pytest.mark.parametrize("words", ["0/2", "3/2", "1", "a/b", "1/9999", "-1/2"])
def test_what_is_no_share_is_refused(guest: Path, words: str) -> None:
    """It is K of N."""
    with pytest.raises(UsageError, match="expected K/N"):
        snapmig.save(guest, guest.with_name("guest.snap"), share=words)


def test_shares_have_fixed_places_only(guest: Path) -> None:
    """In the packed layout a place depends on all before it."""
    with pytest.raises(UsageError, match="shares have the fixed layout"):
        snapmig.save(guest, guest.with_name("guest.snap"), share="1/2", layout="packed")


def test_abandoned_shares_are_gone(guest: Path) -> None:
    """Nothing but the image is left."""
    snapshot = guest.with_name("guest.snap")
    snapmig.save(guest, snapshot, share="1/2", jobs=1)
    assert program.run("commit", "--abandon", snapshot).returncode == 0
    assert list(guest.parent.iterdir()) == [guest]


def test_a_commit_replaces_nothing_unasked(guest: Path) -> None:
    """Somebody made a snapshot of that name meanwhile; the shares stay."""
    snapshot = guest.with_name("guest.snap")
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
