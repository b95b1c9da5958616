"""``restore ... qmp:SOCKET``: a snapshot's guest, back into a waiting QEMU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from snapmig.attachments import StoredAttachment, source_format
from snapmig.errors import SnapmigError, UsageError
from snapmig.geometry import RamBlock
from snapmig.guests.file_migrations import file_format, load_file, load_state
from snapmig.guests.guest import Guest
from snapmig.guests.incoming import waits_for_memory
from snapmig.guests.memory import GuestMemory
from snapmig.guests.wait import MonitorWait
from snapmig.images.target import TargetPlan
from snapmig.migration.compression import WireCompression
from snapmig.migration.source_stream import has_flushes
from snapmig.operations.options.parse import (
    GUEST_PREFIX,
    MAPPED_RAM,
    MULTIFD,
    POSTCOPY,
    SHARED,
    WAYS,
    WayIn,
)
from snapmig.operations.runs.read import Reading
from snapmig.operations.runs.restore_inputs import plan_block, plan_whole
from snapmig.operations.runs.restore_output import fill, restore_nameless
from snapmig.operations.runs.saved_guest import SavedGuest, load_guest
from snapmig.system.files import descriptor_path, pwrite_all
from snapmig.system.libc import huge_page_size
from snapmig.system.signals import remarked

if TYPE_CHECKING:
    from snapmig.operations.runs.restore_postcopy import Served

__all__ = ("IntoGuest", "restore_guest")

_LOADING = "QEMU loads the rest"


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
        lacks_memory = way.postcopy and waits_for_memory(guest)
        if not lacks_memory:
            _check_fits(guest, saved, source.geometry.blocks)
        if way.postcopy:
            # Each way's modules are imported with it: the guest waits for the others' as well.
            from snapmig.operations.runs import restore_postcopy  # noqa: PLC0415

            if lacks_memory:
                served = restore_postcopy.resume_serving(reading, guest)
            else:
                served = restore_postcopy.serve_guest(reading, guest, started, way.working_set)
            return IntoGuest(name, served.data_pages, POSTCOPY, served)
        via = _choose_way(guest, saved, way)
        if via == MULTIFD:
            from snapmig.operations.runs.restore_multifd import send_to_guest  # noqa: PLC0415

            with remarked("the migration was broken off"):
                return IntoGuest(name, send_to_guest(reading, guest, way.compression), via)
        if via == MAPPED_RAM or saved.state is None:
            return IntoGuest(name, _start_from_file(reading, guest), via)
        reading.whole = sum(memory.size for memory in guest.facts.memory)
        remarks = remarked("QEMU still waits for its guest")
        with remarks, guest.open_memory(os.O_RDWR) as opened:
            data_pages = sum(
                _fill_memory(reading, socket, memory, fd)
                for memory, fd in zip(guest.facts.memory, opened, strict=True)
            )
        reading.tell(_LOADING)
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
    return fill(
        reading, target, plan_block(reading.snapshot, memory.name, memory.file_offset)
    ).data_pages


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
        reading.tell(_LOADING)
        load_file(guest, fd)
    guest.run()
    return pages


def _layout(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} of {size} bytes" for name, size in sizes.items()) or "none"
