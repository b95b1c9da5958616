"""Facts about device state for a QEMU with its RAM mapped from files."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import snapmig
from snapmig.operations.runs.device_stream import device_stream, mapped_blocks
from snapmig.operations.runs.random_access import RandomAccess
from tests.support.guests import migration
from tests.support.guests.private import MEMORIES
from tests.support.guests.resume import LAYOUT, Memory, make_monitored
from tests.support.guests.saves import SAVES, Saved
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import Layout
from tests.support.guests.versions import needs_file
from tests.support.sweep import sweep

LARGE_MACHINE = re.compile("not a multiple of 1G")
pytestmark = [pytest.mark.guest, needs_file]


@pytest.mark.parametrize("kind", sweep(list(SAVES), lambda kind: kind in ("shared", "multifd")))
def test_ram_from_a_private_mapping(
    saved: Callable[[str], Saved], program: str, shm: Path, kind: str
) -> None:
    """However a guest was saved, it goes on with its RAM mapped and all else from the stream."""
    found = saved(kind)
    with closing(RandomAccess(found.path, jobs=2, cache=1 << 22)) as memory:
        (block,) = mapped_blocks(memory.file)
        stream = device_stream(memory.file, [block], memory.read)
    (shm / "state").write_bytes(stream)
    snapmig.restore(found.path, shm / "mapped", block=block.name)
    before = (shm / "mapped").read_bytes()
    backend = f"memory-backend-file,id=ram,size={LAYOUT.ram},share=off,mem-path={shm / 'mapped'}"
    with make_monitored(program, shm, Memory([backend]), incoming=True) as guest:
        migration.prepare(guest, ())
        migration.load_from(guest, f"file:{shm / 'state'}")
        counted = tiny.wait_passes(guest, 2, before=0)

    assert tiny.goes_on(counted, found.state, LAYOUT)
    assert len(stream) < LAYOUT.ram // 2
    assert (shm / "mapped").read_bytes() == before


SPLIT = Layout(ram=LAYOUT.ram, hot_mask=7, below_4g=16 << 20)


@pytest.mark.parametrize("machine", sweep(["pc", "q35"], lambda machine: machine == "pc"))
def test_two_backends_and_ram_above_4_gib(program: str, shm: Path, machine: str) -> None:
    """Each backend is mapped by itself, wherever the machine has its addresses."""
    memory, path = MEMORIES["of two nodes"](shm), shm / "snap"
    with make_monitored(program, shm, memory, SPLIT, machine=machine) as guest:
        guest.expected_words = LARGE_MACHINE
        last = tiny.wait_passes(guest, 2)[-1]
        snapmig.save(guest.monitor, path, jobs=2, via="multifd")
    with closing(RandomAccess(path, jobs=2, cache=1 << 22)) as ram:
        blocks = mapped_blocks(ram.file)
        (shm / "state").write_bytes(device_stream(ram.file, blocks, ram.read))
    backends = []
    for block in blocks:
        snapmig.restore(path, shm / f"{block.name}.ram", block=block.name)
        backends.append(
            f"memory-backend-file,id={block.name},size={block.size},share=off,"
            f"mem-path={shm / f'{block.name}.ram'}"
        )
    mapped = Memory(backends, memory.machine, memory.options)
    with make_monitored(program, shm, mapped, SPLIT, machine=machine, incoming=True) as guest:
        guest.expected_words = LARGE_MACHINE
        migration.prepare(guest, ())
        migration.load_from(guest, f"file:{shm / 'state'}")
        counted = tiny.wait_passes(guest, 2, before=0)

    assert len(blocks) == 2
    assert counted[0] > last
