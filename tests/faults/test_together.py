"""Facts about files committed together: none is left alone, none beside another's."""

import errno
import os
import signal

import pytest

import snapmig
from snapmig.system import partial
from snapmig.system.partial import PartialFile, fill_file
from snapmig.system.together import commit_together
from tests.support.firecracker import memory, vmstate

MIB = 1 << 20
CALLS = ("link", "rename", "replace", "unlink", "fsync")
NAMES = ("mem.vmstate", "mem")
OLD = {name: f"old {name}".encode() for name in NAMES}
NEW = {name: f"new {name}".encode() for name in NAMES}
STEPS = range(1, 30)
"""More than there are."""


def at_step(monkeypatch, number, end, *, after):
    """Make the n-th of the calls that change a folder fail; return the number of calls."""
    done = []

    def patched(call):
        def step(*arguments, **options):
            done.append(1)
            if len(done) != number:
                return call(*arguments, **options)
            if after:
                call(*arguments, **options)
            return end()

        return step

    for name in CALLS:
        monkeypatch.setattr(os, name, patched(getattr(os, name)))
    monkeypatch.setattr(partial, "rename_new", patched(partial.rename_new))
    return done


def commit(folder, *, force):
    """Give new files their names."""
    with PartialFile(folder / NAMES[0], 9) as first, PartialFile(folder / NAMES[1], 9) as last:
        for file in (first, last):
            fill_file(file, NEW[file.path.name])
        commit_together([first, last], force=force)


def found(folder):
    """Return the files under the final names."""
    return {name: (folder / name).read_bytes() for name in NAMES if (folder / name).exists()}


def written(folder, contents):
    """Write files."""
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def fails():
    """Fail as a disk does."""
    raise OSError(errno.EIO, "Input/output error")


before_and_after = pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
over_old_ones = pytest.mark.parametrize("old", [{}, OLD], ids=["new", "over old ones"])


@before_and_after
@over_old_ones
def test_a_step_that_fails(tmp_path, old, after):
    """Whichever step fails, all files are old or all are new, and nothing else is left."""
    ends = []
    for number in STEPS:
        folder = tmp_path / str(number)
        folder.mkdir()
        written(folder, old)
        with pytest.MonkeyPatch.context() as patch:
            done = at_step(patch, number, fails, after=after)
            try:
                commit(folder, force=bool(old))
            except OSError:
                expected = old
            else:
                expected = NEW
        there = found(folder)
        # A failure after the last name was given changes nothing: the new files stay.
        ends.append(there in (expected, NEW))
        if len(done) < number:
            break
    assert (all(ends), len(ends) > 5) == (True, True)


@before_and_after
@over_old_ones
def test_killed_at_a_step(tmp_path, old, after):
    """Killed at any step, the last file is there with its complete set, or is not."""
    torn, deaths = [], 0
    for number in STEPS:
        folder = tmp_path / str(number)
        folder.mkdir()
        written(folder, old)
        pid = os.fork()
        if not pid:
            with pytest.MonkeyPatch.context() as patch:
                at_step(patch, number, lambda: os.kill(os.getpid(), signal.SIGKILL), after=after)
                commit(folder, force=bool(old))
            os._exit(0)
        deaths += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        there = found(folder)
        if there not in ({}, old, NEW) and NAMES[1] in there:
            torn.append((number, there))
    assert (torn, deaths > 5) == ([], True)


def test_what_someone_else_made_meanwhile_is_kept(tmp_path):
    """A file that appears under the name at the last moment stays, alone."""
    (tmp_path / NAMES[1]).write_bytes(b"theirs")
    with pytest.raises(snapmig.DestinationExistsError):
        commit(tmp_path, force=False)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [
        (NAMES[1], b"theirs")
    ]


@pytest.fixture
def snapshot(shm):
    """Give the snapshot of a microVM."""
    (shm / "vm").mkdir()
    (shm / "vm" / "mem.vmstate").write_bytes(vmstate())
    memory(shm / "vm" / "mem", 4 * MIB, {0: b"x" * MIB})
    snapmig.save(shm / "vm" / "mem", shm / "snap", jobs=1)
    return shm / "snap"


@pytest.mark.parametrize("old", [{}, OLD], ids=["new", "over old ones"])
def test_a_restore_of_a_microvm_that_fails_at_its_end(cli, shm, snapshot, monkeypatch, old):
    """A restore that can't name its memory leaves the old files."""
    (shm / "out").mkdir()
    written(shm / "out", old)

    def refuse(source, target):
        if str(target) == str(shm / "out" / "mem"):
            fails()
        return rename_new(source, target)

    rename_new = partial.rename_new
    monkeypatch.setattr(partial, "rename_new", refuse)
    outcome = cli("restore", snapshot, shm / "out" / "mem", *(["-f"] if old else []))
    left = {path.name: path.read_bytes() for path in (shm / "out").iterdir()}
    outcome.fails(1)
    assert left == old


def test_a_restore_of_a_microvm_without_room_for_its_state(cli, shm, snapshot, monkeypatch):
    """A restore without room for its state leaves the old pair."""
    (shm / "out").mkdir()
    written(shm / "out", OLD)
    pwrite = os.pwrite

    def full(fd, data, offset):
        if os.readlink(f"/proc/self/fd/{fd}").startswith(str(shm / "out" / ".mem.vmstate")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    outcome = cli("restore", "-f", snapshot, shm / "out" / "mem")
    left = {path.name: path.read_bytes() for path in (shm / "out").iterdir()}
    outcome.fails(1, "no space left")
    assert left == OLD
