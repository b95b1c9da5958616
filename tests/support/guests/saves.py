"""A running guest saved in every way, each once, for tests that bring it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import snapmig
from tests.support.guests.resume import LAYOUT, Memory, file_memory, make_monitored
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import State

PRIVATE = Memory([f"memory-backend-ram,id=ram,size={LAYOUT.ram}"])
"""Memory of the QEMU that it is brought back into."""
SAVES: dict[str, dict[str, Any]] = {
    "shared": {"via": "shared"},
    "multifd": {"via": "multifd"},
    "zstd": {"via": "multifd", "compression": "zstd"},
    "mapped-ram": {"via": "mapped-ram"},
    "stream": {"via": "stream"},
    "background": {"live": "background"},
    "large packets": {"via": "multifd", "packet_size": "2M"},
    "child": {"via": "multifd", "compression": "zstd"},
}
"""Options of each way; the child is one of the snapshot before it with zstd."""


@dataclass(frozen=True)
class Saved:
    """A snapshot, and where its guest stood."""

    path: Path
    state: State


@contextmanager
def saves(program: str, folder: Path) -> Iterator[Callable[[str], Saved]]:
    """Give a function that saves a running guest in some way, once."""
    done: dict[str, Saved] = {}
    with make_monitored(program, folder, file_memory(folder / "ram")) as guest:
        tiny.wait_passes(guest, 2)

        def save(kind: str) -> Saved:
            if kind not in done:
                path = folder / f"{kind}.snap"
                parent = {"parent": save("zstd").path} if kind == "child" else {}
                snapmig.save(guest.monitor, path, jobs=2, **SAVES[kind], **parent)
                guest.rest()
                snapmig.restore(path, folder / "check", block="ram", force=True)
                done[kind] = Saved(path, tiny.check_image(folder / "check", LAYOUT))
            return done[kind]

        yield save
