"""``restore --for-qemu``: a directory and a command line from which a new QEMU resumes a guest."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from snapmig.attachments import source_format
from snapmig.errors import UsageError
from snapmig.operations.runs.device_stream import DEVICE_STATE
from snapmig.operations.runs.mapped_guest import mapped_backends
from snapmig.operations.runs.qemu_command import Backend, check_command, given_command
from snapmig.operations.runs.read import Reading
from snapmig.operations.runs.restore_inputs import plan_block, plan_whole
from snapmig.operations.runs.restore_output import restore_new
from snapmig.operations.runs.saved_guest import MAPPED_RAM_SINCE, SavedGuest, load_guest
from snapmig.stores.location import parse_location
from snapmig.system.partial import PartialDirectory, write_file

__all__ = ("Resumable", "map_for_qemu", "restore_for_qemu")


_FILE_SINCE = (8, 2)
"""The first QEMU that reads ``file:``."""

_LONGEST_NAME = 100
_MOUNT = "mnt"


class Resumable(NamedTuple):
    """
    A directory from which a guest resumes.

    :param format: format of the saved image
    :param data_pages: number of nonzero pages
    :param arguments: the command to start QEMU
    :param monitor_commands: commands for its monitor (HMP) after that
    :param mount_arguments: the command to mount the snapshot before it, if its memory is mapped
    """

    format: str
    data_pages: int
    arguments: tuple[str, ...]
    monitor_commands: tuple[str, ...]
    mount_arguments: tuple[str, ...] | None = None


def restore_for_qemu(reading: Reading, folder: Path) -> Resumable:
    """
    Make a directory from which a new QEMU resumes a snapshot's guest.

    :raises DestinationExistsError: the directory exists
    :raises UsageError: the snapshot lacks the command line of the guest's QEMU
    """
    saved = load_guest(reading.snapshot)
    if saved.state is not None and not saved.command_line:
        message = (
            "the command line of QEMU could not be read when its guest was saved; start one "
            "like it with -incoming defer, and restore to qmp:SOCKET"
        )
        raise UsageError(message, path=reading.snapshot.shown)
    check_command(saved.command_line)
    final = folder.absolute()
    with PartialDirectory(final) as partial_folder:
        made = _fill_folder(reading, saved, final, partial_folder.partial_path)
        partial_folder.commit()
    return made


def map_for_qemu(reading: Reading, folder: Path) -> Resumable:
    """
    Make a directory for a mount, from which a new QEMU maps a snapshot's guest.

    :raises DestinationExistsError: the directory exists
    :raises UsageError: the snapshot lacks the command line of the guest's QEMU, or that can't map
    """
    source = reading.snapshot
    saved = load_guest(source)
    if not saved.command_line:
        message = "has no command line of QEMU to map its memory: mount it, see docs/mount.md"
        raise UsageError(message, path=source.shown)
    if saved.qemu_version < _FILE_SINCE:
        message = "was saved from a QEMU before 8.2, which can't map memory that it may not write"
        raise UsageError(message, path=source.shown)
    check_command(saved.command_line)
    place = folder.absolute() / _MOUNT
    arguments = (
        *given_command(saved, mapped_backends(source, place)),
        "-incoming",
        f"file:{place / DEVICE_STATE}",
    )
    location = parse_location(source.shown)
    shown = str(location.absolute()) if isinstance(location, Path) else source.shown
    with PartialDirectory(folder.absolute()) as partial_folder:
        (partial_folder.partial_path / _MOUNT).mkdir(0o700)
        partial_folder.commit()
    mount = ("snapmig", "mount", shown, str(place))
    return Resumable(source_format(source), 0, arguments, ("cont",), mount)


def _fill_folder(reading: Reading, saved: SavedGuest, final: Path, folder: Path) -> Resumable:
    # Arguments name files by their final paths, in `final`; they are made in `folder`.
    source = reading.snapshot
    name = source_format(source)
    if saved.state is None:
        mapped = saved.qemu_version >= MAPPED_RAM_SINCE
        state = final / ("guest.mapped-ram" if mapped else "guest.stream")
        part = plan_whole(source, "mapped-ram" if mapped else "qemu-stream")
        pages = restore_new(reading, folder / state.name, part, force=False).data_pages
        option = ("-global", "migration.mapped-ram=on") if mapped else ()
        command = given_command(saved, {})
        arguments = (*command, *option, "-incoming", _uri(state, saved))
        return Resumable(name, pages, arguments, ("cont",))
    files = {
        block.name: final / f"{number}-{_part_of_name(block.name)}.ram"
        for number, block in enumerate(source.geometry.blocks)
    }
    pages = 0
    reading.whole = source.geometry.ram_size
    for block, file in files.items():
        part = plan_block(source, block)
        pages += restore_new(reading, folder / file.name, part, force=False).data_pages
    state = final / "state"
    write_file(folder / state.name, saved.state)
    backends = {name: Backend.file(file, share=True) for name, file in files.items()}
    arguments = (*given_command(saved, backends), "-incoming", "defer")
    return Resumable(name, pages, arguments, _monitor_commands(_uri(state, saved)))


def _part_of_name(text: str) -> str:
    # A block's name is untrusted: only characters without a meaning in paths and in QEMU's options
    # are kept. The number before it keeps names apart.
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)[:_LONGEST_NAME]


def _uri(path: Path, saved: SavedGuest) -> str:
    if saved.qemu_version >= _FILE_SINCE:
        return f"file:{path}"
    return f"exec:cat {shlex.quote(str(path))}"


def _monitor_commands(uri: str) -> tuple[str, ...]:
    # QEMU has no command-line option for this capability, so its monitor must set it.
    escaped = uri.replace("\\", r"\\").replace('"', r"\"")
    quoted = uri if re.fullmatch(r'[^\s"\\]+', uri) else f'"{escaped}"'
    return ("migrate_set_capability x-ignore-shared on", f"migrate_incoming {quoted}", "cont")
