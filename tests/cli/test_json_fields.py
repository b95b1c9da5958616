"""Facts about docs/json.md: it has the fields that the program prints, and no others."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import snapmig
from tests.cli.conftest import RAM
from tests.support import ram
from tests.support.json_fields import DOCUMENT, documented
from tests.support.outcome import Outcome
from tests.support.qcow2_images import Disk, Snap

Call = Callable[..., Outcome]

COMMANDS = {
    "save": ("save", "-f", "guest.ram", "s"),
    "commit": ("commit", "-f", "shared"),
    "restore": ("restore", "-f", "young", "r"),
    "verify": ("verify", "young"),
    "info": ("info", "young"),
    "qcow2": ("info", "disk.qcow2"),
    "chain": ("chain", "young"),
    "key": ("key", "list", "--key-file", "key", "sealed"),
    "diff": ("diff", "old", "young"),
    "map": ("map", "young"),
    "accelerator": ("accelerators",),
    "merge": ("merge", "-f", "young", "m"),
    "rebase": ("rebase", "young", "--parent", "old"),
    "repack": ("repack", "-f", "young", "p"),
}


def members(section: str, field: str) -> set[str]:
    """Return what the document says that the objects of a field have."""
    text = DOCUMENT.read_text().partition(f"\n## {section}\n")[2]
    row = re.search(rf"^\| `{field}` \| (.*) \|$", text, re.M)
    return set(re.findall(r"`(\w+)`", row[1]))


def fields(line: str) -> set[str]:
    """Return the fields of a line of JSON, but for that which says what it is."""
    return set(json.loads(line)) - {"message_type"}


@pytest.fixture
def snapshots(guest: Path, cli: Call) -> Path:
    """Give a snapshot, one that builds on it, and a share."""
    changed = np.frombuffer(RAM, np.uint8).reshape(-1, 4096).copy()
    changed[5] ^= 1
    ram.write(guest / "younger.ram", changed)
    cli("save", "guest.ram", "old", "--address", "ram=0").ok()
    cli("save", "younger.ram", "young", "--parent", "old").ok()
    cli("save", "guest.ram", "shared", "--share", "1/1").ok()
    cli("key", "new", "key").ok()
    (guest / "disk.qcow2").write_bytes(Disk([Snap()]).build())
    cli("save", "guest.ram", "sealed", "--encrypt", "--key-file", "key").ok()
    return guest


@pytest.mark.usefixtures("snapshots")
@pytest.mark.parametrize("kind", COMMANDS)
def test_fields_are_documented(cli: Call, kind: str) -> None:
    """The fields of each result are those of the table that is headed by its kind."""
    first = cli(*COMMANDS[kind], "--json").lines[0]
    assert (json.loads(first)["message_type"], fields(first)) == (kind, documented()[kind])


def test_fields_of_a_send_are_documented() -> None:
    """So are those of a send, which needs a QEMU."""
    assert {field.name for field in dataclasses.fields(snapmig.SendResult)} == documented()["send"]


def test_fields_of_a_run_are_documented() -> None:
    """So are those of a run, which ends with its QEMU."""
    assert {field.name for field in dataclasses.fields(snapmig.RunResult)} == documented()["run"]


@pytest.mark.usefixtures("guest")
def test_fields_of_progress_are_documented(cli: Call) -> None:
    """So are those of the lines on the way."""
    err = cli("save", "guest.ram", "s", "--progress", "json").err
    assert fields(err.splitlines()[-1]) == documented()["progress"]


@pytest.mark.usefixtures("guest")
def test_fields_of_errors_are_documented(cli: Call) -> None:
    """So are those of a refusal."""
    assert fields(cli("info", "absent", "--json").err) == documented()["error"]


@pytest.mark.usefixtures("snapshots")
@pytest.mark.parametrize(
    ("section", "field", "command"),
    [
        ("info", "blocks", ("info", "old")),
        ("info", "attachments", ("info", "young")),
        ("qcow2", "snapshots", ("info", "disk.qcow2")),
        ("diff", "blocks", ("diff", "old", "young")),
        ("map", "blocks", ("map", "young")),
        ("key", "slots", ("key", "list", "sealed")),
    ],
)
def test_fields_of_members_are_documented(
    cli: Call, section: str, field: str, command: tuple[str, ...]
) -> None:
    """An object in a list has no field that the description of the list does not name."""
    first = cli(*command, "--json").json[field][0]
    inner = {name for value in first.values() if isinstance(value, list) for name in value[0]}
    assert set(first) | inner == members(section, field)


@pytest.mark.usefixtures("snapshots")
def test_encodings_are_documented(cli: Call) -> None:
    """The names of encodings are in the description of the field that counts them."""
    assert set(cli("info", "old", "--json").json["packets"]) == members("save", "packets")
