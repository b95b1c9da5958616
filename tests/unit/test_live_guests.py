"""Facts about guests that can't be migrated while they run."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapmig.guests.guest import Guest
from tests.support.guests.fake_monitor import FakeMonitor


@pytest.mark.parametrize(
    ("major", "minor", "kvm", "is_refused"),
    [(7, 2, False, True), (7, 2, True, False), (8, 0, False, False), (10, 0, False, False)],
)
def test_an_old_emulated_guest(
    shm: Path, major: int, minor: int, kvm: bool, is_refused: bool
) -> None:
    """QEMU 7.2 misses writes of a guest that it emulates, and only of such a guest."""
    version = {"qemu": {"major": major, "minor": minor, "micro": 3}, "package": ""}
    answers = {"query_version": version, "query_kvm": {"enabled": kvm, "present": True}}
    (shm / "ram").write_bytes(b"data" * 4096)
    with (
        FakeMonitor(shm / "qmp", shm / "ram", **answers) as monitor,
        Guest(str(monitor.path)) as guest,
    ):
        problem = guest.live_problem
    assert (problem is not None and "misses writes" in problem) == is_refused
