"""Fixtures for tests with tiny guests: the program of QEMU, and the limits of its version."""

import pytest

from tests.support.guests.versions import require_program, require_qemu


@pytest.fixture(scope="session")
def program() -> str:
    """Give the program of QEMU, where it can run guests."""
    return require_program()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Make the mark ``qemu`` require the version it names."""
    for mark in item.iter_markers("qemu"):
        require_qemu(*mark.args)
