"""Saves of a guest's memory where it is: in files shared with QEMU, or in a file made by QEMU."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from snapmig.attachments import source_attachments
from snapmig.container.format import Layout, Sealing
from snapmig.errors import UsageError
from snapmig.geometry import PAGE_SIZE, Geometry, RamBlock
from snapmig.guests.addresses import find_addresses
from snapmig.guests.file_migrations import save_file, state_saved
from snapmig.guests.guest import Guest
from snapmig.guests.pause import paused
from snapmig.images.file import ImageFile
from snapmig.images.formats import open_image
from snapmig.images.qemu.kept_state import SHARED_STATE
from snapmig.images.readers.files import Part
from snapmig.images.readers.parts import PartsImage
from snapmig.operations.options.parse import GUEST_FORMAT, MAPPED_RAM, SHARED
from snapmig.operations.options.save import SaveOptions, SaveResult
from snapmig.operations.progress import phase_reporter
from snapmig.operations.runs.guest_extras import (
    domain_xml,
    facts_of,
    place_ram,
    with_page_sizes,
)
from snapmig.operations.runs.save import open_save_run
from snapmig.stores.location import Location
from snapmig.system.files import descriptor_path, pread_all
from snapmig.system.libc import huge_page_size
from snapmig.system.partial import NamelessFile

__all__ = ("save_shared", "save_through_file")

_REMEDY = "memory-backend-file with share=on and mem-path avoids that"
_DOMAIN_REMEDY = (
    "<source type='file'/> and <access mode='shared'/> in the domain's <memoryBacking> avoid that"
)
_HIDDEN_REMEDY = "root, or QEMU's user, can avoid that"


def save_shared(guest: Guest, shown: str, path: Location, options: SaveOptions) -> SaveResult:
    """
    Save a guest from its memory, shared with us.

    :param shown: the guest, for people
    :raises UsageError: a live save into the packed layout
    """
    if options.live and options.layout != Layout.FIXED:
        raise UsageError("a live save writes packets again, so it needs the fixed layout")
    with ExitStack() as stack:
        source = stack.enter_context(_open_ram(guest, shown))
        run = stack.enter_context(open_save_run(source, path, options))
        if options.live:
            run.write_pass()
            run.catch_up()
        state = os.memfd_create("snapmig-state", os.MFD_CLOEXEC)
        stack.callback(os.close, state)
        with paused(guest) as pause:
            domain = domain_xml(guest, options)
            with state_saved(guest, state, keep=pause.keeps_state):
                # Firmware may have moved some of it meanwhile.
                place_ram(source, find_addresses(guest.monitor))
                # The last pass of a live save has no time for a limit.
                run.write_pass(changed_only=bool(options.live), limited=not options.live)
                pause.end()
        if options.live:
            run.warn_of_writes()
        kept = {
            **facts_of(guest, SHARED),
            SHARED_STATE: pread_all(state, os.fstat(state).st_size, 0),
        }
        source.attachments = kept
        return run.finish({**source_attachments(source), **domain}, pause.seconds)


def save_through_file(guest: Guest, shown: str, path: Location, options: SaveOptions) -> SaveResult:
    """
    Save a guest from a file that QEMU writes: only QEMU can read its memory.

    :param shown: the guest, for people
    """
    folder = path.parent if isinstance(path, Path) else Path(tempfile.gettempdir())
    with ExitStack() as stack:
        file = stack.enter_context(NamelessFile(folder))
        with paused(guest) as pause:
            domain = domain_xml(guest, options)
            ram_size = sum(item.size for item in guest.facts.memory)
            report = phase_reporter(options.progress, "QEMU writes a file")

            def poll() -> None:  # zeros take no place, and device states some
                report(min(os.fstat(file.fd).st_blocks * 512, ram_size - 1), ram_size)

            kind = save_file(guest, file.fd, options.jobs, poll, keep=pause.keeps_state)
            report(ram_size, ram_size)
            addresses = find_addresses(guest.monitor)
        source = open_image(descriptor_path(file.fd), kind)
        source.blocks = with_page_sizes(source.blocks, guest)
        place_ram(source, addresses)
        source.shown = shown
        stack.callback(source.close)
        run = stack.enter_context(open_save_run(source, path, options))
        if guest.unshared is not None:
            run.warnings.append(
                f"{guest.unshared}, so QEMU wrote all RAM to a {kind} file in {folder} first; "
                f"{_remedy(guest)}"
            )
        if options.sealing == Sealing.ENCRYPTED:
            run.warnings.append(
                f"QEMU wrote all RAM to a file without a name in {folder} first, as it is: what "
                "that disk keeps of removed files is not encrypted"
            )
        run.write_pass()
        kept = {**source.attachments, **facts_of(guest, MAPPED_RAM)}
        source.attachments = kept
        return run.finish({**source_attachments(source), **domain}, pause.seconds)


def _remedy(guest: Guest) -> str:
    if guest.monitor.peer is None and all(item.shared for item in guest.facts.memory):
        return _HIDDEN_REMEDY
    return _REMEDY if guest.monitor.renewal is None else _DOMAIN_REMEDY


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
