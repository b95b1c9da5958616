"""Runs to be killed: what each is given, what it makes, and what may be there at any moment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import snapmig
from snapmig.container.format import superblock_fields
from tests.support import ram
from tests.support.firecracker import memory, vmstate
from tests.support.steady import STEADY

MIB = 1 << 20
SIZE = 12 * MIB
_OWN = {"checksum", "snapshot_id", "created_ns"}
_PIECES = {0: ram.text(70).tobytes(), 5 * MIB: ram.noise(40).tobytes(), 9 * MIB: b"end" * 1000}


def common(data: bytes) -> bytes:
    """Return a snapshot without the bytes that no two snapshots have in common."""
    found = bytearray(data)
    for offset, size, name in superblock_fields():
        if name in _OWN:
            found[offset : offset + size] = bytes(size)
    return bytes(found)


class Given:
    """Images and snapshots that all runs read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        small = {"packet_size": "64K", "jobs": 1, **STEADY}
        ram.write_sparse(self / "older.ram", SIZE, {**_PIECES, MIB: b"older" * 5000})
        ram.write_sparse(self / "a.ram", SIZE, {**_PIECES, 2 * MIB: ram.text(20, 7).tobytes()})
        snapmig.save(self / "older.ram", self / "parent", page_digests=True, **small)
        snapmig.save(self / "a.ram", self / "whole", **small)
        snapmig.save(self / "a.ram", self / "packed", layout="packed", page_digests=True, **small)
        snapmig.save(self / "a.ram", self / "child", parent=self / "parent", **small)
        snapmig.merge(self / "child", self / "merged", jobs=1)
        # Children name their parents as seen from the folder of the runs.
        made = folder.with_name("made")
        made.mkdir()
        snapmig.save(self / "a.ram", made / "child", parent=self / "parent", **small)
        shutil.copy(made / "child", made / "rebased")
        far = {"follow_remote_parents": True, "jobs": 1}
        snapmig.rebase(made / "rebased", parent=self / "whole", **far)
        (self / "mem.vmstate").write_bytes(vmstate())
        (self / "old").write_bytes(b"old")
        memory(self / "mem", 4 * MIB, {0: b"x" * MIB})
        snapmig.save(self / "mem", self / "microvm", **small)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    @cache  # noqa: B019 - there is one for all tests
    def bytes_of(self, name: str) -> bytes:
        """Return a file's contents, those of a snapshot without its own bytes."""
        return common((self / name).read_bytes())


Words = Callable[[Given, Path], list[object]]


@dataclass(frozen=True)
class Scenario:
    """
    A run.

    :param words: its arguments
    :param makes: the files it makes in its folder, each with the file it must equal
    :param over: files in its folder before, copies of given ones
    :param again: further arguments of the next run
    :param reads: files that must stay as they are
    """

    words: Words
    makes: Mapping[str, str]
    over: Mapping[str, str] = field(default_factory=dict)
    again: Sequence[str] = ("--force",)

    def prepare(self, given: Given, folder: Path) -> None:
        """Make the folder as it is before the run."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, source in self.over.items():
            shutil.copy(given / source, folder / name)

    def next_words(self, given: Given, folder: Path) -> list[object]:
        """Return the arguments of a run after one that was killed."""
        return [*self.words(given, folder), *self.again]

    def torn(self, given: Given, files: Mapping[str, bytes]) -> list[str]:
        """Return the files under final names that are neither old nor new and whole."""
        found = []
        for name, source in self.makes.items():
            there = common(files[name]) if name in files else None
            before = self.over.get(name)
            allowed = [given.bytes_of(source)] + ([given.bytes_of(before)] if before else [])
            # Files that replace several are away for a moment; a single one never is.
            if there is None and (not before or len(self.makes) > 1):
                continue
            if there not in allowed:
                found.append(f"{name} is {'gone' if there is None else 'torn'}")
        return found

    def named(self, folder: Path) -> dict[str, bytes]:
        """Return the files under final names in a folder."""
        return {
            name: (folder / name).read_bytes() for name in self.makes if (folder / name).exists()
        }

    def unfinished(self, given: Given, folder: Path) -> list[str]:
        """Return what is missing, wrong or too much after a run that ended well."""
        wrong = [
            name
            for name, source in self.makes.items()
            if not (folder / name).exists()
            or common((folder / name).read_bytes()) != given.bytes_of(source)
        ]
        return wrong + self.leftovers(folder)

    def leftovers(self, folder: Path) -> list[str]:
        """Return the names in the folder that no run is to leave."""
        return [name for name in sorted(os.listdir(folder)) if name not in self.makes]  # noqa: PTH208


def _save(*more: object) -> Words:
    return lambda given, folder: [
        "save", given / "a.ram", folder / "s", "-j", 1, "--packet-size", "64K",
        "--accelerator", "python",
        *(given / each[1:] if str(each).startswith("@") else each for each in more),
    ]  # fmt: skip


def _restore(snapshot: str, name: str, *more: object) -> Words:
    return lambda given, folder: ["restore", given / snapshot, folder / name, "-j", 1, *more]


PACKED = ("--layout", "packed", "--page-digests")
SCENARIOS: dict[str, Scenario] = {
    "save": Scenario(_save(), {"s": "whole"}),
    "save-packed": Scenario(_save(*PACKED), {"s": "packed"}),
    "save-over": Scenario(_save("-f"), {"s": "whole"}, {"s": "parent"}),
    "save-incremental": Scenario(_save("--parent", "@parent"), {"s": "../made/child"}),
    "save-resume": Scenario(_save("--resume"), {"s": "whole"}),
    "save-packed-resume": Scenario(_save("--resume", *PACKED), {"s": "packed"}),
    "restore": Scenario(_restore("whole", "r"), {"r": "a.ram"}),
    "restore-over": Scenario(_restore("child", "r", "-f"), {"r": "a.ram"}, {"r": "older.ram"}),
    "restore-resume": Scenario(_restore("whole", "r", "--resume"), {"r": "a.ram"}),
    "restore-microvm": Scenario(
        _restore("microvm", "mem"), {"mem": "mem", "mem.vmstate": "mem.vmstate"}
    ),
    "restore-microvm-over": Scenario(
        _restore("microvm", "mem", "-f"),
        {"mem": "mem", "mem.vmstate": "mem.vmstate"},
        {"mem": "mem.vmstate", "mem.vmstate": "old"},
    ),
    "merge": Scenario(
        lambda given, folder: ["merge", given / "child", folder / "m", "-j", 1], {"m": "merged"}
    ),
    "rebase": Scenario(
        lambda given, folder: [
            "rebase",
            folder / "c",
            "--parent",
            given / "whole",
            "-j",
            1,
            "--follow-remote-parents",
        ],
        {"c": "../made/rebased"},
        {"c": "../made/child"},
        again=(),
    ),
}
