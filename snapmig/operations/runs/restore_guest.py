"""``restore ... qmp:SOCKET`` and ``--for-qemu``: a snapshot back into a QEMU."""

from __future__ import annotations

import json
import os
import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from snapmig.attachments import StoredAttachment, source_format
from snapmig.container.reader import SnapshotFile
from snapmig.errors import CorruptSnapshotError, SnapmigError, UsageError
from snapmig.geometry import RamBlock
from snapmig.guests.guest import Guest
from snapmig.guests.memory import GuestMemory
from snapmig.guests.wait import MonitorWait
from snapmig.images.qemu.attachments import load_vm_state
from snapmig.images.target import TargetPlan
from snapmig.operations.options.parse import GUEST_FORMAT, GUEST_PREFIX
from snapmig.operations.runs.foreign_command import check_command
from snapmig.operations.runs.guest_facts import FACTS, parse_facts
from snapmig.operations.runs.read import Reading
from snapmig.operations.runs.restore import (
    SourceAttachments,
    fill,
    plan_block,
    plan_whole,
    restore_nameless,
    restore_new,
)
from snapmig.operations.runs.save_guest import STATE
from snapmig.system.files import PartialDirectory, descriptor_path, pwrite_all, write_file
from snapmig.system.libc import huge_page_size

_FILE_SINCE = (8, 2)
"""The first QEMU that reads ``file:``."""
_MAPPED_RAM_SINCE = (9, 0)

__all__ = ("Resumable", "SavedGuest", "load_guest", "restore_for_qemu", "restore_guest")

_LONGEST_NAME = 100


@dataclass(frozen=True)
class SavedGuest:
    """
    A snapshot's guest besides its RAM.

    :param state: QEMU's device state without shared RAM, in pieces; None if the snapshot was made
        from a migration file with everything
    :param command_line: of the QEMU it was saved from, or empty
    :param qemu_version: of that QEMU; a recent one if unknown
    """

    machine: str
    state: StoredAttachment | None
    command_line: tuple[str, ...] = ()
    qemu_version: tuple[int, ...] = _MAPPED_RAM_SINCE


@dataclass(frozen=True)
class Resumable:
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


def load_guest(source: SnapshotFile) -> SavedGuest:
    """
    Return the guest of a snapshot.

    :raises UsageError: the saved image had no device state of QEMU
    :raises CorruptSnapshotError: its attachments were not written by snapmig
    """
    attachments = SourceAttachments(source)
    try:
        return _load_guest(attachments, source)
    except SnapmigError as error:
        error.path = error.path or source.shown
        raise


def _load_guest(attachments: SourceAttachments, source: SnapshotFile) -> SavedGuest:
    from_guest = source_format(source) == GUEST_FORMAT
    for name in (FACTS, STATE):
        if from_guest and name not in attachments:
            raise CorruptSnapshotError(
                f"has no attachment {name}, though a running guest was saved"
            )
    facts = None
    if FACTS in attachments:
        facts = parse_facts(attachments[FACTS], source.geometry.blocks, complete=from_guest)
    if facts is not None and from_guest:
        saved = SavedGuest(facts.machine, attachments.pieces(STATE))
    else:
        state = load_vm_state(attachments, "a resume", source.geometry.blocks)
        saved = SavedGuest(state.machine, None)
    if facts is None:
        return saved
    version = tuple(int(number) for number in re.findall(r"\d+", facts.qemu_version))
    return replace(saved, command_line=facts.command_line, qemu_version=version)


def restore_guest(reading: Reading, socket: str, wait: MonitorWait) -> tuple[str, int]:
    """
    Load a snapshot into a waiting QEMU and let it run; return format and number of nonzero pages.

    :raises SnapmigError: the QEMU does not fit; it is still untouched
    """
    source = reading.snapshot
    name = source_format(source)
    saved = load_guest(source)
    with Guest(socket, wait) as guest:
        _check_fits(guest, saved, source.geometry.blocks)
        if saved.state is None:
            return name, _start_from_file(reading, guest)
        with guest.open_memory(os.O_RDWR) as opened:
            data_pages = sum(
                _fill_memory(reading, socket, memory, fd)
                for memory, fd in zip(guest.facts.memory, opened, strict=True)
            )
        _start(guest, saved.state)
    return name, data_pages


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
        mapped = saved.qemu_version >= _MAPPED_RAM_SINCE
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


def _part_of_name(text: str) -> str:
    # A block's name is untrusted: only characters without a meaning in paths and in QEMU's options
    # are kept. The number before it keeps names apart.
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)[:_LONGEST_NAME]


def _check_fits(guest: Guest, saved: SavedGuest, blocks: tuple[RamBlock, ...]) -> None:
    path = guest.monitor.path
    if guest.status != "inmigrate":
        message = f"QEMU is {guest.status}, expected one started with -incoming defer"
        raise SnapmigError(message, path=path)
    if guest.facts.machine != saved.machine:
        message = f"QEMU's machine type is {guest.facts.machine}, the snapshot's {saved.machine}"
        raise SnapmigError(message, path=path)
    wanted = {block.name: block.size for block in blocks}
    if saved.state is None:  # a migration file, with the blocks of firmware too
        found = {item.name: item.size for item in guest.facts.memory}
        wanted = {name: size for name, size in wanted.items() if name in found}
    else:
        found = {item.name: item.size for item in guest.facts.memory if item.shared}
    kind = "RAM" if saved.state is None else "shared RAM"
    if found != wanted:
        message = f"QEMU's {kind} is {_layout(found)}, the snapshot's {_layout(wanted)}"
        raise SnapmigError(message, path=path)


def _fill_memory(reading: Reading, socket: str, memory: GuestMemory, fd: int) -> int:
    path = descriptor_path(fd)
    target = TargetPlan(
        path=path,
        shown=f"memory of {GUEST_PREFIX}{socket}",
        needed=memory.size,
        in_place=True,
        huge_page_size=huge_page_size(path),
    )
    return fill(reading, target, plan_block(reading.snapshot, memory.name, memory.file_offset))


def _start(guest: Guest, state: StoredAttachment) -> None:
    fd = os.memfd_create("snapmig-state", os.MFD_CLOEXEC)
    try:
        at = 0
        for piece in state:
            pwrite_all(fd, piece, at)
            at += len(piece)
        guest.load_state(fd)
    finally:
        os.close(fd)
    guest.run()


def _start_from_file(reading: Reading, guest: Guest) -> int:
    # Only QEMU can write this guest's memory, so it reads a file made for it.
    folder = Path(os.environ.get("TMPDIR", "/var/tmp"))
    part = plan_whole(reading.snapshot, guest.file_format)
    with restore_nameless(reading, folder, part) as (fd, pages):
        guest.load_file(fd)
    guest.run()
    return pages


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


def _layout(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} of {size} bytes" for name, size in sizes.items()) or "none"
