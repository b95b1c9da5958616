"""``save qmp:SOCKET`` and ``libvirt:DOMAIN``: a running guest, its RAM and its device state."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from snapmig.attachments import DOMAIN_XML, source_attachments
from snapmig.container.format import Layout
from snapmig.errors import UsageError
from snapmig.geometry import PAGE_SIZE, Geometry, RamBlock, block_problem
from snapmig.guests.addresses import Addresses, find_addresses, pieces_of_blocks
from snapmig.guests.domain import Domain
from snapmig.guests.guest import Guest
from snapmig.images.file import ImageFile
from snapmig.images.formats import open_image
from snapmig.images.qemu.attachments import SHARED_STATE
from snapmig.images.readers.files import Part
from snapmig.images.readers.parts import PartsImage
from snapmig.images.source import ImageSource
from snapmig.operations.options.parse import GUEST_FORMAT, guest_name
from snapmig.operations.options.save import SaveOptions, SaveResult
from snapmig.operations.runs.guest_facts import FACTS, describe
from snapmig.operations.runs.save import open_save_run
from snapmig.stores.location import Location
from snapmig.stores.opening import check_location
from snapmig.system.files import NamelessFile, descriptor_path, pread_all
from snapmig.system.libc import huge_page_size

__all__ = ("STATE", "save_guest")

STATE = SHARED_STATE
_REMEDY = "memory-backend-file with share=on and mem-path avoids that"
_DOMAIN_REMEDY = (
    "<source type='file'/> and <access mode='shared'/> in the domain's <memoryBacking> avoid that"
)
_HIDDEN_REMEDY = "root, or QEMU's user, can avoid that"


def save_guest(source: str | Domain, path: Location, options: SaveOptions) -> SaveResult:
    """
    Save the guest behind a monitor's socket, or of libvirt's, and let it continue.

    :raises MonitorError: QEMU's monitor can't be reached, or refused a command
    :raises UsageError: a live save of a guest without shared memory
    """
    check_location(path, force=options.force)
    shown = guest_name(source)
    with Guest(source, options.monitor) as guest:
        guest.check_can_be_saved()
        if guest.unshared is None:
            return _save_shared(guest, shown, path, options)
        if options.live:
            message = (
                f"a live save needs shared guest memory, but {guest.unshared}; {_remedy(guest)}"
            )
            raise UsageError(message, path=guest.monitor.path)
        return _save_through_file(guest, shown, path, options)


def _save_shared(guest: Guest, shown: str, path: Location, options: SaveOptions) -> SaveResult:
    if options.live and options.layout != Layout.FIXED:
        raise UsageError("a live save writes packets again, so it needs the fixed layout")
    with ExitStack() as stack:
        source = stack.enter_context(_open_ram(guest, shown))
        run = stack.enter_context(open_save_run(source, path, options))
        if options.live:
            run.write_pass()
        state = os.memfd_create("snapmig-state", os.MFD_CLOEXEC)
        stack.callback(os.close, state)
        with guest.paused() as pause:
            guest.save_state(state)
            domain = _domain_xml(guest, options)
            place_ram(
                source, find_addresses(guest.monitor)
            )  # firmware may have moved some of it meanwhile
            run.write_pass(changed_only=options.live)
        if options.live:
            run.warn_of_writes()
        kept = {
            FACTS: describe(guest.facts),
            STATE: pread_all(state, os.fstat(state).st_size, 0),
        }
        source.attachments = kept
        return run.finish({**source_attachments(source), **domain}, pause.seconds)


def _save_through_file(
    guest: Guest, shown: str, path: Location, options: SaveOptions
) -> SaveResult:
    # Only QEMU can read this guest's memory, so it writes a file, and the file is saved.
    folder = path.parent if isinstance(path, Path) else Path(tempfile.gettempdir())
    with ExitStack() as stack:
        file = stack.enter_context(NamelessFile(folder))
        with guest.paused() as pause:
            kind = guest.save_file(file.fd, options.jobs)
            domain = _domain_xml(guest, options)
            addresses = find_addresses(guest.monitor)
        source = open_image(descriptor_path(file.fd), kind)
        place_ram(source, addresses)
        source.shown = shown
        stack.callback(source.close)
        run = stack.enter_context(open_save_run(source, path, options))
        run.warnings.append(
            f"{guest.unshared}, so QEMU wrote all RAM to a {kind} file in {folder} first; "
            f"{_remedy(guest)}"
        )
        run.write_pass()
        kept = {**source.attachments, FACTS: describe(guest.facts)}
        source.attachments = kept
        return run.finish({**source_attachments(source), **domain}, pause.seconds)


def _remedy(guest: Guest) -> str:
    if guest.monitor.peer is None and all(item.shared for item in guest.facts.memory):
        return _HIDDEN_REMEDY
    return _REMEDY if guest.monitor.renewal is None else _DOMAIN_REMEDY


def _domain_xml(guest: Guest, options: SaveOptions) -> dict[str, bytes]:
    # The definition at the moment of the pause, since devices come and go.
    xml = None if DOMAIN_XML in options.attach else guest.monitor.domain_xml()
    return {} if xml is None else {DOMAIN_XML: xml}


@contextmanager
def _open_ram(guest: Guest, shown: str) -> Iterator[PartsImage]:
    memory = guest.facts.memory
    with guest.open_memory(os.O_RDONLY) as opened:
        paths = [descriptor_path(fd) for fd in opened]
        blocks = [
            RamBlock(item.name, item.size, page_size=huge_page_size(path) or PAGE_SIZE)
            for item, path in zip(memory, paths, strict=True)
        ]
        files = [ImageFile(path) for path in paths]
    geometry = Geometry(tuple(blocks), PAGE_SIZE)
    parts = [
        Part(
            file.path,
            geometry.block_start(number),
            geometry.block_start(number) + item.size,
            item.file_offset,
        )
        for number, (file, item) in enumerate(zip(files, memory, strict=True))
    ]
    source = PartsImage(GUEST_FORMAT, blocks, parts, files)
    source.shown = shown
    place_ram(source, find_addresses(guest.monitor))
    try:
        yield source
    finally:
        source.close()


def place_ram(source: ImageSource, addresses: Addresses) -> None:
    """Give a source's RAM blocks the guest physical addresses reported by QEMU, if any."""
    pieces = pieces_of_blocks(
        addresses.regions, {block.name: block.size for block in source.blocks}
    )
    placed = tuple(replace(block, pieces=pieces.get(block.name, ())) for block in source.blocks)
    # Impossible addresses are no reason to leave a guest unsaved.
    if pieces and block_problem(placed) is None:
        source.blocks = placed
    source.architecture = addresses.architecture or source.architecture
