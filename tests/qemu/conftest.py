"""What tests with tiny guests share: the program of QEMU, and what its version can do."""

import pytest

from tests.support.guests.versions import require_program, require_qemu


@pytest.fixture(scope="session")
def program() -> str:
    """Give the program of QEMU, where it can run guests."""
    return require_program()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Have the mark ``qemu`` require the version that it names."""
    for mark in item.iter_markers("qemu"):
        require_qemu(*mark.args)
