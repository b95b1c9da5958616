"""``save qmp:SOCKET``: a running guest, its RAM and its device state in one snapshot."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from snapmig.container.format import Layout
from snapmig.errors import UsageError
from snapmig.geometry import PAGE_SIZE, Geometry, RamBlock
from snapmig.guests.addresses import Addresses, find_addresses, pieces_of_blocks
from snapmig.guests.guest import Guest, GuestFacts
from snapmig.guests.memory import open_memory
from snapmig.images.file import ImageFile
from snapmig.images.formats import open_image
from snapmig.images.readers.files import Part
from snapmig.images.source import ImageSource, PartsImage
from snapmig.operations.attachments import source_attachments
from snapmig.operations.save_values import SaveOptions, SaveResult
from snapmig.operations.saving import Saving
from snapmig.operations.settings import GUEST_FORMAT, GUEST_PREFIX
from snapmig.stores.location import Location, check_location
from snapmig.system.files import descriptor_path, pread_all
from snapmig.system.libc import huge_page_size

__all__ = ("FACTS", "STATE", "save_guest")

FACTS = "guest.json"
STATE = "state"


def save_guest(socket: str, path: Location, options: SaveOptions) -> SaveResult:
    """
    Save the guest behind a monitor's socket, and let it go on.

    :raises MonitorError: QEMU's monitor can't be reached, or refused something
    :raises UsageError: a live save of a guest that does not share its memory
    """
    check_location(path, force=options.force)
    with Guest(socket) as guest:
        if guest.shares_memory:
            return _save_shared(guest, socket, path, options)
        if options.live:
            message = (
                "a live save needs shared guest memory: -object memory-backend-file,share=on,..."
            )
            raise UsageError(message, path=socket)
        return _save_through_file(guest, socket, path, options)


def _save_shared(guest: Guest, socket: str, path: Location, options: SaveOptions) -> SaveResult:
    if options.live and options.layout != Layout.FIXED:
        raise UsageError("a live save writes packets again, which needs the fixed layout")
    with ExitStack() as stack:
        source = _open_ram(guest, socket)
        stack.callback(source.close)
        saving = stack.enter_context(Saving(source, path, options))
        if options.live:
            saving.look()
        state = os.memfd_create("snapmig-state", os.MFD_CLOEXEC)
        stack.callback(os.close, state)
        with guest.paused() as pause:
            guest.save_state(state)
            place_ram(
                source, find_addresses(guest.monitor)
            )  # firmware may have moved some of it meanwhile
            saving.look(again=options.live)
        if options.live:
            saving.warn_of_writes()
        kept = {
            FACTS: describe(guest.facts),
            STATE: pread_all(state, os.fstat(state).st_size, 0),
        }
        source.attachments = kept
        return saving.finish(source_attachments(source), pause.seconds)


def _save_through_file(
    guest: Guest, socket: str, path: Location, options: SaveOptions
) -> SaveResult:
    # QEMU alone can read this guest's memory, so it writes a file that is then saved as one.
    folder = path.parent if isinstance(path, Path) else Path(tempfile.gettempdir())
    temporary = folder / f".{path.name[:200]}.{os.getpid()}.mapped-ram"
    try:
        with guest.paused() as pause:
            guest.save_file(temporary.absolute(), options.jobs)
            addresses = find_addresses(guest.monitor)
        source = open_image(str(temporary), "mapped-ram")
        place_ram(source, addresses)
        source.shown = f"{GUEST_PREFIX}{socket}"
        try:
            with Saving(source, path, options) as saving:
                saving.warnings.append(
                    "the guest's memory is not shared, so QEMU wrote it to a mapped-ram file "
                    f"in {folder} first; memory-backend-file with share=on avoids that"
                )
                saving.look()
                kept = {**source.attachments, FACTS: describe(guest.facts)}
                source.attachments = kept
                return saving.finish(source_attachments(source), pause.seconds)
        finally:
            source.close()
    finally:
        temporary.unlink(missing_ok=True)


def describe(facts: GuestFacts) -> bytes:
    """Return a guest's facts as the attachment that keeps them."""
    return json.dumps(asdict(facts), indent=1).encode()


def _open_ram(guest: Guest, socket: str) -> PartsImage:
    blocks, files = [], []
    with ExitStack() as stack:
        for memory in guest.facts.memory:
            fd = open_memory(memory, guest.pid, os.O_RDONLY)
            stack.callback(os.close, fd)
            page_size = huge_page_size(descriptor_path(fd)) or PAGE_SIZE
            blocks.append(RamBlock(memory.name, memory.size, page_size=page_size))
            files.append(ImageFile(descriptor_path(fd)))
        geometry = Geometry(tuple(blocks), PAGE_SIZE)
        parts = [
            Part(
                file.path,
                geometry.block_start(number),
                geometry.block_start(number) + memory.size,
                memory.file_offset,
            )
            for number, (file, memory) in enumerate(zip(files, guest.facts.memory, strict=True))
        ]
    source = PartsImage(GUEST_FORMAT, blocks, parts, files)
    source.shown = f"{GUEST_PREFIX}{socket}"
    place_ram(source, find_addresses(guest.monitor))
    return source


def place_ram(source: ImageSource, addresses: Addresses) -> None:
    """Give a source's RAM blocks the guest physical addresses that QEMU told, if it did."""
    sizes = {block.name: block.size for block in source.blocks}
    if pieces := pieces_of_blocks(addresses.regions, sizes):
        source.blocks = tuple(
            replace(block, pieces=pieces.get(block.name, ())) for block in source.blocks
        )
    source.architecture = addresses.architecture or source.architecture
