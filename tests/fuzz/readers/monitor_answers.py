"""What a monitor answers: facts about a guest and its memory, and reasons for refusals."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from snapmig.guests import answers
from snapmig.guests.addresses import parse_memory_tree, pieces_of_blocks
from snapmig.guests.connection import words
from snapmig.printable import printable

KINDS: tuple[Any, ...] = (
    answers.Status, answers.Identity, answers.Version, answers.Migration, answers.Capabilities,
    answers.YankInstances, answers.MemoryDevices, answers.ObjectItems, str,
)  # fmt: skip
SIZES = {"pc.ram": 1 << 32, "pc.rom": 1 << 20}
TREE = """\
FlatView #0
 AS "memory", root: system
 Root memory region: system
  0000000000000000-000000000009ffff (prio 0, ram): pc.ram KVM
  00000000000c0000-00000000000dffff (prio 1, rom): pc.rom @0000000000001000 KVM
  0000000100000000-000000013fffffff (prio 0, ram): pc.ram @0000000080000000 KVM

"""


def seeds() -> list[bytes]:
    """Return an answer of each kind, and a list of memory regions."""
    found = [
        {"status": "running"},
        {"UUID": "01234567-89ab-cdef-0123-456789abcdef"},
        {"qemu": {"major": 10, "minor": 0, "micro": 2}},
        {"status": "failed", "error-desc": "no", "ram": {"transferred": 1, "remaining": 2},
         "downtime": 3},
        [{"capability": "multifd", "state": True}],
        [{"type": "chardev"}],
        [{"size": 1 << 20, "id": "ram", "share": True}],
        [{"name": "a", "type": "link<x>"}],
    ]  # fmt: skip
    return [*(json.dumps(each).encode() for each in found), TREE.encode()]


def read(data: bytes, folder: Path) -> None:  # noqa: ARG001
    """Take an answer for each of the kinds, and as a text."""
    text = data.decode("utf-8", "surrogateescape")
    for pieces in pieces_of_blocks(parse_memory_tree(text), SIZES).values():
        assert all(0 <= each.offset < each.offset + each.size <= 1 << 32 for each in pieces)
    printable(words(text))
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return
    for kind in KINDS:
        with contextlib.suppress(answers.WrongAnswerError):
            answers.typed(answer, kind)
