"""Facts about full filesystems and failing writes."""

import errno
import os
import resource
import signal
from contextlib import suppress

import multiprocess
import pytest

import snapmig
from snapmig.system.partial import PartialFile
from tests.support import processes, ram

MIB = 1 << 20
root = pytest.mark.root


@pytest.fixture(scope="module")
def image(shared_shm):
    """Give an image of 16 MiB, three quarters of them noise and text."""
    return ram.write(shared_shm / "a", ram.mixed(16 * MIB, 5))


@pytest.fixture(scope="module")
def snapshot(shared_shm, image):
    """Give a snapshot of the image."""
    snapmig.save(image, shared_shm / "s")
    return shared_shm / "s"


@pytest.fixture
def file_size_limit():
    """Give a function to limit the size of files written by this process and its children."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _failing(call, number, count):
    # A system call that fails from the count-th time on, in each process.
    calls = []

    def fail(*arguments):
        calls.append(1)
        if len(calls) < count:
            return call(*arguments)
        raise OSError(number, os.strerror(number))

    return fail


@root
@pytest.mark.parametrize("layout", ["fixed", "packed"])
@pytest.mark.parametrize("size", ["4k", "8k", "64k", "1M", "3M"])
def test_a_save_to_a_full_filesystem(cli, small_tmpfs, image, size, layout):
    """Wherever the space ends, a save fails with path and space, and leaves nothing."""
    place = small_tmpfs(size)
    outcome = cli("save", image, place / "s", "--layout", layout)

    outcome.fails(
        1, out="", start=f"snapmig: {place}/s: no space left on the filesystem, up to 16."
    )
    assert list(place.iterdir()) == []


@root
@pytest.mark.parametrize("size", ["8k", "1M"])
def test_a_restore_to_a_small_filesystem_is_refused_before_the_work(
    cli, small_tmpfs, snapshot, size
):
    """Too little space is known from the index, and nothing is begun."""
    place = small_tmpfs(size)
    outcome = cli("restore", snapshot, place / "r")

    outcome.fails(1, "its filesystem has ", out="", start=f"snapmig: {place}/r: image needs 1")
    assert list(place.iterdir()) == []


@root
def test_a_restore_to_a_filesystem_that_fills_up_meanwhile(small_tmpfs, snapshot):
    """If someone else takes the space, a restore fails with path and space."""
    place = small_tmpfs("14M")

    def take(_progress):
        workers = [child.pid for child in multiprocess.active_children()]
        processes.send(signal.SIGSTOP, workers)
        with (place / "other").open("wb", buffering=0) as file, suppress(OSError):
            while True:  # whatever a worker writes before it stops
                file.write(bytes(MIB))
        processes.send(signal.SIGCONT, workers)

    with pytest.raises(snapmig.NoSpaceError, match=r"up to 1.* must fit there") as caught:
        snapmig.restore(snapshot, place / "r", jobs=1, progress=take)

    assert (caught.value.path, [path.name for path in place.iterdir()]) == (
        str(place / "r"),
        ["other"],
    )


@root
def test_a_restore_in_place_to_a_full_filesystem(cli, small_tmpfs, snapshot):
    """The error names a hole that can't be filled, and the image as partly restored."""
    place = small_tmpfs("1M")
    with (place / "r").open("wb") as file:
        file.truncate(16 * MIB)
    outcome = cli("restore", "--in-place", snapshot, place / "r")

    outcome.fails(
        1,
        f"{place}/r: no space left on the filesystem, up to 16.0 MiB",
        f"{place}/r is only partly restored now",
    )


@root
def test_a_dump_whose_pages_do_not_fit(cli, small_tmpfs, snapshot):
    """How far compressed pages go is seen on the way; the error names file and space."""
    place = small_tmpfs("2M")
    options = ("--format", "kdump", "--address", "ram=0", "--arch", "x86_64")
    outcome = cli("restore", *options, snapshot, place / "r")

    outcome.fails(1, out="", start=f"snapmig: {place}/r: no space left on the filesystem, up to 1")
    assert list(place.iterdir()) == []


@root
def test_what_needs_no_space_is_restored_to_a_small_filesystem(small_tmpfs, shm):
    """Only pages other than zero need space: 64 MiB of RAM fit into 1 MiB."""
    ram.write_sparse(shm / "a", 64 * MIB, {MIB: b"data"})
    snapmig.save(shm / "a", shm / "s")
    place = small_tmpfs("1M")
    snapmig.restore(shm / "s", place / "r")

    assert (place / "r").stat().st_size == 64 * MIB


@pytest.mark.parametrize("verb", ["save", "restore"])
def test_a_limit_on_the_size_of_files(cli, shm, image, snapshot, file_size_limit, verb):
    """Beyond a limit on file sizes, the error names the file and leaves nothing."""
    arguments = {"save": ("save", image, shm / "x"), "restore": ("restore", snapshot, shm / "x")}
    file_size_limit(MIB)
    outcome = cli(*arguments[verb])

    outcome.fails(1, err=f"snapmig: {shm}/x: File too large\n")
    assert list(shm.iterdir()) == []


@pytest.mark.parametrize("layout", ["fixed", "packed"])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 9, 14])
def test_the_kth_write_of_a_save_fails(cli, shm, image, monkeypatch, count, layout):
    """Whichever write finds no space, a save fails with path and space, and leaves nothing."""
    monkeypatch.setattr(os, "pwrite", _failing(os.pwrite, errno.ENOSPC, count))
    outcome = cli("save", image, shm / "s", "-j", 2, "--layout", layout)

    outcome.fails(1, out="", start=f"snapmig: {shm}/s: no space left on the filesystem, up to 16.")
    assert list(shm.iterdir()) == []


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9, 14])
def test_the_kth_write_of_a_restore_fails(cli, shm, snapshot, monkeypatch, count):
    """Whichever write finds no space, a restore fails with path and space, and leaves nothing."""
    monkeypatch.setattr(os, "pwrite", _failing(os.pwrite, errno.ENOSPC, count))
    outcome = cli("restore", snapshot, shm / "r", "-j", 2)

    outcome.fails(1, out="", start=f"snapmig: {shm}/r: no space left on the filesystem, up to 1")
    assert list(shm.iterdir()) == []


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("verb", ["save", "restore"])
def test_a_disk_that_fails_to_write(cli, shm, image, snapshot, monkeypatch, verb, count):
    """Another failure to write is named with the file, and leaves nothing."""
    arguments = {"save": ("save", image, shm / "x"), "restore": ("restore", snapshot, shm / "x")}
    monkeypatch.setattr(os, "pwrite", _failing(os.pwrite, errno.EIO, count))
    outcome = cli(*arguments[verb])

    outcome.fails(1, err=f"snapmig: {shm}/x: Input/output error\n")
    assert list(shm.iterdir()) == []


@pytest.mark.parametrize(("verb", "syncs"), [("save", 2), ("restore", 1)])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_a_sync_that_fails(cli, shm, image, snapshot, monkeypatch, verb, syncs, number):
    """A file that may not have reached the disk does not get its name: every sync counts."""
    arguments = {"save": ("save", image, shm / "x"), "restore": ("restore", snapshot, shm / "x")}
    for count in range(1, syncs + 1):
        monkeypatch.setattr(os, "fsync", _failing(os.fsync, number, count))
        outcome = cli(*arguments[verb])
        monkeypatch.undo()

        outcome.fails(1, start=f"snapmig: {shm}/x: ")
        assert list(shm.iterdir()) == []


def test_a_sync_in_place_that_fails(cli, shm, snapshot, monkeypatch):
    """In place a failed sync names the image."""
    ram.write(shm / "r", bytes(16 * MIB))
    monkeypatch.setattr(os, "fsync", _failing(os.fsync, errno.EIO, 1))
    outcome = cli("restore", "--in-place", snapshot, shm / "r")

    outcome.fails(1, f"{shm}/r")


def test_in_place_every_failure_says_what_it_left(cli, shm, snapshot, monkeypatch):
    """An error of the disk in place says that the image is partly restored."""
    ram.write(shm / "r", bytes(16 * MIB))
    monkeypatch.setattr(os, "pwrite", _failing(os.pwrite, errno.EIO, 3))
    outcome = cli("restore", "--in-place", snapshot, shm / "r")

    outcome.fails(1, f"{shm}/r is only partly restored now")


def test_memory_that_is_sealed_is_named(cli, shm):
    """Sealed memory is an error with its path, also for zeros."""
    fcntl = pytest.importorskip("fcntl")
    snapmig.save(ram.write(shm / "a", bytes(MIB)), shm / "s")
    fd = os.memfd_create("guest", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, MIB)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    outcome = cli("restore", "--in-place", shm / "s", f"/proc/{os.getpid()}/fd/{fd}")
    os.close(fd)

    outcome.fails(1, f"/proc/{os.getpid()}/fd/{fd}: ")


def test_a_snapshot_that_appears_meanwhile_is_kept(shm, image):
    """Someone else's file of the same name is not overwritten without force."""
    with pytest.raises(snapmig.DestinationExistsError):
        snapmig.save(image, shm / "s", progress=lambda _: (shm / "s").write_bytes(b"theirs"))

    assert [(path.name, path.read_bytes()) for path in shm.iterdir()] == [("s", b"theirs")]


@pytest.mark.parametrize("verb", ["save", "restore"])
def test_a_failed_run_with_force_keeps_the_old_file(cli, shm, image, snapshot, monkeypatch, verb):
    """The old file keeps its name if its replacement fails."""
    arguments = {"save": ("save", image, shm / "x"), "restore": ("restore", snapshot, shm / "x")}
    (shm / "x").write_bytes(b"old")
    monkeypatch.setattr(os, "pwrite", _failing(os.pwrite, errno.ENOSPC, 3))
    cli(*arguments[verb], "-f")

    assert [(path.name, path.read_bytes()) for path in shm.iterdir()] == [("x", b"old")]


def test_a_snapshot_without_its_commit_is_none(shm, image, monkeypatch):
    """Files before the commit record are never taken for a snapshot."""
    kept = []

    def keep(self):
        kept.append(self.partial_path.read_bytes())

    monkeypatch.setattr(PartialFile, "sync", keep)
    snapmig.save(image, shm / "s")
    ram.write(shm / "torn", kept[0])

    assert snapmig.verify(shm / "torn").problems == (
        f"{shm}/torn: not a snapshot: file starts with zeros (a save that did not finish?), "
        "expected 93 53 4e 41 50 4d 49 47",
    )


def test_no_worker_is_left_after_failures(cli, shm, image, monkeypatch):
    """Failed writes leave no process behind."""
    monkeypatch.setattr(os, "pwrite", _failing(os.pwrite, errno.ENOSPC, 3))
    cli("save", image, shm / "s", "-j", 4)

    assert multiprocess.active_children() == []
