"""Facts about ``restore --for-qemu`` of snapshots whose words mean harm."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

import snapmig
from snapmig.guests import guest as guests
from tests.support.guests.fake_monitor import FakeMonitor
from tests.support.outcome import Outcome

PAGE = 4096
NAMES = ["../../up", "..", ".", "-rf", "/", "a,share=off", "a;share=off", "\x1b[2J"]
NAMES += ["n" * 255, "ä" * 120]
HARM = ["sh", "-c", "echo \x1b[2J; rm -rf ~", "\x9b2J"]


def save(folder: Path, names: list[str]) -> Path:
    """Save a guest whose RAM blocks have names, each with a page of its own."""
    (folder / "ram").write_bytes(bytes(range(256)) * (PAGE // 256) * len(names))
    blocks = [{"id": name, "size": PAGE, "share": True} for name in names]

    def get(asked: dict[str, str]) -> object:
        if asked["path"] == "/machine":
            return "pc-q35-10.0-machine"
        if asked["property"] == "mem-path":
            return str(folder / "ram")
        return PAGE * names.index(asked["path"].removeprefix("/objects/"))

    with FakeMonitor(folder / "qmp", folder / "ram", query_memdev=blocks, qom_get=get):
        snapmig.save(f"qmp:{folder / 'qmp'}", folder / "snap", jobs=1)
    return folder / "snap"


def test_names_of_blocks(shm: Path) -> None:
    """Each block's name leads to a file of its own in the directory, whatever it says."""
    snapshot = save(shm, NAMES)
    before = {*shm.iterdir()}
    snapmig.restore(snapshot, shm / "new", for_qemu=True, jobs=1)
    made = {item.name: item.stat().st_size for item in (shm / "new").glob("*.ram")}
    assert ({*shm.iterdir()} - before, [*made.values()]) == ({shm / "new"}, [PAGE] * len(NAMES))
    assert all(re.fullmatch(r"\d+-[\w.-]{0,100}\.ram", name, re.ASCII) for name in made)


@pytest.mark.parametrize("verb", ["restore", "backup restore"])
def test_command_of_the_snapshot(
    shm: Path, cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """The snapshot's command is shown quoted, with escapes, and as coming from the snapshot."""
    monkeypatch.setattr(guests, "_command_line", lambda _: tuple(HARM))
    if verb == "restore":
        outcome = cli("restore", save(shm, ["ram"]), shm / "new", "--for-qemu", "-j", 1)
    else:
        outcome = backed_up(shm, cli)
    shown = outcome.lines
    (at,) = [number for number, line in enumerate(shown) if line.startswith("start ")]
    assert shown[at] == (r"start     sh -c $'echo \x1b[2J; rm -rf ~' $'\u009b2J' -incoming defer")
    assert "comes from the snapshot" in shown[at - 2]
    assert all(line.isprintable() for line in shown)


def backed_up(folder: Path, cli: Callable[..., Outcome]) -> Outcome:
    """Back a guest up, and restore the backup for QEMU."""
    (folder / "ram").write_bytes(bytes(PAGE - 1) + b"\1")
    (folder / "repo").mkdir()
    config = folder / "backups.toml"
    config.write_text("repository = 'repo'\n[guests.one]\nsource = 'qmp:qmp'\n")
    with FakeMonitor(folder / "qmp", folder / "ram"):
        done = cli("backup", "run", config, "-j", 1)
    done.ok()
    return cli("backup", "restore", "-v", config, "one", folder / "new", "--for-qemu", "-j", 1)


def test_command_in_json(
    shm: Path, cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In JSON the command's words are exact, and nothing acts on a terminal there either."""
    monkeypatch.setattr(guests, "_command_line", lambda _: tuple(HARM))
    outcome = cli("restore", save(shm, ["ram"]), shm / "new", "--for-qemu", "--json", "-j", 1)
    assert outcome.json["qemu_arguments"][:4] == HARM
    assert outcome.out[:-1].isascii()


def test_comma_in_the_directory(
    shm: Path, cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comma in the directory's name stays a part of the file's name in QEMU's option."""
    backend = f"memory-backend-file,id=ram,size={PAGE},share=on,mem-path=/x"
    monkeypatch.setattr(guests, "_command_line", lambda _: ("qemu", "-object", backend))
    outcome = cli("restore", save(shm, ["ram"]), shm / "a,b", "--for-qemu", "-j", 1)
    (line,) = [line for line in outcome.lines if line.startswith("start ")]
    assert f"mem-path={shm}/a,,b/0-ram.ram,share=on" in shlex.split(line)[3]
