"""Facts about whose files are taken for a guest's memory; the process behind a monitor is ours."""

import ctypes
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from snapmig.errors import SnapmigError
from snapmig.guests.backing import open_backings
from snapmig.guests.memory import GuestMemory
from snapmig.guests.monitor import Peer
from tests.support import program
from tests.support.guests.fake_monitor import FakeMonitor
from tests.support.outcome import Outcome
from tests.support.requirements import requires

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64)
libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)

SIZE = 64 << 10
US = Peer(os.getpid(), os.geteuid())
HIDDEN = Peer(0, os.geteuid())
"""A process of which /proc shows nothing."""


@contextmanager
def map_shared(fd: int) -> Iterator[None]:
    """Have a file mapped without a descriptor besides; Python's own mappings keep one."""
    place = libc.mmap(None, SIZE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
    try:
        yield
    finally:
        libc.munmap(place, SIZE)


@contextmanager
def mapped(path: Path, rights: int = mmap.PROT_READ | mmap.PROT_WRITE) -> Iterator[None]:
    """Have a file open for reading and writing, and mapped, inside."""
    fd = os.open(path, os.O_RDWR)
    try:
        with mmap.mmap(fd, 0, prot=rights):
            yield
    finally:
        os.close(fd)


def backend(path: Path | str | None, offset: int = 0, size: int = SIZE) -> GuestMemory:
    """Return a backend that is said to be in a file."""
    shown = None if path is None else str(path)
    kind = "memory-backend-memfd" if path is None else "memory-backend-file"
    return GuestMemory("ram", size, True, shown, offset, kind)


def inode(memory: GuestMemory, peer: Peer = US) -> int:
    """Return the number of the file that is opened for a backend."""
    with open_backings([memory], peer, os.O_RDONLY) as (fd,):
        return os.fstat(fd).st_ino


@pytest.fixture
def ram(shm: Path) -> Path:
    """Give a file as large as the RAM."""
    path = shm / "ram"
    path.write_bytes(b"r" * SIZE)
    return path


def test_what_the_process_has_mapped_is_its_ram(ram: Path) -> None:
    """A file that is open and mapped as QEMU does is opened."""
    with mapped(ram):
        assert inode(backend(ram)) == ram.stat().st_ino


def test_path_through_a_link(ram: Path) -> None:
    """The path that QEMU was given may lead over a symbolic link to what it has mapped."""
    (ram.parent / "link").symlink_to(ram)
    with mapped(ram):
        assert inode(backend(ram.parent / "link")) == ram.stat().st_ino


def test_relative_path(ram: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path that QEMU was given may be relative to its own directory."""
    monkeypatch.chdir(ram.parent)
    with mapped(ram):
        assert inode(backend("ram")) == ram.stat().st_ino


def test_a_file_that_is_not_open_is_refused(ram: Path) -> None:
    """A file that the process does not have open is not its RAM, whoever owns it."""
    with pytest.raises(SnapmigError, match="has 0 files of this name open and mapped as 65536"):
        inode(backend(ram))


def test_a_file_that_is_only_open_is_refused(ram: Path) -> None:
    """A file that the process has open for reading and writing, but not mapped, is not its RAM."""
    with ram.open("r+b"), pytest.raises(SnapmigError, match="has 0 files"):
        inode(backend(ram))


def test_a_file_that_is_mapped_for_reading_is_refused(ram: Path) -> None:
    """A mapping that the process can't write through is not its RAM."""
    with mapped(ram, mmap.PROT_READ), pytest.raises(SnapmigError, match="has 0 files"):
        inode(backend(ram))


def test_a_file_that_is_open_for_reading_is_refused(ram: Path) -> None:
    """A file that is mapped for writing, and open for reading only by now, is not opened."""
    fd = os.open(ram, os.O_RDWR)
    with map_shared(fd), ram.open("rb"):
        os.close(fd)
        with pytest.raises(SnapmigError, match="has 0 files"):
            inode(backend(ram))


@pytest.mark.parametrize(("offset", "size"), [(0, 2 * SIZE), (SIZE, SIZE), (4096, SIZE)])
def test_a_mapping_that_is_too_short_is_refused(ram: Path, offset: int, size: int) -> None:
    """All of the RAM must be mapped, not a part."""
    with mapped(ram), pytest.raises(SnapmigError, match="has 0 files"):
        inode(backend(ram, offset, size))


def test_memory_in_a_part_of_a_file(ram: Path) -> None:
    """RAM may be a part of what is mapped."""
    with mapped(ram):
        assert inode(backend(ram, 4096, 8192)) == ram.stat().st_ino


def test_another_file_of_the_same_name(ram: Path) -> None:
    """A file that has the name now is not taken for one that is mapped and deleted."""
    with mapped(ram):
        number = ram.stat().st_ino
        ram.unlink()
        ram.write_bytes(bytes(SIZE))
        assert inode(backend(ram)) == number


@pytest.mark.root
def test_a_process_of_another_user_than_its_socket(ram: Path) -> None:
    """A process that has the number of one that ended, and another user, is refused."""
    with mapped(ram), pytest.raises(SnapmigError, match="is of user 0, its monitor of user 1000"):
        inode(backend(ram), Peer(os.getpid(), 1000))


def test_hidden_process(ram: Path) -> None:
    """Where the process can't be looked at, a file of its user is opened by its path."""
    assert inode(backend(ram), HIDDEN) == ram.stat().st_ino


def test_hidden_process_and_a_file_of_another_user(ram: Path) -> None:
    """Where the process can't be looked at, a file of another user is refused."""
    with pytest.raises(SnapmigError, match="expected a regular file of user 12345"):
        inode(backend(ram), Peer(0, 12345))


@pytest.mark.parametrize("name", ["link", "folder/ram", "pipe", "."])
def test_hidden_process_and_no_plain_file(ram: Path, name: str) -> None:
    """Where the process can't be looked at, no link is followed and nothing but files opened."""
    (ram.parent / "link").symlink_to(ram)
    (ram.parent / "folder").symlink_to(ram.parent)
    os.mkfifo(ram.parent / "pipe")
    with pytest.raises((SnapmigError, NotADirectoryError)):
        inode(backend(f"{ram.parent}/{name}"), HIDDEN)


def test_hidden_process_and_a_file_that_is_too_short(ram: Path) -> None:
    """A file that ends before the RAM does is refused."""
    with pytest.raises(SnapmigError, match="ends at 69632 bytes of its file, which has 65536"):
        inode(backend(ram, 4096), HIDDEN)


def test_hidden_process_and_a_memfd() -> None:
    """Memory without a path can't be opened without a look at the process, an error says."""
    with pytest.raises(SnapmigError, match="this user may not look into process 0"):
        inode(backend(None), HIDDEN)


@pytest.mark.parametrize("start", [0, 4096, SIZE // 2 - 4096])
def test_backends_that_overlap_are_refused(ram: Path, start: int) -> None:
    """Two backends in the same bytes of a file are refused."""
    pair = [backend(ram, 0, SIZE // 2), backend(ram, start, SIZE // 2)]
    with (
        mapped(ram),
        pytest.raises(SnapmigError, match="overlap in their file"),
        open_backings(pair, US, os.O_RDONLY),
    ):
        pass


def test_backends_side_by_side(ram: Path) -> None:
    """Two backends in one file that only touch are opened."""
    pair = [backend(ram, 0, SIZE // 2), backend(ram, SIZE // 2, SIZE // 2)]
    with mapped(ram), open_backings(pair, US, os.O_RDONLY) as opened:
        assert len(opened) == 2


@pytest.mark.root
@pytest.mark.parametrize("verb", ["save", "restore"])
def test_a_monitor_that_names_somebody_elses_file(
    ram: Path, shm: Path, cli: Callable[..., Outcome], verb: str
) -> None:
    """A monitor that names /etc/shadow as the guest's RAM gets it neither read nor written."""
    with FakeMonitor(shm / "monitor", ram) as monitor:
        cli("save", f"qmp:{monitor.path}", shm / "sound")
    before = Path("/etc/shadow").stat().st_mtime_ns

    def answer(asked: dict[str, Any]) -> Any:
        named = {"mem-path": "/etc/shadow", "offset": 0, "type": "pc-q35-10.0-machine"}
        return named[asked["property"]]

    with FakeMonitor(shm / "other", ram, qom_get=answer) as monitor:
        monitor.status = "running" if verb == "save" else "inmigrate"
        words = {
            "save": (f"qmp:{monitor.path}", shm / "snap"),
            "restore": (shm / "sound", f"qmp:{monitor.path}"),
        }
        outcome = cli(verb, *words[verb])

    outcome.fails(1, "/etc/shadow: RAM block 'ram': process", lines=1)
    assert not (shm / "snap").exists()
    assert Path("/etc/shadow").stat().st_mtime_ns == before


MEMFD = {
    "qom_list": [{"name": "ram", "type": "child<memory-backend-memfd>"}],
    "hugetlb": True,
    "hugetlbsize": 0,
}
NONSENSE: dict[str, dict[str, Any]] = {
    "negative size": {"query_memdev": [{"id": "ram", "size": -4096, "share": True}]},
    "no size": {"query_memdev": [{"id": "ram", "size": 0, "share": True}]},
    "odd size": {"query_memdev": [{"id": "ram", "size": 4097, "share": True}]},
    "huge size": {"query_memdev": [{"id": "ram", "size": 1 << 62, "share": True}]},
    "size in words": {"query_memdev": [{"id": "ram", "size": "large", "share": True}]},
    "size that is a truth value": {"query_memdev": [{"id": "ram", "size": True, "share": True}]},
    "two of a name": {"query_memdev": [{"id": "ram", "size": SIZE, "share": True}] * 2},
    "negative offset": {"offset": -4096},
    "odd offset": {"offset": 1},
    "offset in words": {"offset": "start"},
    "path that is a number": {"mem-path": 1},
    "path with a zero": {"mem-path": "/dev/shm/ram\0"},
    "odd huge pages": MEMFD | {"hugetlbsize": 4097},
    "huge pages of no power of two": MEMFD | {"hugetlbsize": 3 << 20},
    "negative huge pages": MEMFD | {"hugetlbsize": -4096},
    "huge huge pages": MEMFD | {"hugetlbsize": 1 << 62},
    "huge pages that are a number": MEMFD | {"hugetlb": 1},
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_of_a_monitor(
    ram: Path, shm: Path, cli: Callable[..., Outcome], kind: str
) -> None:
    """Memory that can't be is refused in one sentence, before the guest is stopped."""
    answers = {
        key: NONSENSE[kind][key] for key in ("query_memdev", "qom_list") & NONSENSE[kind].keys()
    }

    def answer(asked: dict[str, Any]) -> Any:
        usual = {"mem-path": str(ram), "offset": 0, "type": "pc-q35-10.0-machine"}
        return {**usual, **NONSENSE[kind]}[asked["property"]]

    with FakeMonitor(shm / "monitor", ram, qom_get=answer, **answers) as monitor:
        outcome = cli("save", f"qmp:{monitor.path}", shm / "snap")
        asked_for = monitor.names

    outcome.fails(1, out="", lines=1)
    assert "bug" not in outcome.err
    assert "migrate" not in asked_for


@pytest.mark.root
@pytest.mark.parametrize("owner", [0, 12345])
def test_from_another_namespace_of_processes(ram: Path, shm: Path, owner: int) -> None:
    """From a container that does not see QEMU's process only its user's own files are saved."""
    requires("unshare")
    os.chown(ram, owner, owner)
    with FakeMonitor(shm / "monitor", ram) as monitor:
        apart = ["unshare", "--pid", "--fork", "--mount-proc", "--"]
        command = [*apart, sys.executable, "-m", "snapmig", "save", f"qmp:{monitor.path}"]
        done = program.call([*command, shm / "snap"])
    if owner == 0:
        done.ok(err=None)
    else:
        done.fails(1, "expected a regular file of user 0, who runs the")


def test_no_command_is_made_up(
    ram: Path, shm: Path, cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the command line of the saved QEMU none is shown, and what to do is."""
    monkeypatch.setattr("snapmig.guests.guest._command_line", lambda _pid: ())
    with FakeMonitor(shm / "monitor", ram) as monitor:
        cli("save", f"qmp:{monitor.path}", shm / "snap")
    outcome = cli("restore", "--for-qemu", shm / "snap", shm / "new")
    outcome.fails(2, "restore to qmp:SOCKET")
    assert not (shm / "new").exists()
