"""
``restore --for-qemu``: a directory and a command line from which a new QEMU resumes a guest.

The command is that of the guest's own QEMU, with other RAM files. It is refused if it names
descriptors of the guest's first parent process, useless to anybody else.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from snapmig.attachments import source_format
from snapmig.errors import UsageError
from snapmig.operations.runs.read import Reading
from snapmig.operations.runs.restore_guest import MAPPED_RAM_SINCE, SavedGuest, load_guest
from snapmig.operations.runs.restore_inputs import plan_block, plan_whole
from snapmig.operations.runs.restore_output import restore_new
from snapmig.system.files import PartialDirectory, write_file

__all__ = ("Resumable", "check_command", "restore_for_qemu")


_FILE_SINCE = (8, 2)
"""The first QEMU that reads ``file:``."""

_LONGEST_NAME = 100


class Resumable(NamedTuple):
    """
    A directory from which a guest resumes.

    :param format: format of the saved image
    :param data_pages: number of nonzero pages
    :param arguments: the command to start QEMU
    :param monitor_commands: commands for its monitor (HMP) after that
    """

    format: str
    data_pages: int
    arguments: tuple[str, ...]
    monitor_commands: tuple[str, ...]


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


def _fill_folder(reading: Reading, saved: SavedGuest, final: Path, folder: Path) -> Resumable:
    # Arguments name files by their final paths, in `final`; they are made in `folder`.
    source = reading.snapshot
    name = source_format(source)
    if saved.state is None:
        mapped = saved.qemu_version >= MAPPED_RAM_SINCE
        state = final / ("guest.mapped-ram" if mapped else "guest.stream")
        part = plan_whole(source, "mapped-ram" if mapped else "qemu-stream")
        pages = restore_new(reading, folder / state.name, part, force=False)
        option = ("-global", "migration.mapped-ram=on") if mapped else ()
        arguments = (*_command(saved, {}), *option, "-incoming", _uri(state, saved))
        return Resumable(name, pages, arguments, ("cont",))
    files = {
        block.name: final / f"{number}-{_part_of_name(block.name)}.ram"
        for number, block in enumerate(source.geometry.blocks)
    }
    pages = 0
    for block, file in files.items():
        part = plan_block(source, block)
        pages += restore_new(reading, folder / file.name, part, force=False)
    state = final / "state"
    write_file(folder / state.name, saved.state)
    arguments = (*_command(saved, files), "-incoming", "defer")
    return Resumable(name, pages, arguments, _monitor_commands(_uri(state, saved)))


_DESCRIPTOR = re.compile(r"""(^|,)(vhost)?fds?=\d|"(vhost)?fds?"\s*:|/dev/fdset/""")
_LIBVIRT = re.compile(r"^secret,id=masterKey0|\"masterKey0\"|id=charmonitor\b")


def check_command(command: Sequence[str]) -> None:
    """
    Refuse a guest's command line if its saver can't start it again unchanged.

    :raises UsageError: it has numbers of descriptors, as libvirt's do
    """
    found = next((word for word in command if _DESCRIPTOR.search(word)), None)
    if found is None:
        return
    if any(_LIBVIRT.search(word) for word in command):
        raise UsageError(
            f"libvirt started the guest with descriptors of its own, such as {found!r}, so its "
            "command can't be run again: restore with --format libvirt, then use virsh restore"
        )
    raise UsageError(
        f"the guest was started with descriptors, such as {found!r}, so its command can't be run "
        "again: start QEMU in the same way with -incoming defer, then restore to its qmp:SOCKET"
    )


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


def _command(saved: SavedGuest, files: dict[str, Path]) -> list[str]:
    # The guest's original command, without its RAM files and its incoming migration.
    command = saved.command_line
    if not command:
        return ["qemu-system-x86_64", "-machine", saved.machine]
    arguments = []
    skip = False
    for argument in command:
        if skip or argument == "-incoming":
            skip = not skip
            continue
        arguments.append(_with_files(argument, files))
    return arguments


def _with_files(argument: str, files: dict[str, Path]) -> str:
    if argument.startswith("{"):
        return _with_files_json(argument, files)
    pairs = argument.split(",")
    if not pairs[0].removeprefix("qom-type=").startswith("memory-backend-"):
        return argument
    name = next((pair[3:] for pair in pairs if pair.startswith("id=")), "")
    if name not in files:
        return argument
    kept = [p for p in pairs[1:] if not p.startswith(("mem-path=", "share=", "offset="))]
    return ",".join(["memory-backend-file", *kept, f"mem-path={_option(files[name])}", "share=on"])


def _option(path: Path) -> str:
    return str(path).replace(",", ",,")


def _with_files_json(argument: str, files: dict[str, Path]) -> str:
    # libvirt writes -object as JSON.
    try:
        value = json.loads(argument)
    except (ValueError, RecursionError):
        return argument
    name = value.get("id")
    if not str(value.get("qom-type", "")).startswith("memory-backend-"):
        return argument
    if not isinstance(name, str) or name not in files:
        return argument
    value.pop("offset", None)
    value |= {"qom-type": "memory-backend-file", "mem-path": str(files[name]), "share": True}
    return json.dumps(value)
