"""Tiny guests that are made, saved by QEMU, and resumed from what was restored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.guests import migration
from tests.guests.qemu import Guest
from tests.guests.tiny import guest as tiny
from tests.guests.tiny.guest import Layout, State

LAYOUT = Layout(ram=32 << 20, hot_mask=7)
"""One page in eight is written in each pass, so that a live save can end."""


def make(program: str, folder: Path, layout: Layout = LAYOUT, **options: Any) -> Guest:
    """Make a tiny guest that is not yet started."""
    return Guest(program, tiny.config(tiny.write_sector(folder, layout), layout, **options))


def goes_on(
    program: str,
    folder: Path,
    uri: str,
    state: State,
    capabilities: Sequence[str] = (),
    layout: Layout = LAYOUT,
) -> bool:
    """
    Say whether a new QEMU loads a file and its guest counts on from where it stood.

    A guest that finds a wrong page raises; the second pass that it ends has seen every page.
    """
    with make(program, folder, layout, incoming=True) as guest:
        migration.prepare(guest, capabilities)
        migration.load_from(guest, uri)
        return tiny.goes_on(tiny.wait_passes(guest, 2, before=0), state, layout)
