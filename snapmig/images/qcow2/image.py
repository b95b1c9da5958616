"""A guest that QEMU saved inside a disk image, as an image to save."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from snapmig.errors import SnapmigError, UsageError
from snapmig.geometry import PAGE_SIZE, RamBlock
from snapmig.images.file import ImageFile, closed_on_error, opened_files
from snapmig.images.formats import mapped_ram, qemu_stream
from snapmig.images.qcow2.clusters import VmStateFile, find_state_size
from snapmig.images.qcow2.header import SavedVm, read_header, read_snapshots
from snapmig.images.qcow2.lock import lock_against_writers
from snapmig.images.qemu.addresses import place_pc_ram
from snapmig.images.qemu.attachments import attach_vm_state
from snapmig.images.qemu.state import QemuBlock
from snapmig.images.readers.page_table import PageTable
from snapmig.images.source import ImageSource

__all__ = ("open_saved_vm",)

_NAMED = 10
"""Most snapshots named in a message."""
_BITS = 1 << 20
"""Bits of a bitmap looked at together."""


def open_saved_vm(path: str, wanted: str) -> ImageSource:
    """
    Open the memory in an internal snapshot.

    :param wanted: its name, or its ID
    :raises UsageError: there is no such snapshot, or there are several
    :raises SnapmigError: a running guest has the image, or an impossible field
    :raises UnsupportedError: it is encrypted, or in a form not known here
    """
    with opened_files([path]) as (file,):
        header = read_header(file)
        lock_against_writers(file.fd, file.shown)
        saved = _find(file, read_snapshots(file, header), wanted)
        with closed_on_error(VmStateFile(file, header, saved)) as state:
            if not mapped_ram.has_magic(state.read(0, min(1024, state.size))):
                return qemu_stream.open_stream(state, 0, qemu_stream.NAME, state.opener())
            state.release()
            size = find_state_size(file, header, saved)
        saved = saved._replace(vm_state_size=size)
        with closed_on_error(VmStateFile(file, header, saved)) as state:
            return _open_mapped(state, file.size)


def _open_mapped(state: VmStateFile, most: int) -> ImageSource:
    whole, kept = mapped_ram.read_state(state, 0)
    blocks = tuple(RamBlock(block.name, block.length) for block in kept)
    placed, architecture = place_pc_ram(whole, blocks)
    attachments = attach_vm_state(whole)
    try:
        table = PageTable(sum(block.size for block in blocks) // PAGE_SIZE)
    except SnapmigError as error:
        error.path = state.shown
        raise
    with closed_on_error(table):
        _place_pages(state, kept, table.entries, most)
    image = qemu_stream.StreamImage(
        mapped_ram.NAME, state, state.opener(), table, placed, attachments, PAGE_SIZE
    )
    image.architecture = architecture
    return image


def _place_pages(
    state: VmStateFile, blocks: Sequence[QemuBlock], entries: npt.NDArray[np.int64], most: int
) -> None:
    # A page of a bitmap may be several of ours. Only pages with clusters have their bits set, so
    # all of them are in the file.
    first = 0
    for block in blocks:
        assert block.mapped is not None
        size, bitmap, pages = block.mapped
        inside = np.arange(size // PAGE_SIZE) if size <= most else np.empty(0, np.int64)
        for at in range(0, block.length // size, _BITS):
            count = min(_BITS, block.length // size - at)
            raw = state.read(bitmap + at // 8, -(-count // 8))
            bits = np.unpackbits(np.frombuffer(raw, np.uint8), count=count, bitorder="little")
            there = at + np.flatnonzero(bits)
            most -= len(there) * size
            if most < 0:
                message = "the bitmaps of mapped-ram have more pages than the file"
                raise SnapmigError(message, path=state.shown)
            found = (there[:, None] * len(inside) + inside).reshape(-1)
            entries[first + found] = pages + found * PAGE_SIZE
        first += block.length // PAGE_SIZE


def _find(file: ImageFile, snapshots: tuple[SavedVm, ...], wanted: str) -> SavedVm:
    # A name may look like the ID of another; the ID is unique.
    found = [each for each in snapshots if each.id == wanted]
    found = found or [each for each in snapshots if each.name == wanted]
    if not found:
        names = ", ".join(repr(each.name) for each in snapshots[:_NAMED]) or "none"
        message = f"there is no qcow2 snapshot {wanted!r}, the image has: {names}"
        raise UsageError(message, path=file.shown)
    if len(found) > 1:
        message = f"{len(found)} qcow2 snapshots have the name {wanted!r}, give an ID"
        raise UsageError(message, path=file.shown)
    if not found[0].vm_state_size:
        message = (
            f"the qcow2 snapshot {wanted!r} has no memory of a guest: QEMU keeps that in one of "
            "the guest's disks"
        )
        raise SnapmigError(message, path=file.shown)
    return found[0]
