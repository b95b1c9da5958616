"""Guests whose memory only QEMU reaches, and what their snapshots hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import snapmig
from tests.support.guests.qemu import Guest
from tests.support.guests.resume import LAYOUT, Memory
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import Layout, State
from tests.support.guests.versions import require_qemu

HALF = LAYOUT.ram // 2
HUGE_PAGES = LAYOUT.ram >> 21


def private_memory(layout: Layout = LAYOUT) -> Memory:
    """Return memory of QEMU's own."""
    return Memory([f"memory-backend-ram,id=ram,size={layout.ram}"])


def _nodes(_folder: Path) -> Memory:
    return Memory(
        [f"memory-backend-ram,id={name},size={HALF}" for name in ("low", "high")],
        "",
        ["-numa", "node,memdev=low", "-numa", "node,memdev=high"],
    )


def _memfd(more: str = "") -> Memory:
    return Memory([f"memory-backend-memfd,id=ram,size={LAYOUT.ram},share=on{more}"])


MEMORIES: dict[str, Callable[[Path], Memory]] = {
    "anonymous": lambda _: private_memory(),
    "of two nodes": _nodes,
    "a memfd": lambda _: _memfd(),
    "huge pages": lambda _: _memfd(",hugetlb=on,hugetlbsize=2M"),
    "a shared file": lambda folder: Memory(
        [f"memory-backend-file,id=ram,size={LAYOUT.ram},share=on,mem-path={folder / 'ram'}"]
    ),
}
"""Memories by their names; a folder may get a file."""


def require_live(*, live: bool = True) -> None:
    """Skip a test with a QEMU that misses writes of an emulated guest while it is migrated."""
    if live:
        require_qemu("8.0")


def status(guest: Guest) -> str:
    """Return the run state of a guest."""
    return str(guest.execute("query-status")["status"])


def ram_of(snapshot: Path, folder: Path, layout: Layout = LAYOUT) -> State:
    """Return the position of a snapshot's guest, after checking all pages of its main RAM."""
    restored = folder / "restored"
    snapmig.restore(snapshot, restored, format="raw", force=True)
    os.truncate(restored, layout.ram)  # firmware follows it
    return tiny.check_image(restored, layout)


def migration_settings(guest: Guest) -> tuple[object, object]:
    """Return all capabilities and parameters of a guest's migrations."""
    return (
        guest.execute("query-migrate-capabilities"),
        guest.execute("query-migrate-parameters"),
    )
