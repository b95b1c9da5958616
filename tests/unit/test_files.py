"""Facts about files that are written whole."""

import errno
import os

import pytest

from snapmig.errors import DestinationExistsError, NoSpaceError, SnapmigError, UsageError
from snapmig.system import files, libc
from snapmig.system.partial import PartialFile


def _fail(number):
    def call(*_arguments, **_options):
        raise OSError(number, os.strerror(number))

    return call


def test_nothing_has_the_final_name_before_the_commit(tmp_path):
    """While a file is written its final name is free."""
    with PartialFile(tmp_path / "a", 0) as file:
        file.write(b"x", 0)

        assert not (tmp_path / "a").exists()


def test_the_partial_file_is_beside_the_final_one(tmp_path):
    """A partial file is hidden, in the same directory, and says whose it is."""
    with PartialFile(tmp_path / "a", 0):
        (partial,) = tmp_path.iterdir()

        assert (partial.name[:3], partial.suffix) == (".a.", ".partial")


def test_a_partial_file_is_for_its_owner_only(tmp_path):
    """A guest's memory is nobody else's business."""
    with PartialFile(tmp_path / "a", 0) as file:
        assert os.fstat(file.fd).st_mode & 0o777 == 0o600


def test_a_file_without_a_commit_leaves_nothing(tmp_path):
    """Leaving the block removes the partial file."""
    with PartialFile(tmp_path / "a", 0) as file:
        file.write(b"x", 0)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("force", [False, True])
def test_a_committed_file_has_its_name(tmp_path, force):
    """After the commit there is the final file and no other."""
    with PartialFile(tmp_path / "a", 0) as file:
        file.write(b"whole", 0)
        file.commit(force=force)

    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"whole")]


def test_a_commit_does_not_replace_what_appeared_meanwhile(tmp_path):
    """A file that someone else made during the work stays."""
    with PartialFile(tmp_path / "a", 0) as file:
        (tmp_path / "a").write_bytes(b"theirs")
        with pytest.raises(DestinationExistsError, match="created by someone else"):
            file.commit(force=False)

    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"theirs")]


def test_a_forced_commit_replaces(tmp_path):
    """With force the old file gives way at once."""
    (tmp_path / "a").write_bytes(b"old")
    with PartialFile(tmp_path / "a", 0) as file:
        file.write(b"new", 0)
        file.commit(force=True)

    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"new")]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK])
def test_a_filesystem_without_hard_links_gets_a_rename(tmp_path, monkeypatch, number):
    """Where there are no hard links the commit renames."""
    monkeypatch.setattr(libc, "_libc", object())
    monkeypatch.setattr(os, "link", _fail(number))
    with PartialFile(tmp_path / "a", 0) as file:
        file.commit(force=False)

    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_directory_that_can_not_be_synced_is_no_failure(tmp_path, monkeypatch, number):
    """Some network filesystems sync no directories; the file is committed all the same."""
    with PartialFile(tmp_path / "a", 0) as file:
        monkeypatch.setattr(os, "fsync", _fail(number))
        file.commit(force=False)

    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    "name", ["a" * 255, "€" * 85, "a" + "é" * 127], ids=["ascii", "3 bytes each", "2 bytes each"]
)
def test_names_may_be_as_long_as_the_filesystem_allows(tmp_path, name):
    """A final name of 255 bytes gets a partial file too."""
    with PartialFile(tmp_path / name, 0) as file:
        file.commit(force=False)

    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize(
    ("call", "use"),
    [
        ("pwrite", lambda file: file.write(b"x", 0)),
        ("ftruncate", lambda file: file.resize(1)),
        ("fsync", lambda file: file.sync()),
    ],
    ids=["pwrite", "ftruncate", "fsync"],
)
def test_a_full_filesystem_is_named_with_what_is_needed(tmp_path, monkeypatch, call, use, number):
    """No space is an error with the final name and the size that must fit."""
    with PartialFile(tmp_path / "a", 5 << 20) as file:
        monkeypatch.setattr(os, call, _fail(number))
        with pytest.raises(NoSpaceError) as caught:
            use(file)

    assert str(caught.value) == (
        f"{tmp_path}/a: no space left on the filesystem, up to 5.0 MiB must fit there"
    )


def test_other_failures_to_write_have_the_final_name(tmp_path, monkeypatch):
    """An error of the disk names the file that the user named."""
    with PartialFile(tmp_path / "a", 0) as file:
        monkeypatch.setattr(os, "pwrite", _fail(errno.EIO))
        with pytest.raises(OSError, match="Input/output error") as caught:
            file.write(b"x", 0)

    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(tmp_path / "a"))


def test_short_writes_are_continued(tmp_path, monkeypatch):
    """A write that takes only some bytes is followed by one of the rest."""
    whole, pwrite = bytes(range(256)) * 10, os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:7], at))
    with PartialFile(tmp_path / "a", 0) as file:
        file.write(whole, 100)
        file.commit(force=False)

    assert bytes(100) + whole == (tmp_path / "a").read_bytes()


def test_short_reads_are_continued(tmp_path, monkeypatch):
    """A read that gives only some bytes is followed by one of the rest."""
    (tmp_path / "a").write_bytes(bytes(range(256)))
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, 7), at))
    with (tmp_path / "a").open("rb") as file:
        assert files.pread_all(file.fileno(), 100, 50) == bytes(range(50, 150))


def test_a_failed_read_names_the_file(tmp_path):
    """Whoever has only a descriptor says what could not be read."""
    path = tmp_path / "a"
    with path.open("wb") as file, pytest.raises(OSError, match="Bad file descriptor") as caught:
        files.pread_all(file.fileno(), 1, 0)

    assert caught.value.filename == str(path)


def test_a_read_past_the_end_gives_what_is_there(tmp_path):
    """Fewer bytes come back only where the file ends."""
    (tmp_path / "a").write_bytes(b"abcdef")
    with (tmp_path / "a").open("rb") as file:
        assert files.pread_all(file.fileno(), 100, 4) == b"ef"


def test_a_descriptor_path_opens_the_same_file(tmp_path):
    """The file is reached by its descriptor even when its name is gone."""
    (tmp_path / "a").write_bytes(b"kept")
    with (tmp_path / "a").open("rb") as file:
        (tmp_path / "a").unlink()
        with open(files.descriptor_path(file.fileno()), "rb") as again:  # noqa: PTH123
            assert again.read() == b"kept"


def test_free_bytes_are_those_that_the_kernel_reports(shm):
    """The free space is what statvfs says of the filesystem."""
    facts = os.statvfs(shm)

    assert files.free_bytes(shm) <= facts.f_blocks * facts.f_frsize


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("", UsageError, "expected the name of a file"),
        ("none/a", SnapmigError, "there is no directory"),
        ("file/a", SnapmigError, "there is no directory"),
        ("dir", SnapmigError, "the destination is a directory"),
        ("fifo", SnapmigError, "the destination is not a regular file"),
        ("file", DestinationExistsError, "exists already"),
        ("link", DestinationExistsError, "exists already"),
    ],
)
def test_destinations_that_are_refused(tmp_path, monkeypatch, name, kind, words):
    """A place that can't become a new file is refused before any work."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "fifo")

    with pytest.raises(kind, match=words):
        files.check_destination(files.Path(name), force=False)


def test_a_dangling_link_is_refused_before_the_work(tmp_path):
    """A name that is taken by a link to nowhere is taken."""
    (tmp_path / "link").symlink_to("nowhere")

    with pytest.raises(DestinationExistsError):
        files.check_destination(tmp_path / "link", force=False)


@pytest.mark.parametrize("name", ["new", "file"])
def test_destinations_that_are_allowed_with_force(tmp_path, name):
    """A new name, or with force an existing file, is fine."""
    (tmp_path / "file").touch()

    assert files.check_destination(tmp_path / name, force=True) is None


@pytest.mark.parametrize("name", ["dir", "fifo"])
def test_force_does_not_replace_what_is_no_file(tmp_path, name):
    """A directory or a pipe stays what it is, also with force."""
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "fifo")

    with pytest.raises(SnapmigError, match="the destination is"):
        files.check_destination(tmp_path / name, force=True)


def test_what_a_killed_run_left_is_removed(tmp_path):
    """A partial file, or directory, that nobody has locked is an ended run's."""
    (tmp_path / ".a.0123456789ab.partial").write_bytes(b"half")
    (tmp_path / ".a.ba9876543210.partial").mkdir()
    (tmp_path / ".b.0123456789ab.partial").write_bytes(b"of another destination")
    with PartialFile(tmp_path / "a", 0) as file:
        file.commit(force=False)

    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.0123456789ab.partial", "a"]


def test_what_a_running_one_writes_is_left(tmp_path):
    """A partial file is locked as long as it is written."""
    with PartialFile(tmp_path / "a", 0) as first, PartialFile(tmp_path / "a", 0) as second:
        assert first.partial_path.exists()
        assert second.partial_path.exists()


def test_a_link_among_leftovers_is_left_alone(tmp_path):
    """Neither the link nor the file behind it is removed."""
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / ".a.0123456789ab.partial").symlink_to("precious")
    with PartialFile(tmp_path / "a", 0) as file:
        file.commit(force=False)

    assert (tmp_path / "precious").read_bytes() == b"mine"
    assert (tmp_path / ".a.0123456789ab.partial").is_symlink()
