"""Memory images of one guest under a steady load, made once for each size and kept."""

import hashlib
import json
import random
import tempfile
import time
import zipfile
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench import chain_load
from tests.bench.codecs import PACKET, PAGE
from tests.bench.rounds import say
from tests.bench.runner import SHARED_MEMORY, require_room
from tests.support.guests import kernel, linux
from tests.support.guests.image import read_pieces, write_image
from tests.support.guests.qemu import Guest, GuestConfig, Qemu

START_SECONDS = 300
SECONDS_PER_GIB = 300
STEP_PATIENCE_S = 120
STEPS = (5, 6, 11, 16)
"""After which steps of the load an image is taken: a second and five seconds of a batch job, and
five of random access, since the one before."""
LOAD = Path(chain_load.__file__)
PACKET_PAGES = PACKET // PAGE


@dataclass(frozen=True)
class Change:
    """
    The differences of an image from the one before it.

    :param seconds: that the guest ran in between
    :param data_pages: pages that are not zero in the newer one, in ``data_packets``
    :param changed_pages: pages that are not the same, in ``changed_packets``
    """

    seconds: float
    data_pages: int
    data_packets: int
    changed_pages: int
    changed_packets: int

    @property
    def share(self) -> float:
        """Changed pages by pages that are not zero."""
        return self.changed_pages / max(1, self.data_pages)

    @property
    def packet_share(self) -> float:
        """Packets with a changed page by packets with a page that is not zero."""
        return self.changed_packets / max(1, self.data_packets)


@dataclass(frozen=True)
class Series:
    """
    Images, the oldest first.

    :param changes: one for each image after the first
    """

    name: str
    images: tuple[Path, ...]
    changes: tuple[Change, ...]
    facts: dict[str, Any]


def guest_series(qemu: Qemu, ram: int, cache: Path) -> Series:
    """
    Return images of a Linux guest under the load, from the cache where they are there.

    :raises GuestError: the guest did not start, or did not do its work in time
    :raises ValueError: there is too little shared memory for the guest
    """
    recipe = hashlib.sha256(f"{linux.recipe(ram)} {LOAD.read_text()} {STEPS}".encode()).hexdigest()
    folder = cache / f"chain-{ram >> 20}M-{recipe[:12]}-{qemu.version}"
    if not folder.is_dir():
        require_room(ram)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="making-") as name:
            new = Path(name, "new")
            new.mkdir()
            _take(qemu, ram, cache, new)
            new.rename(folder)
    return _load(folder, f"Linux guest, {ram >> 20} MiB", {"version_qemu": qemu.version})


def made_series(ram: int, folder: Path) -> Series:
    """Return three images of half text and half zeros; each differs in 5 % of its pages."""
    source = random.Random(8)
    count = ram // PAGE
    pages = np.zeros((count, PAGE), np.uint8)
    words = b"".join(b"line %d of a log\n" % source.getrandbits(40) for _ in range(count * 110))
    text = np.frombuffer(words, np.uint8)[: count // 2 * PAGE].reshape(-1, PAGE)
    pages[: len(text)] = text
    for number in range(3):
        write_image(folder / f"{number}.ram", ram, [(0, pages.tobytes())])
        first = number * len(text) // 3
        pages[first : first + len(text) // 20, 8:16] = source.getrandbits(7) + 1
    _describe(folder, [0.0] * 3)
    return _load(folder, f"made images, {ram >> 20} MiB", {})


def compare(older: Path, newer: Path) -> dict[str, int]:
    """Count pages and packets that are not zero in the newer image, and that are not the same."""
    found = dict.fromkeys(("data_pages", "data_packets", "changed_pages", "changed_packets"), 0)
    with older.open("rb") as one, newer.open("rb") as other:
        while content := other.read(PACKET):
            pages = np.frombuffer(content, np.uint8).reshape(-1, PAGE)
            before = np.frombuffer(one.read(PACKET), np.uint8).reshape(-1, PAGE)
            data = int(np.count_nonzero(pages.any(axis=1)))
            changed = int(np.count_nonzero((pages != before).any(axis=1)))
            found["data_pages"] += data
            found["data_packets"] += data > 0
            found["changed_pages"] += changed
            found["changed_packets"] += changed > 0
    return found


def _take(qemu: Qemu, ram: int, cache: Path, folder: Path) -> None:
    system = linux.prepare(ram, cache)
    patience = START_SECONDS + SECONDS_PER_GIB * ram / (1 << 30)
    say(f"starting a guest of {ram >> 20} MiB once, which takes minutes for each GiB")
    with tempfile.TemporaryDirectory(prefix="boot-") as boot:
        program, initramfs = Path(boot, "program"), Path(boot, "initramfs")
        _write_program(program)
        kernel.write_initramfs(system.kernel, system.busybox, program, initramfs)
        with tempfile.TemporaryDirectory(dir=SHARED_MEMORY, prefix="snapmig-bench-") as name:
            memory = Path(name, "ram")
            config = GuestConfig(ram, memory, extra=linux.boot_arguments(system, initramfs))
            with Guest(str(qemu.path), config) as guest:
                guest.wait_serial(chain_load.READY, patience)
                times = [_copy(guest, memory, folder, number) for number in range(len(STEPS))]
    _describe(folder, times)


def _write_program(path: Path) -> None:
    # Python runs an archive as it runs a file, whatever its name.
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(LOAD, "__main__.py")
        archive.write(linux.WORKLOAD, "workload.py")


def _copy(guest: Guest, memory: Path, folder: Path, number: int) -> float:
    # The guest stands still meanwhile, so that the time of its load does not pass.
    started = time.monotonic()
    guest.wait_serial(chain_load.STEP % STEPS[number], STEP_PATIENCE_S)
    guest.stop()
    ran = time.monotonic() - started
    say(f"image {number} after {ran:.1f} s")
    write_image(folder / f"{number}.ram", memory.stat().st_size, read_pieces(memory))
    guest.cont()
    return ran


def _describe(folder: Path, times: list[float]) -> None:
    images = [folder / f"{number}.ram" for number in range(len(times))]
    changes = [
        Change(round(ran, 2), **compare(older, newer))
        for ran, (older, newer) in zip(times[1:], pairwise(images), strict=True)
    ]
    (folder / "changes.json").write_text(json.dumps([asdict(each) for each in changes], indent=1))


def _load(folder: Path, name: str, facts: dict[str, Any]) -> Series:
    changes = tuple(Change(**each) for each in json.loads((folder / "changes.json").read_text()))
    images = tuple(folder / f"{number}.ram" for number in range(len(changes) + 1))
    return Series(name, images, changes, facts)
