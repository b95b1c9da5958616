"""The QEMU that tests run, and the versions that they need for what an older one can't do."""

import os
from collections.abc import Iterable

import pytest

from tests.support.guests.qemu import OLDEST, PROGRAM, find_qemu
from tests.support.guests.tiny import guest as tiny
from tests.support.requirements import lacks, requires

MAPPED_RAM = "9.0"
"""The migration capability."""
FILE = "8.2"
"""``file:`` as a place to migrate to, and RAM that is mapped read-only out of a file."""

needs_mapped_ram = pytest.mark.qemu(MAPPED_RAM)
needs_file = pytest.mark.qemu(FILE)


def require_program() -> str:
    """Return the program of QEMU; a test that runs tiny guests skips without it."""
    found = find_qemu()
    for tool in (found.path or PROGRAM, *tiny.TOOLS):
        requires(tool)
    if found.path is None:
        requires(f"{PROGRAM} {OLDEST} or newer")  # which is no program's name: never there
    return str(found.path)


def require_qemu(oldest: str) -> None:
    """
    Skip a test that needs a newer QEMU.

    If SNAPMIG_TEST_QEMU chose the program it skips even if SNAPMIG_REQUIRE_TOOLS=1.
    """
    version = find_qemu().version
    if not version or _numbers(version) >= _numbers(oldest):
        return
    if "SNAPMIG_TEST_QEMU" in os.environ:
        pytest.skip(f"needs QEMU {oldest}, this is {version}")
    lacks(f"QEMU {oldest}")


def require_capabilities(names: Iterable[str]) -> None:
    """Skip a test that needs a newer QEMU for a migration capability."""
    if "mapped-ram" in names:
        require_qemu(MAPPED_RAM)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
