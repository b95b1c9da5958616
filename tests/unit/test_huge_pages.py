"""Facts about the size of the pages behind another process's memory."""

import os
import subprocess
from pathlib import Path

import pytest

from snapmig.system import huge_pages
from tests.support.requirements import requires

MIB = 1 << 20


def test_usual() -> None:
    """The kernel's usual huge pages have the size that it tells."""
    assert huge_pages.usual() in (2 * MIB, 32 * MIB, 512 * MIB, 1024 * MIB)


def test_a_file_of_ordinary_pages(tmp_path: Path) -> None:
    """A path elsewhere, or of nothing, says nothing of huge pages."""
    found = [huge_pages.named_by(os.getpid(), str(path)) for path in (tmp_path, tmp_path / "none")]
    assert found == [None, None]


@pytest.mark.root
def test_the_other_process_sees_other_files(tmp_path: Path) -> None:
    """A path is the other process's, who may see a filesystem that we do not."""
    requires("unshare")
    script = f"mount -t hugetlbfs -o pagesize=2M huge {tmp_path} && echo mounted && exec cat"
    command = ["unshare", "--mount", "sh", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        found = [huge_pages.named_by(pid, str(tmp_path)) for pid in (other.pid, None)]
        other.communicate()
    assert found == [2 * MIB, None]
