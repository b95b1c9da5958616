"""Fixtures for tests with tiny guests: the program of QEMU, and the limits of its version."""

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.support.guests.qemu import rest_all
from tests.support.guests.saves import Saved, saves
from tests.support.guests.versions import require_program, require_qemu


@pytest.fixture(scope="session")
def program() -> str:
    """Give the program of QEMU, where it can run guests."""
    return require_program()


@pytest.fixture(scope="module")
def saved(program: str, shared_shm: Path) -> Iterator[Callable[[str], Saved]]:
    """Give a function that saves a running guest in some way, once."""
    with saves(program, shared_shm) as save:
        yield save


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Make the mark ``qemu`` require the version it names."""
    for mark in item.iter_markers("qemu"):
        require_qemu(*mark.args)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None]:
    """Let the guests that stay for later tests take no processor until one of those uses them."""
    yield
    rest_all()
