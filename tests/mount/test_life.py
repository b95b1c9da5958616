"""Facts about mounts from their beginning to their end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.mount.conftest import PACKET, Mount, damage, save
from tests.support import program
from tests.support.mounts import is_mounted, mounted, server_of
from tests.support.outcome import Outcome
from tests.support.processes import wait_for


def test_damage_is_an_error_for_its_pages_only(shm: Path) -> None:
    """Reads of a damaged packet fail with EIO, others don't; the log has packet and address."""
    snapshot, content = save(shm)
    damage(snapshot, 40)
    with mounted(snapshot, shm / "mnt") as files, (files / "guest.ram").open("rb") as file:
        for _ in range(2):
            file.seek(40 * PACKET)
            with pytest.raises(OSError, match="Input/output"):
                file.read(4096)
        file.seek(42 * PACKET)
        assert file.read(PACKET) == content[42 * PACKET : 43 * PACKET]
        file.close()
    line, _ = (shm / "mnt.log").read_text().splitlines()
    assert "packet 40: " in line
    assert f"guest physical address {(1 << 32) + 8 * PACKET:#x}" in line


def test_a_damaged_index_is_not_mounted(shm: Path) -> None:
    """An index other than the committed one is exit code 3 before anything is mounted."""
    snapshot, _ = save(shm)
    with snapshot.open("r+b") as file:
        file.seek(-9, os.SEEK_END)
        file.write(b"x")
    (shm / "mnt").mkdir()
    program.run("mount", snapshot, shm / "mnt").fails(3, lines=1)
    assert not is_mounted(shm / "mnt")


def test_is_not_unmounted_while_it_is_used(mount: Mount) -> None:
    """``umount`` names the process that maps a file, and the mount stays."""
    script = "import mmap,sys; f=open(sys.argv[1],'rb'); m=mmap.mmap(f.fileno(),0,prot=1); "
    script += "f.close(); print(flush=True); input()"
    command = ["python3", "-c", script, mount.files / "guest.ram"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as user:
        assert user.stdout.readline() == "\n"
        program.run("umount", mount.files).fails(1, f"used by process {user.pid}", lines=1)
        assert is_mounted(mount.files)
        user.stdin.write("\n")


def test_lazy_lets_readers_go_on(shm: Path) -> None:
    """After ``umount --lazy`` the directory is empty, and an open file still has its bytes."""
    snapshot, content = save(shm)
    with mounted(snapshot, shm / "mnt") as files, (files / "guest.ram").open("rb") as file:
        program.run("umount", "--lazy", files).ok()
        assert list(files.iterdir()) == []
        assert file.read() == content


@pytest.mark.sweep
def test_force_ends_it(shm: Path) -> None:
    """After ``umount --force`` an open file gives errors."""
    snapshot, _ = save(shm)
    with mounted(snapshot, shm / "mnt") as files, (files / "guest.ram").open("rb") as file:
        program.run("umount", "--force", files).ok()
        with pytest.raises(OSError, match=r"not connected|aborted"):
            file.read()


@pytest.mark.sweep
def test_a_signal_unmounts(shm: Path) -> None:
    """A server that is asked to end leaves a free directory."""
    snapshot, _ = save(shm)
    with mounted(snapshot, shm / "mnt") as files:
        os.kill(server_of(files), signal.SIGTERM)
        wait_for(lambda: not is_mounted(files))


def test_a_killed_server_is_no_obstacle(shm: Path) -> None:
    """After SIGKILL the directory can be mounted at again."""
    snapshot, content = save(shm)
    with mounted(snapshot, shm / "mnt") as files:
        killed = server_of(files)
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: not Path(f"/proc/{killed}/exe").exists())
        with mounted(snapshot, files):
            assert (files / "guest.ram").read_bytes() == content


def test_serves_in_the_foreground_until_it_is_unmounted(shm: Path) -> None:
    """``--foreground`` stays, says when the files are there, and ends well."""
    snapshot, content = save(shm)
    (shm / "mnt").mkdir()
    process = program.start("mount", "--foreground", snapshot, shm / "mnt")
    assert "is mounted at" in process.stderr.readline()
    assert (shm / "mnt" / "guest.ram").read_bytes() == content
    program.run("umount", shm / "mnt").ok()
    program.end(process, 60).ok(out="", err=None)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("mount", "s", "missing"), "missing: is not a directory, expected one to mount at"),
        (("mount", "missing", "empty"), "missing: No such file or directory"),
        (("mount", "s", "."), "has files, which a mount would hide: expected an empty directory"),
        (("umount", "."), "is not a mount of snapmig"),
    ],
)  # fmt: skip
def test_refusals_are_sentences(
    shm: Path,
    cli: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    sentence: str,
) -> None:
    """What can't be done is one sentence with the place."""
    monkeypatch.chdir(shm)
    save(shm)
    (shm / "empty").mkdir()
    done = cli(*words)
    assert done.code in (1, 2)
    assert sentence in done.err
    assert done.err.count("\n") == 1


def test_a_missing_library_is_a_sentence(shm: Path) -> None:
    """Without the extra, the sentence says how to get it."""
    snapshot, _ = save(shm)
    (shm / "mfusepy.py").write_text("raise ImportError('none')\n")
    environment = {**os.environ, "PYTHONPATH": str(shm)}
    done = program.run("mount", snapshot, shm, env=environment)
    done.fails(1, "pip install 'snapmig[fuse]'", lines=1)


def test_the_server_keeps_little(mount: Mount) -> None:
    """Threads that read keep one capability, and its memory is in no dump."""
    folder = Path(f"/proc/{server_of(mount.files)}")
    for file in ("guest.ram", "guest.elf", "snapshot.json") * 20:
        (mount.files / file).read_bytes()
    kept = []
    for task in (folder / "task").iterdir():
        with suppress(OSError):  # libfuse ends threads that have nothing to do
            kept.append((task / "status").read_text())
    effective = [re.search(r"CapEff:\t(\w+)", text)[1] for text in kept]
    assert effective.count("0000000000000004") >= 2  # libfuse's; the first one waits for the end
    assert re.search(r"Max core file size +0 ", (folder / "limits").read_text())


@pytest.mark.sweep
def test_a_reader_that_dies_harms_nobody(mount: Mount) -> None:
    """After a reader was killed in the middle, others read on."""
    script = "import sys\nwhile True: open(sys.argv[1], 'rb').read()"
    for _ in range(5):
        with subprocess.Popen(["python3", "-c", script, mount.files / "guest.ram"]) as reader:
            wait_for(lambda: Path(f"/proc/{reader.pid}/io").exists())
            reader.kill()
    assert (mount.files / "guest.ram").read_bytes() == mount.ram
