"""What tests with tiny guests share: the program of QEMU."""

import pytest

from tests.conftest import requires
from tests.guests.qemu import OLDEST, PROGRAM, find_qemu
from tests.guests.tiny import guest as tiny


@pytest.fixture(scope="session")
def program() -> str:
    """Give the program of QEMU, where it can run guests."""
    for tool in (PROGRAM, *tiny.TOOLS):
        requires(tool)
    path = find_qemu().path
    if path is None:
        requires(f"{PROGRAM} {OLDEST} or newer")  # which is no program's name: never there
    return str(path)
