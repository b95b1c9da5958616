"""Inputs of a restore: packets of a snapshot, and the plan of the image they go to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import numpy as np

from snapmig.attachments import (
    DOMAIN_XML,
    SOURCE_PREFIX,
    Attachments,
    load_attachment,
)
from snapmig.container.format import PageKind
from snapmig.container.index import unpack_kinds
from snapmig.container.reader import SnapshotFile
from snapmig.errors import CorruptSnapshotError, SnapmigError, UnsupportedError, UsageError
from snapmig.geometry import PAGE_SIZE
from snapmig.images.formats import find_format
from snapmig.images.plan import Content, ImagePlan, Placer, block_starts
from snapmig.operations.options.addresses import Placing, place_blocks
from snapmig.pages import Mask

__all__ = ("Part", "content_of", "plan_block", "plan_whole")


LIBVIRT_FORMAT = "libvirt"
_INDEX_STEP = 4096


class Part(NamedTuple):
    """Packets to restore, the size of their RAM, and the places of everything."""

    packets: range
    ram_size: int
    pages: int
    image: ImagePlan
    placer: Placer


def plan_whole(
    source: SnapshotFile,
    name: str,
    domain_xml: bytes | None = None,
    placing: Placing = Placing(),  # noqa: B008 - immutable
    *,
    keep_going: bool = False,
    kernel_note: Callable[[], bytes | None] = lambda: None,
) -> Part:
    """
    Plan a whole snapshot as an image of a format.

    :param domain_xml: libvirt's definition of the guest, preferred to any in the snapshot
    :param keep_going: take packets with a damaged record for zeros
    :param kernel_note: as in :class:`~snapmig.images.plan.Content`
    :raises UsageError: the snapshot lacks something needed by the format
    :raises CorruptSnapshotError: an attachment needed for it is invalid
    """
    geometry = source.geometry
    content = content_of(source, domain_xml, placing)._replace(kernel_note=kernel_note)
    if keep_going:
        content = content._replace(data_pages=partial(_known_pages, source))
    if name == LIBVIRT_FORMAT and content.domain_xml is None:
        content = content._replace(domain_xml=_attached_xml(source))
    try:
        plan = find_format(name).plan_image(content)
    except SnapmigError as error:
        error.path = error.path or source.shown
        raise
    placer = plan.placer or Placer(plan.block_offsets, block_starts(geometry.blocks))
    pages = sum(-(-block.size // PAGE_SIZE) for block in geometry.blocks)
    return Part(range(geometry.packet_count), geometry.ram_size, pages, plan, placer)


def content_of(
    source: SnapshotFile,
    domain_xml: bytes | None = None,
    placing: Placing = Placing(),  # noqa: B008 - immutable
) -> Content:
    """Return a snapshot's contents for a format; the parameters are those of a plan."""
    geometry = source.geometry
    # The user's addresses take precedence over those of a saved core.
    kept = {} if any(placing) else Attachments(source, SOURCE_PREFIX, limited=True)
    return Content(
        blocks=place_blocks(geometry.blocks, placing.addresses),
        attachments=kept,
        packet_pages=geometry.packet_pages,
        data_pages=partial(_data_pages, source),
        architecture=placing.architecture or source.architecture,
        domain_xml=domain_xml,
    )


def _attached_xml(source: SnapshotFile) -> bytes | None:
    # A save image's definition is better: it was the guest's at that moment.
    entries = {entry.name: entry for entry in source.attachments}
    if DOMAIN_XML not in entries or f"{SOURCE_PREFIX}libvirt.head" in entries:
        return None
    return load_attachment(source, entries[DOMAIN_XML])


def plan_block(source: SnapshotFile, name: str, file_offset: int = 0) -> Part:
    """
    Plan one RAM block of a snapshot as a raw image, or as a part of a file.

    :raises UsageError: there is no block of that name
    """
    geometry = source.geometry
    names = [known.name for known in geometry.blocks]
    if name not in names:
        message = f"has no RAM block {name!r}, it has {', '.join(names[:20])}"
        raise UsageError(message, path=source.shown)
    number = names.index(name)
    size = geometry.blocks[number].size
    starts = [geometry.block_start(number)] * len(names)
    plan = ImagePlan(size, (file_offset,) * len(names))
    packets, pages = geometry.block_packets(number), -(-size // PAGE_SIZE)
    return Part(packets, size, pages, plan, Placer(plan.block_offsets, starts))


def _data_pages(source: SnapshotFile, block: int) -> Iterator[Mask]:
    packets = source.geometry.block_packets(block)
    for first in range(packets.start, packets.stop, _INDEX_STEP):
        records = source.checked_records(first, min(_INDEX_STEP, packets.stop - first))
        kinds = records["kinds"].reshape(-1)
        pages = len(records) * source.geometry.packet_pages
        yield unpack_kinds(kinds, pages) != PageKind.ZERO


def _known_pages(source: SnapshotFile, block: int) -> Iterator[Mask]:
    # The same, zeros for what a damaged record says.
    geometry = source.geometry
    for packet in geometry.block_packets(block):
        found = np.zeros(geometry.packet_pages, np.bool_)
        with suppress(CorruptSnapshotError, UnsupportedError):
            found = source.packet(geometry.place(packet)).in_use
        yield found
