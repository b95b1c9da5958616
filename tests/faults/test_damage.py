"""
Facts about every kind of damage: it is noticed and named, and no wrong byte passes for a good one.

`make test-faults` tries each byte and sector in turn; otherwise a few are drawn, always the same.
"""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

import snapmig
from snapmig.operations.runs.read import Reading
from tests.support import ram
from tests.support.damage.judge import HARMLESS, NAMED, TOLD, Judge, run_here
from tests.support.damage.mutations import KINDS, Subject

ALL = os.environ.get("SNAPMIG_ALL_FAULTS") == "1"
"""Set by ``make test-faults``."""
STEP = 1 if ALL else 61
pytestmark = pytest.mark.timeout(600 if ALL else 120)  # thousands of damages each
SEED = 20261129
PACKET = 64 << 10
CONTENT = ram.mixed(4 * PACKET - 3000, 5)
OLDER = ram.mixed(4 * PACKET - 3000, 6)
ATTACHED = {"state": ram.text(1).tobytes()[:1500], "note": b"x"}
FORMS: dict[str, dict[str, Any]] = {
    "zlib": {"page_digests": True, "attach": ATTACHED, "address": ["ram=0", "ram@128K=4G"]},
    "raw": {"compression": "none", "attach": ATTACHED},
    "zstd": {"compression": "zstd", "layout": "packed"},
    "lz4": {"compression": "lz4", "layout": "packed", "page_digests": True},
}
CHAINS = ("child", "parent")


Made = tuple[Path, Path, bytes, Path]
"""The file to damage, the snapshot to read, its contents, and an older state of the file."""


@pytest.fixture(autouse=True)
def _no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all work done here: processes would take most of the time."""
    monkeypatch.setattr(Reading, "run", run_here)


def save(folder: Path, name: str, content: bytes, **options: Any) -> Path:
    """Save contents, without page digests unless told otherwise, and return the snapshot."""
    image = ram.write(folder / "ram", content)
    words = {"page_digests": False, "packet_size": PACKET, **options}
    snapmig.save(image, folder / name, jobs=1, format="raw", **words)
    return folder / name


def changed(content: bytes) -> bytes:
    """Return contents with small and large differences in every other packet."""
    pages = np.frombuffer(content.ljust(-(-len(content) // 4096) * 4096, b"\0"), np.uint8).copy()
    for packet in range(0, -(-len(content) // PACKET), 2):
        start = packet * PACKET
        pages[start + 100 : start + 200] ^= 0x55
        pages[start + 8192 : start + 12288] = ram.noise(1, packet + 1).reshape(-1)
    return pages[: len(content)].tobytes()


def form_case(folder: Path, form: str) -> Made:
    """Make a snapshot by itself."""
    path = save(folder, "s", CONTENT, **FORMS[form])
    return path, path, CONTENT, save(folder, "older", OLDER, **FORMS[form])


def chain_case(folder: Path, member: str) -> Made:
    """Make a chain of two."""
    parent = save(folder, "parent", CONTENT)
    young = changed(CONTENT)
    child = save(folder, "child", young, parent=parent)
    if member == "child":
        return child, child, young, save(folder, "older", changed(young), parent=parent)
    return parent, child, young, save(folder, "older", OLDER)


@pytest.fixture(scope="module", params=[*FORMS, *CHAINS])
def made(request: pytest.FixtureRequest, shared_shm: Path) -> tuple[str, Made]:
    """Give each form of a snapshot in turn, made once."""
    form = request.param
    folder = shared_shm / form
    folder.mkdir()
    return form, (chain_case if form in CHAINS else form_case)(folder, form)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_noticed(made: tuple[str, Made], kind: str) -> None:
    """Each is told by verify and by restore, or is in bytes that nobody uses."""
    form, (path, snapshot, content, old) = made
    subject = Subject(
        path.read_bytes(),
        old.read_bytes(),
        Random(f"{SEED} {form} {kind}"),
        STEP,
        1 if form == "zlib" else 16,
    )
    judge = Judge(path, snapshot, content, subject.regions)
    for mutation in KINDS[kind](subject):
        judge.try_one(mutation)

    counts = judge.counts
    told = counts[NAMED] + counts[TOLD]
    print(
        f"damage: {form}, {kind}: {told} of {told} noticed, {counts[NAMED]} of them named by "
        f"packet and address; {counts[HARMLESS]} in unused bytes"
    )
    assert told > 0
