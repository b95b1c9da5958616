"""Facts about guests of other hypervisors served out of object storage."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import snapmig
from tests.support.vmm.processes import Handler, Vmm

pytestmark = [pytest.mark.root, pytest.mark.sweep]


@pytest.mark.usefixtures("store")
def test_page_faults_are_answered_out_of_a_bucket(guest: Path, url: str, tmp_path: Path) -> None:
    """Every page of a guest whose snapshot is an object is right."""
    snapmig.save(guest, url, jobs=2)
    service = Handler.start(tmp_path / "s", url, "--once", env=dict(os.environ))
    vmm = Vmm({"reference": str(guest), "socket": str(service.socket)})
    try:
        found = vmm.result()
        service.end().ends(0, "has ended")
    finally:
        vmm.process.kill()
        vmm.process.communicate()
        service.process.kill()

    assert found["wrong"] == 0
