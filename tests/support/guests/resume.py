"""Tiny guests, made and saved, then resumed from restored files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.guests import migration
from tests.support.guests.qemu import Guest, GuestConfig
from tests.support.guests.tiny import guest as tiny
from tests.support.guests.tiny.guest import Layout, State
from tests.support.guests.versions import require_capabilities

LAYOUT = Layout(ram=32 << 20, hot_mask=7)
"""One page in eight is written in each pass, so that a live save can end."""


def make(program: str, folder: Path, layout: Layout = LAYOUT, **options: Any) -> Guest:
    """Make a tiny guest, not yet started."""
    return Guest(program, tiny.config(tiny.write_sector(folder, layout), layout, **options))


def goes_on(
    program: str,
    folder: Path,
    uri: str,
    state: State,
    capabilities: Sequence[str] = (),
    layout: Layout = LAYOUT,
    extra: Sequence[str] = (),
) -> bool:
    """
    Return True if a new QEMU loads a file and its guest continues counting from its saved state.

    A guest that finds a wrong page raises; by the end of its second pass it has seen every page.
    """
    require_capabilities(capabilities)
    with make(program, folder, layout, incoming=True, extra=extra) as guest:
        migration.prepare(guest, capabilities)
        migration.load_from(guest, uri)
        return tiny.goes_on(tiny.wait_passes(guest, 2, before=0), state, layout)


@dataclass(frozen=True)
class Memory:
    """The part of QEMU's command line about a guest's memory."""

    backends: Sequence[str]
    machine: str = ",memory-backend=ram"
    options: Sequence[str] = ()


def file_memory(path: Path, layout: Layout = LAYOUT) -> Memory:
    """Return memory that is a shared file."""
    return Memory([f"memory-backend-file,id=ram,size={layout.ram},share=on,mem-path={path}"])


class Monitored(Guest):
    """A guest with memory of any kind, and a second monitor for snapmig."""

    def __init__(self, program: str, config: GuestConfig, memory: Memory) -> None:
        super().__init__(program, config)
        self.memory = memory

    @property
    def monitor(self) -> str:
        """The monitor's address for snapmig."""
        return f"qmp:{self.folder / 'monitor'}"

    def arguments(self) -> list[str]:
        """Return the command line of QEMU for this guest."""
        command = super().arguments()
        at = command.index("-object")
        backends = [part for item in self.memory.backends for part in ("-object", item)]
        command[at : at + 2] = [*backends, *self.memory.options]
        command[command.index("-machine") + 1] = self.config.machine + self.memory.machine
        return [*command, "-qmp", f"unix:{self.folder / 'monitor'},server=on,wait=off"]


class Printed(Guest):
    """A guest started by a command printed by snapmig, with files of its own."""

    def __init__(self, command: Sequence[str], before: Path) -> None:
        super().__init__(command[0], GuestConfig(LAYOUT.ram))
        self._command = command
        self._before = before

    def arguments(self) -> list[str]:
        """Return that command, its sockets and its serial port in this guest's folder."""
        return [part.replace(str(self._before), str(self.folder)) for part in self._command]


def make_monitored(
    program: str, folder: Path, memory: Memory, layout: Layout = LAYOUT, **options: Any
) -> Monitored:
    """Make a tiny guest with a second monitor, not yet started."""
    config = tiny.config(tiny.write_sector(folder, layout), layout, **options)
    return Monitored(program, config, memory)
