"""Facts about the system calls that Python does not offer."""

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from snapmig.system import libc
from tests.support import program, ram
from tests.support.requirements import requires

MIB = 1 << 20


@pytest.fixture(params=["disk", "memory"])
def full(request, tmp_path, shm):
    """Give a path of 1 MiB of noise."""
    place = {"disk": tmp_path, "memory": shm}[request.param]
    return ram.write(place / "full", ram.noise(256))


def test_a_place_in_memory_is_known(shm):
    """Shared memory is in memory; other filesystems are not."""
    assert (libc.is_in_memory(str(shm)), libc.is_in_memory("/proc")) == (True, False)


def test_a_punched_hole_is_zero(full):
    """A punched range reads as zeros, and nothing else does."""
    before = full.read_bytes()
    with full.open("r+b") as file:
        libc.punch_hole(file.fileno(), 4096, 8192)

    assert before[:4096] + bytes(8192) + before[12288:] == full.read_bytes()


def test_punching_says_that_it_worked(full):
    """The answer is true where a hole was punched."""
    with full.open("r+b") as file:
        assert libc.punch_hole(file.fileno(), 0, 4096)


def test_a_punched_hole_takes_no_space(shm):
    """The pages of a hole are given back."""
    full = ram.write(shm / "full", ram.noise(256))
    with full.open("r+b") as file:
        libc.punch_hole(file.fileno(), 0, 512 << 10)

    assert ram.disk_bytes(full) == 512 << 10


def test_a_hole_does_not_change_the_length(full):
    """A hole past the end adds nothing."""
    with full.open("r+b") as file:
        libc.punch_hole(file.fileno(), MIB - 4096, 8192)

    assert full.stat().st_size == MIB


def test_punching_what_is_no_file_is_an_error():
    """A failure that is not "can't be done here" is raised."""
    reader, writer = os.pipe()
    with pytest.raises(OSError, match="Illegal seek"):
        libc.punch_hole(writer, 0, 4096)
    os.close(reader)
    os.close(writer)


def test_punching_a_file_that_is_not_open_for_writing_is_an_error(full):
    """A descriptor that only reads can't punch."""
    with full.open("rb") as file, pytest.raises(OSError, match="Bad file descriptor"):
        libc.punch_hole(file.fileno(), 0, 4096)


def test_other_files_have_no_huge_pages(full):
    """Only a file on hugetlbfs has a huge page size."""
    assert libc.huge_page_size(str(full)) is None


def test_asking_for_the_huge_page_size_of_nothing_is_an_error(tmp_path):
    """A missing file is an error with its path."""
    with pytest.raises(FileNotFoundError) as caught:
        libc.huge_page_size(str(tmp_path / "none"))

    assert caught.value.filename == str(tmp_path / "none")


def test_writeback_of_a_bad_descriptor_is_no_error():
    """A hint that is refused is not a failure."""
    assert libc.start_writeback(-1, 0, 4096) is None


KEPT_MEMORY = """\
import resource
from snapmig.system.libc import keep_freed_memory
keep_freed_memory(8 << 20, 32 << 20)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
take = lambda: [b"x" * (512 << 10) for _ in range(8)]
take()
before = faults()
for _ in range(10):
    take()
print(faults() - before)
"""


def test_freed_memory_is_used_again():
    """Buffers of 4 MiB in all, taken ten times, are not 10,240 pages that the kernel must give."""
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("this C library has no mallopt")
    command = [sys.executable, "-c", KEPT_MEMORY]

    assert int(subprocess.run(command, capture_output=True, check=True).stdout) < 100


IO_PRIORITY = """\
import sys
from types import SimpleNamespace
from snapmig.system.libc import set_io_priority
set_io_priority(sys.argv[1], int(sys.argv[2]))
import os
os.execvp("ionice", ["ionice", "-p", str(os.getpid())])
"""


@pytest.mark.parametrize(
    ("name", "level", "expected"),
    [("idle", 4, "idle"), ("best-effort", 7, "best-effort: prio 7")],
)
def test_an_io_priority_is_what_ionice_sees(name, level, expected):
    """The class and level that were set are those that another program reads."""
    requires("ionice")
    command = [sys.executable, "-c", IO_PRIORITY, name, str(level)]

    assert program.call(command).out.strip() == expected


def test_an_unknown_architecture_is_an_error(monkeypatch):
    """Where the call's number is not known, nothing else is called in its place."""
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(machine="pdp11"))
    with pytest.raises(OSError, match="Function not implemented"):
        libc.set_io_priority("idle", 0)
