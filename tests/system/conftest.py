"""Places where a guest's RAM may be."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import filesystems


@pytest.fixture
def hugetlbfs(tmp_path: Path) -> Iterator[Path]:
    """Give a mounted hugetlbfs with 24 huge pages of 2 MiB to take."""
    with (
        filesystems.huge_pages(24),
        filesystems.mounted("hugetlbfs", tmp_path / "huge", "pagesize=2M") as place,
    ):
        yield place


@pytest.fixture
def ramfs(tmp_path: Path) -> Iterator[Path]:
    """Give a mounted ramfs, which knows no holes and punches none."""
    with filesystems.mounted("ramfs", tmp_path / "ramfs") as place:
        yield place


@pytest.fixture
def place_image(
    request: pytest.FixtureRequest, tmp_path: Path, shm: Path
) -> Iterator[Callable[[str, bytes], Path]]:
    """Give a function that puts bytes into a file of a kind and returns its path."""
    with ExitStack() as stack:

        def place(kind: str, content: bytes) -> Path:
            if kind == "memfd":
                return stack.enter_context(filesystems.memfd(content))
            if kind == "deleted":
                return stack.enter_context(filesystems.deleted(tmp_path / "gone", content))
            if kind == "hugetlbfs":
                return _huge_file(request.getfixturevalue("hugetlbfs") / "image", content)
            places = {"disk": tmp_path, "memory": shm}
            directory = places.get(kind) or request.getfixturevalue(kind)
            (directory / "image").write_bytes(content)
            return directory / "image"

        yield place


def _huge_file(path: Path, content: bytes) -> Path:
    # hugetlbfs has no write(2).
    with path.open("w+b") as file:
        file.truncate(len(content))
        with mmap.mmap(file.fileno(), len(content)) as view:
            view[:] = content
    return path
