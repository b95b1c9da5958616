"""Facts about running guests in sealed snapshots: saved in every way, and brought back by each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import snapmig
from tests.qemu.receiver import receiving
from tests.qemu.test_receive import ACKNOWLEDGED, LOCAL, migrate
from tests.support import program as snapmig_program
from tests.support.guests.private import private_memory, require_live, status
from tests.support.guests.resume import LAYOUT, Monitored, file_memory, make_monitored
from tests.support.guests.saves import PRIVATE
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import State
from tests.support.guests.versions import require_qemu
from tests.support.secrets import PHRASE, write_keys
from tests.support.sweep import sweep

pytestmark = pytest.mark.guest

WAYS = {
    "shared": ("--via", "shared"),
    "shared live": ("--via", "shared", "--live"),
    "multifd": ("--via", "multifd", "--compression", "zlib"),
    "multifd live": ("--via", "multifd", "--live", "--compression", "zstd"),
    "multifd packets of 2M": ("--via", "multifd", "--packet-size", "2M"),
    "page digests": ("--via", "multifd", "--page-digests", "--compression", "none"),
    "mapped-ram": ("--via", "mapped-ram"),
    "stream": ("--via", "stream"),
    "background": ("--live=background",),
    "child": ("--via", "multifd", "--parent", "multifd.snap"),
}
INTO = {
    "shared": (),
    "multifd": ("--via", "multifd"),
    "zstd": ("--via", "multifd", "--wire", "zstd"),
    "zlib": ("--via", "multifd", "--wire", "zlib"),
    "postcopy": ("--postcopy",),
}
BOTH = [(way, into, how) for way in WAYS for into in INTO for how in ("--encrypt", "--sign")]
ESSENTIAL = [("child", "postcopy", "--encrypt")]
KEY = ("--key-file", "key")


@dataclass
class Place:
    """A running guest, and where its snapshots are kept."""

    folder: Path
    guest: Monitored

    def run(self, *words: object) -> snapmig_program.Outcome:
        """Run the program beside the keys."""
        return snapmig_program.run(*words, cwd=self.folder, timeout=100)

    def saved(self, way: str, how: str) -> tuple[Path, State]:
        """Return the snapshot by some way, made once, and where its guest stood."""
        folder = self.folder / how
        path = folder / f"{way.replace(' ', '-')}.snap"
        words = [str(folder / word) if word.endswith(".snap") else word for word in WAYS[way]]
        if way == "child":
            self.saved("multifd", how)
        if not path.exists():
            folder.mkdir(exist_ok=True)
            outcome = self.run("save", self.guest.monitor, path, how, *KEY, *words)
            outcome.ok("snapshot", err=None)
        self.guest.rest()
        raw = self.folder / "check"
        self.run("restore", path, raw, "--block", "ram", "-f", *KEY).ok(err=None)
        return path, tiny.check_image(raw, LAYOUT)


@pytest.fixture(scope="module")
def place(program: str, shared_shm: Path) -> Iterator[Place]:
    """Give a running guest."""
    write_keys(shared_shm)
    with make_monitored(program, shared_shm, file_memory(shared_shm / "ram")) as guest:
        tiny.wait_passes(guest, 2)
        yield Place(shared_shm, guest)


@pytest.mark.parametrize(("way", "into", "how"), sweep(BOTH, lambda each: each in ESSENTIAL))
def test_saved_and_brought_back(
    place: Place, program: str, shm: Path, way: str, into: str, how: str
) -> None:
    """A guest saved with a key runs on where it stood, with every page right."""
    if way in ("mapped-ram", "background"):
        require_qemu("9.0")
    require_live(live=way == "multifd live")
    path, state = place.saved(way, how)
    memory = file_memory(shm / "new") if into == "shared" else PRIVATE
    with make_monitored(program, shm, memory, incoming=True) as guest:
        place.run("restore", path, guest.monitor, *INTO[into], *KEY).ok(err=None)
        counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, state, LAYOUT)


def test_a_wrong_key_leaves_the_qemu_waiting(place: Place, program: str, shm: Path) -> None:
    """A QEMU waits on as before when the key is a wrong one, and takes the right one's guest."""
    path, state = place.saved("multifd", "--encrypt")
    with make_monitored(program, shm, PRIVATE, incoming=True) as guest:
        for into in (("--via", "multifd"), ("--postcopy",)):
            place.run("restore", path, guest.monitor, *into, "--key-file", "other").fails(
                1, "none of the given keys fits", lines=1
            )
        assert status(guest) == "inmigrate"
        place.run("restore", path, guest.monitor, "--via", "multifd", *KEY).ok(err=None)
        counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, state, LAYOUT)


@pytest.mark.parametrize(
    "via", sweep(["shared", "multifd", "stream"], lambda via: via == "multifd")
)
def test_a_refused_key_does_not_touch_the_guest(place: Place, via: str) -> None:
    """What is no key is refused before the guest is paused or migrated, and nothing is left."""
    stops = place.guest.execute("query-migrate")
    (place.folder / "short").write_bytes(b"short")
    words = ("--via", via, "--encrypt", "--key-file", "short")
    place.run("save", place.guest.monitor, place.folder / "no.snap", *words).fails(
        2, "short: has 5 bytes", lines=1
    )
    assert (status(place.guest), place.guest.execute("query-migrate")) == ("running", stops)
    assert not list(place.folder.glob("*no.snap*"))


def test_plain_bytes_on_disk_are_said(place: Place) -> None:
    """Who has QEMU write a file first is told that its disk may keep plain bytes."""
    require_qemu("9.0")
    path = place.folder / "warned.snap"
    words = ("--via", "mapped-ram", "--encrypt", *KEY)
    outcome = place.run("save", place.guest.monitor, path, *words)
    outcome.ok(err=None)
    assert "what that disk keeps of removed files is not encrypted" in outcome.err


@pytest.mark.parametrize("how", sweep(["--encrypt", "--sign"], lambda how: how == "--encrypt"))
def test_received(program: str, shm: Path, how: str) -> None:
    """A migration that is received is sealed as it comes."""
    require_qemu("8.0")
    write_keys(shm)
    options = (how, "--passphrase-file", shm / "phrase", "--channels", 2, "-j", 2, "--json")
    with make_monitored(program, shm, private_memory()) as guest:
        tiny.wait_passes(guest, 2)
        with receiving(LOCAL, shm / "snap", *options) as receiver:
            migrate(guest, receiver.address, ACKNOWLEDGED, multifd_channels=2)
            receiver.end().ok(err=None)
    keys = snapmig.Keys(passphrase=PHRASE)
    assert snapmig.verify(shm / "snap", keys=keys).proved
    snapmig.restore(shm / "snap", shm / "raw", format="raw", block="ram", keys=keys)
    tiny.check_image(shm / "raw", LAYOUT)
