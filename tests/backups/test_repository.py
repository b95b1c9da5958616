"""Facts about repositories: what is in them is what the snapshots say."""

from datetime import UTC, datetime

import pytest

from snapmig.backups.repository import guest_folder
from snapmig.backups.stored import RepositoryError
from tests.support.backups import built
from tests.support.builders import Block, Snapshot

TIME = datetime(2026, 11, 23, 2, 15, tzinfo=UTC)
NAME = "2026-11-23T02-15-00Z.snap"


@pytest.fixture
def folder(tmp_path):
    """Give the folder of a guest in an empty repository."""
    folder = guest_folder(tmp_path, "web")
    folder.make()
    return folder


def test_a_snapshot_says_what_it_is(folder):
    """Time, id and parent are those of the superblock, whatever the name says."""
    (folder.path / "2001-01-01T00-00-00Z.snap").write_bytes(built(7, TIME, 6))
    (found,) = folder.read().snapshots

    assert (found.time, found.snapshot_id[-1], found.parent_id[-1], found.kind, found.problem) == (
        TIME,
        7,
        6,
        "incremental",
        None,
    )


def test_snapshots_are_in_the_order_of_their_times(folder):
    """Names decide nothing."""
    for name, hour in (("2001-01-01T00-00-00Z.snap", 3), ("2001-01-02T00-00-00Z.snap", 2)):
        (folder.path / name).write_bytes(built(hour, TIME.replace(hour=hour)))

    assert [item.time.hour for item in folder.read().snapshots] == [2, 3]


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "copy of " + NAME,
        "2026-11-23.snap",
        NAME + ".bak",
        ".x.snap.0123456789ab.partial",
        "lock",
    ],
)
def test_other_files_are_foreign(folder, name):
    """A file without the name of a snapshot is reported, and left alone."""
    (folder.path / name).write_bytes(built(1, TIME))
    folder.remove_leftovers()

    assert (folder.read().foreign, (folder.path / name).exists()) == ((name,), True)


def test_a_folder_with_the_name_of_a_snapshot_is_foreign(folder):
    """Only regular files are snapshots."""
    (folder.path / NAME).mkdir()

    assert folder.read().foreign == (NAME,)


def test_a_link_with_the_name_of_a_snapshot_is_foreign(folder, tmp_path):
    """The target of a link is not in the repository."""
    (tmp_path / "else").write_bytes(built(1, TIME))
    (folder.path / NAME).symlink_to(tmp_path / "else")

    assert folder.read().foreign == (NAME,)


@pytest.mark.parametrize(
    ("content", "words", "code"),
    [
        (b"", "file is empty", 3),
        (b"text", "file starts with", 3),
        (Snapshot([Block("ram", b"1")], superblock={"version_major": 2}).build(), "2.0", 4),
        (Snapshot([Block("ram", b"1")], superblock={"checksum": 1}).build(), "checksum", 3),
    ],
    ids=["empty", "text", "version", "checksum"],
)
def test_a_file_that_says_nothing_is_unreadable(folder, content, words, code):
    """A damaged or newer superblock is reported with its reason and its exit code."""
    (folder.path / NAME).write_bytes(content)
    (found,) = folder.read().unreadable

    assert (found.name, words in found.problem, found.exit_code) == (NAME, True, code)


def test_a_file_with_damaged_tables_still_says_what_it_builds_on(folder):
    """A superblock that is whole is believed where what follows is not."""
    raw = bytearray(built(7, TIME, 6))
    raw[4096] ^= 1
    (folder.path / NAME).write_bytes(raw)
    (found,) = folder.read().snapshots

    assert (found.parent_id[-1], found.problem[:17], found.exit_code) == (6, "block table's che", 3)


@pytest.mark.parametrize(
    "name", [f".{NAME}.0123456789ab.partial", f".{NAME}.4242.mapped-ram"], ids=["partial", "qemu"]
)
def test_what_killed_runs_left_is_removed(folder, name):
    """Temporary files of saves are known by their names, and are neither snapshots nor foreign."""
    (folder.path / name).write_bytes(b"half")
    before = folder.read()

    assert (before.snapshots, before.foreign) == ((), ())
    assert (folder.remove_leftovers(), list(folder.path.iterdir())) == ([name], [])


def test_names_are_times_in_utc(folder):
    """A name sorts, needs no quoting, and says when the save began."""
    assert folder.new_name(TIME) == NAME


def test_two_snapshots_of_a_second_have_two_names(folder):
    """The second and third of one second get numbers, and are snapshots like others."""
    names = []
    for number in range(3):
        names.append(folder.new_name(TIME))
        (folder.path / names[-1]).write_bytes(built(number + 1, TIME))

    assert names == [NAME, f"{NAME[:-5]}_2.snap", f"{NAME[:-5]}_3.snap"]
    assert (len(folder.read().snapshots), sorted(names)) == (3, names)


def test_a_missing_repository_is_not_made(tmp_path):
    """A disk that is not mounted is not mistaken for an empty one."""
    with pytest.raises(RepositoryError, match="there is no such directory"):
        guest_folder(tmp_path / "mnt", "web").make()


def test_folders_are_their_owners_alone(folder):
    """Snapshots hold every secret of a guest."""
    assert folder.path.stat().st_mode & 0o777 == 0o700


def test_a_guest_without_a_folder_has_nothing(tmp_path):
    """Before its first save a guest has no snapshots."""
    assert guest_folder(tmp_path, "web").read().snapshots == ()
