"""Pages of the host's memory: how large those behind another process's memory are."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from snapmig.system.libc import huge_page_size

__all__ = ("named_by", "usual")


def usual() -> int:
    """
    Return the size in bytes of huge pages of which nobody named a size.

    :raises OSError: the kernel has none
    """
    for line in Path("/proc/meminfo").read_text("utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == "Hugepagesize":
            return int(value.split()[0]) << 10
    raise OSError("/proc/meminfo has no Hugepagesize")


def named_by(pid: int | None, path: str) -> int | None:
    """
    Return the page size in bytes of a file on hugetlbfs that a process named, None for others.

    :param pid: of the process, whose view of files may be another; None if it is hidden
    """
    root = "root" if path.startswith("/") else "cwd"
    seen = [] if pid is None else [f"/proc/{pid}/{root}/{path}"]
    for place in [*seen, path]:
        with suppress(OSError):
            return huge_page_size(place)
    return None
