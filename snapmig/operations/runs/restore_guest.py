"""``restore ... qmp:SOCKET``: a snapshot's guest, back into a waiting QEMU."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from snapmig.attachments import SOURCE_PREFIX, Attachments, StoredAttachment, source_format
from snapmig.container.reader import SnapshotFile
from snapmig.errors import CorruptSnapshotError, SnapmigError, UsageError
from snapmig.geometry import RamBlock
from snapmig.guests.file_migrations import file_format, load_file, load_state
from snapmig.guests.guest import Guest
from snapmig.guests.incoming import waits_for_memory
from snapmig.guests.memory import GuestMemory
from snapmig.guests.wait import MonitorWait
from snapmig.images.qemu.attachments import SHARED_STATE, load_vm_state
from snapmig.images.target import TargetPlan
from snapmig.migration.source_stream import has_flushes
from snapmig.migration.wire import WireCompression
from snapmig.operations.options.parse import (
    GUEST_FORMAT,
    GUEST_PREFIX,
    MAPPED_RAM,
    MULTIFD,
    POSTCOPY,
    SHARED,
    WAYS,
    WayIn,
)
from snapmig.operations.runs.guest_facts import FACTS, parse_facts
from snapmig.operations.runs.read import Reading
from snapmig.operations.runs.restore_inputs import plan_block, plan_whole
from snapmig.operations.runs.restore_multifd import send_to_guest
from snapmig.operations.runs.restore_output import fill, restore_nameless
from snapmig.operations.runs.restore_postcopy import Served, resume_serving, serve_guest
from snapmig.system.files import descriptor_path, pwrite_all
from snapmig.system.libc import huge_page_size

__all__ = ("MAPPED_RAM_SINCE", "IntoGuest", "SavedGuest", "load_guest", "restore_guest")

MAPPED_RAM_SINCE = (9, 0)
"""The first QEMU with mapped-ram files."""


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
    qemu_version: tuple[int, ...] = MAPPED_RAM_SINCE


def load_guest(source: SnapshotFile) -> SavedGuest:
    """
    Return the guest of a snapshot.

    :raises UsageError: the saved image had no device state of QEMU
    :raises CorruptSnapshotError: its attachments were not written by snapmig
    """
    attachments = Attachments(source, SOURCE_PREFIX, limited=True)
    try:
        return _load_guest(attachments, source)
    except SnapmigError as error:
        error.path = error.path or source.shown
        raise


def _load_guest(attachments: Attachments, source: SnapshotFile) -> SavedGuest:
    from_guest = source_format(source) == GUEST_FORMAT
    for name in (FACTS, SHARED_STATE):
        if from_guest and name not in attachments:
            raise CorruptSnapshotError(
                f"has no attachment {name}, though a running guest was saved"
            )
    facts = None
    if FACTS in attachments:
        facts = parse_facts(attachments[FACTS], source.geometry.blocks, complete=from_guest)
    if facts is not None and from_guest:
        saved = SavedGuest(facts.machine, attachments.pieces(SHARED_STATE))
    else:
        state = load_vm_state(attachments, "a resume", source.geometry.blocks)
        saved = SavedGuest(state.machine, None)
    if facts is None:
        return saved
    version = tuple(int(number) for number in re.findall(r"\d+", facts.qemu_version))
    return replace(saved, command_line=facts.command_line, qemu_version=version)


class IntoGuest(NamedTuple):
    """
    The result of a restore into a QEMU.

    :ivar format: of the saved image
    :ivar served: None unless the guest ran first
    """

    format: str
    data_pages: int
    via: str
    served: Served | None = None


def restore_guest(
    reading: Reading, socket: str, wait: MonitorWait, way: WayIn, started: float
) -> IntoGuest:
    """
    Load a snapshot into a waiting QEMU and let it run.

    :param started: beginning of the restore, by :func:`time.monotonic`
    :raises UsageError: the way asked for can't be gone with this QEMU or snapshot
    :raises SnapmigError: the QEMU does not fit; it is still untouched
    """
    source = reading.snapshot
    name = source_format(source)
    saved = load_guest(source)
    with Guest(socket, wait) as guest:
        if way.postcopy and waits_for_memory(guest):
            served = resume_serving(reading, guest)
            return IntoGuest(name, served.data_pages, POSTCOPY, served)
        _check_fits(guest, saved, source.geometry.blocks)
        if way.postcopy:
            served = serve_guest(reading, guest, started, way.working_set)
            return IntoGuest(name, served.data_pages, POSTCOPY, served)
        via = _choose_way(guest, saved, way)
        if via == MULTIFD:
            return IntoGuest(name, send_to_guest(reading, guest, way.compression), via)
        if via == MAPPED_RAM or saved.state is None:
            return IntoGuest(name, _start_from_file(reading, guest), via)
        with guest.open_memory(os.O_RDWR) as opened:
            data_pages = sum(
                _fill_memory(reading, socket, memory, fd)
                for memory, fd in zip(guest.facts.memory, opened, strict=True)
            )
        _start(guest, saved.state)
    return IntoGuest(name, data_pages, via)


def _choose_way(guest: Guest, saved: SavedGuest, way: WayIn) -> str:
    for each in WAYS if way.via is None else (way.via,):
        problem = _problem_of(each, guest, saved, way)
        if problem is None:
            return each
        if each == way.via:
            raise UsageError(f"the guest can't be restored via {each}: {problem}")
    raise UsageError(f"the guest can't be restored with frames on the wire: {problem}")


def _problem_of(each: str, guest: Guest, saved: SavedGuest, way: WayIn) -> str | None:
    if each == MULTIFD:
        return _multifd_problem(guest, saved)
    if way.compression != WireCompression.NONE:
        return "only multifd has compressed pages"
    if each == SHARED and saved.state is None:
        return "its device state is not apart from its RAM"
    return guest.unshared if each == SHARED else None


def _multifd_problem(guest: Guest, saved: SavedGuest) -> str | None:
    if saved.state is not None and not has_flushes(saved.machine, guest.version):
        # Its state has sections of its own with pages, and each section is a mark there.
        return "QEMU 7.2 and 8.0 can't be sent pages that are a part of the device state"
    return guest.multifd_problem


def _check_fits(guest: Guest, saved: SavedGuest, blocks: tuple[RamBlock, ...]) -> None:
    path = guest.monitor.path
    if guest.status != "inmigrate":
        message = f"QEMU is {guest.status}, expected one started with -incoming defer"
        raise SnapmigError(message, path=path)
    if guest.facts.machine != saved.machine:
        message = f"QEMU's machine type is {guest.facts.machine}, the snapshot's {saved.machine}"
        raise SnapmigError(message, path=path)
    wanted = {block.name: block.size for block in blocks}
    if saved.state is None or guest.unshared is not None:  # with the blocks of firmware too
        found = {item.name: item.size for item in guest.facts.memory}
        wanted = {name: size for name, size in wanted.items() if name in found}
    else:
        found = {item.name: item.size for item in guest.facts.memory if item.shared}
    kind = "shared RAM" if guest.unshared is None else "RAM"
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
        load_state(guest, fd)
    finally:
        os.close(fd)
    guest.run()


def _start_from_file(reading: Reading, guest: Guest) -> int:
    # Only QEMU can write this guest's memory, so it reads a file made for it.
    folder = Path(os.environ.get("TMPDIR", "/var/tmp"))
    part = plan_whole(reading.snapshot, file_format(guest))
    with restore_nameless(reading, folder, part) as (fd, pages):
        load_file(guest, fd)
    guest.run()
    return pages


def _layout(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} of {size} bytes" for name, size in sizes.items()) or "none"
