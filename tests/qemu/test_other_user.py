"""Facts about guests whose QEMU runs as another user, like libvirt's."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import snapmig
from tests.support.guests.resume import LAYOUT, Memory, Monitored, file_memory
from tests.support.guests.tiny import guest as tiny
from tests.support.requirements import requires

pytestmark = [pytest.mark.guest, pytest.mark.root]

NOBODY = 65534
PRIVATE = Memory([f"memory-backend-ram,id=ram,size={LAYOUT.ram}"])


class OtherUsers(Monitored):
    """A guest whose QEMU runs as nobody."""

    def arguments(self) -> list[str]:
        """Return the command to start QEMU without the rights of root."""
        user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        return ["setpriv", *user, "--", *super().arguments()]


def make_other_users(
    program: str, folder: Path, memory: Memory, *, incoming: bool = False
) -> OtherUsers:
    """Make a guest run by nobody, with its files in a folder of nobody's."""
    requires("setpriv")
    config = tiny.config(tiny.write_sector(folder, LAYOUT), LAYOUT, incoming=incoming)
    guest = OtherUsers(program, config, memory)
    for path in (guest.folder, folder):
        os.chown(path, NOBODY, NOBODY)
    return guest


@pytest.fixture(autouse=True)
def open_sockets() -> Iterator[None]:
    """Make the tests' sockets accessible to everybody, because QEMU connects to one."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """Give a directory closed to all other users."""
    folder = tmp_path / "ours"
    folder.mkdir(mode=0o700)
    return folder


@pytest.mark.parametrize("kind", ["private", "shared"])
def test_saved_and_resumed(
    program: str, shm: Path, ours: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A guest of another user is saved to a place of ours and resumed, and nothing is left."""
    monkeypatch.setenv("TMPDIR", str(ours))
    memory = PRIVATE if kind == "private" else file_memory(shm / "ram")
    with make_other_users(program, shm, memory) as guest:
        tiny.wait_passes(guest, 2)
        snapmig.save(guest.monitor, ours / "snap", jobs=2)
        assert len(tiny.wait_passes(guest, 2)) >= 2
    with make_other_users(program, shm, memory, incoming=True) as guest:
        snapmig.restore(ours / "snap", guest.monitor, jobs=2)
        counted = tiny.wait_passes(guest, 2, before=0)

    snapmig.restore(ours / "snap", shm / "restored", format="raw")
    os.truncate(shm / "restored", LAYOUT.ram)
    assert tiny.goes_on(counted, tiny.check_image(shm / "restored", LAYOUT), LAYOUT)
    assert [item.name for item in ours.iterdir()] == ["snap"]


class Dropped(Monitored):
    """A guest whose QEMU gives up root's rights after it has opened its monitors."""

    def arguments(self) -> list[str]:
        """Return the command line of QEMU."""
        version = subprocess.run([self._program, "-version"], capture_output=True, text=True).stdout
        old = int(version.partition("version ")[2].split(".")[0]) < 10
        user = ["-runas", "nobody"] if old else ["-run-with", "user=nobody"]
        return [*super().arguments(), *user]


def test_a_user_changed_to_later(program: str, shm: Path) -> None:
    """A QEMU that has become nobody since its monitor was opened connects to our socket."""
    config = tiny.config(tiny.write_sector(shm, LAYOUT), LAYOUT)
    with Dropped(program, config, PRIVATE) as guest:
        tiny.wait_passes(guest, 1)
        result = snapmig.save(guest.monitor, shm / "snap", jobs=2)
    assert (result.via, result.warnings) == ("multifd", ())
