"""Fixtures for tests with tiny guests: the program of QEMU, and the limits of its version."""

import pytest

from tests.qemu.versions import require_qemu
from tests.support.guests.qemu import OLDEST, PROGRAM, find_qemu
from tests.support.guests.tiny import guest as tiny
from tests.support.requirements import requires


@pytest.fixture(scope="session")
def program() -> str:
    """Give the program of QEMU, if it can run guests."""
    found = find_qemu()
    for tool in (found.path or PROGRAM, *tiny.TOOLS):
        requires(tool)
    if found.path is None:
        requires(f"{PROGRAM} {OLDEST} or newer")  # which is no program's name: never there
    return str(found.path)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Make the mark ``qemu`` require the version it names."""
    for mark in item.iter_markers("qemu"):
        require_qemu(*mark.args)
