"""Facts about QEMU's and libvirt's own files that are saved, and sent into a waiting QEMU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import snapmig
from tests.support.guests.resume import LAYOUT, make_monitored
from tests.support.guests.saves import PRIVATE, Saved
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.versions import require_qemu
from tests.support.sweep import sweep

pytestmark = pytest.mark.guest

FORMATS = ("mapped-ram", "qemu-stream", "libvirt")
WAYS: dict[str, dict[str, Any]] = {
    "pages": {"via": "multifd"},
    "frames": {"via": "multifd", "wire": "zstd"},
    "postcopy": {"postcopy": True},
}
TRIED = [(name, way) for name in FORMATS for way in WAYS]
ESSENTIAL = [("libvirt", "postcopy"), ("mapped-ram", "frames")]


@pytest.mark.parametrize(("name", "way"), sweep(TRIED, lambda tried: tried in ESSENTIAL))
def test_an_image_comes_back(
    saved: Callable[[str], Saved], program: str, shm: Path, name: str, way: str
) -> None:
    """A guest continues from the state in the file, with every page right."""
    if name == "mapped-ram":
        require_qemu("9.0")
    found = saved("multifd")
    (shm / "xml").write_bytes(b"<domain type='qemu'/>\n")
    xml = {"domain_xml": shm / "xml"} if name == "libvirt" else {}
    snapmig.restore(found.path, shm / "image", format=name, jobs=2, **xml)
    snapmig.save(shm / "image", shm / "snap", jobs=2, compression="zstd")
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        snapmig.restore(shm / "snap", guest.monitor, jobs=2, **WAYS[way])
        counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, found.state, LAYOUT)
