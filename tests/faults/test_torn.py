"""Facts about images with a guest writing to them, through a mapping, while they are saved."""

from __future__ import annotations

import mmap
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import multiprocess
import numpy as np
import pytest

import snapmig
from tests.support import processes, ram
from tests.support.outcome import Outcome

SIZE = 4 << 20
WAYS = {
    "plain": {},
    "digests": {"page_digests": True},
    "parent": {"parent": "bare", "deltas": False},
    "deltas": {"parent": "bare", "deltas": True},
    "parent-digests": {"parent": "digested", "page_digests": True},
    "parent-digests-deltas": {"parent": "digested", "page_digests": True, "deltas": True},
}
FORMS = [
    pytest.param({"compression": name, "layout": layout, **more}, id=f"{name}-{layout}-{way}")
    for name in ("zlib", "zstd", "lz4", "none")
    for layout in ("fixed", "packed")
    for way, more in WAYS.items()
    if way == "plain" or name == "none" or (name, layout) == ("zlib", "fixed")
]


def _scribble(path: str) -> None:
    # Stores as a guest makes them: they change no time of the file.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with Path(path).open("r+b") as file:
        pages = np.frombuffer(mmap.mmap(file.fileno(), SIZE), np.uint8).reshape(-1, ram.PAGE)
    count = 0
    while True:
        count = count % 255 + 1
        pages[:, 7::512] = count  # a little of every page, so that parts of the parent's stay


@pytest.fixture(scope="module")
def folder(shared_shm: Path) -> Iterator[Path]:
    """Give a folder with an image that is never at rest, and two of its snapshots."""
    image = ram.write(shared_shm / "a", np.concatenate([ram.text(768), ram.noise(256)]))
    snapmig.save(image, shared_shm / "bare")
    snapmig.save(image, shared_shm / "digested", page_digests=True)
    writer = multiprocess.get_context("fork").Process(target=_scribble, args=(str(image),))
    writer.daemon = True
    writer.start()
    # Its first stores do change the time, in each page once: the second ones of the last page.
    for _ in range(2):
        content = image.read_bytes()[-4096:]
        processes.wait_for(lambda content=content: image.read_bytes()[-4096:] != content)
    before = os.stat(image).st_mtime_ns
    yield shared_shm
    writer.terminate()
    writer.join()
    assert os.stat(image).st_mtime_ns == before


@pytest.mark.parametrize("form", FORMS)
def test_a_torn_snapshot_is_sound(folder, form):
    """A snapshot verifies even if its image was written to meanwhile."""
    parent = {"parent": folder / form["parent"]} if "parent" in form else {}
    # What is written to it by chance may look like text.
    options = {"format": "raw", "jobs": 1, "force": True, **form, **parent}
    result = snapmig.save(folder / "a", folder / "s", **options)
    found = snapmig.verify(folder / "s", jobs=1)

    assert (found.exit_code, found.problems) == (0, ())
    assert result.packets["empty"] < 8  # there was something to tear


def test_a_torn_snapshot_is_told_of(folder, cli):
    """Saving an image written to meanwhile ends with a warning."""

    def told() -> Outcome | None:  # who writes may get no processor while it is saved
        outcome = cli("save", "--format", "raw", folder / "a", folder / "told", "-f")
        return outcome if outcome.code else None

    outcome = processes.wait_for(told).warns()
    assert re.search("[1-8] of the 8 packets that were looked at again have changed", outcome.err)


@pytest.mark.parametrize(("packet", "torn"), [(0, 1), (1, 0), (496, 1), (511, 0)])
def test_a_sample_of_the_packets_is_looked_at_again(shm, packet, torn):
    """Of 512 packets every 16th is read again after all are saved."""
    image = ram.write(shm / "a", np.tile(ram.text(16), (512, 1)))
    with image.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    memory[packet << 16] ^= 0  # a first store changes the time of the file

    def store(seen: snapmig.Progress) -> None:
        if seen.done_bytes == 512 << 16:
            memory[packet << 16] = 255

    result = snapmig.save(image, shm / "s", compression="lz4", packet_size="64K", progress=store)

    assert (result.torn_packets, len(result.warnings)) == (torn, torn)


def test_the_image_is_not_told_of_when_it_rests(shm, cli):
    """An image at rest gives no warning."""
    ram.write(shm / "a", ram.mixed(SIZE))

    cli("save", shm / "a", shm / "s").ok()
