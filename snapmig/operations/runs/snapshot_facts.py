"""Facts about a snapshot, from its superblock, tables and index."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from snapmig.architectures import architecture_name
from snapmig.attachments import (
    SOURCE_PREFIX,
    Attachments,
    parent_sealing,
    source_format,
    source_way,
)
from snapmig.container.format import COMPRESSED, Encoding, Layout, PageKind, Sealing
from snapmig.container.head import SnapshotHead
from snapmig.errors import CorruptSnapshotError
from snapmig.geometry import PAGE_SIZE, RamBlock
from snapmig.images.qemu.kept_state import left_out

__all__ = ("AttachmentInfo", "BlockInfo", "SnapshotInfo", "facts_of")


@dataclass(frozen=True, slots=True)
class AttachmentInfo:
    """An attachment's name and sizes in bytes."""

    name: str
    size: int
    stored_size: int


@dataclass(frozen=True, slots=True)
class BlockInfo(RamBlock):
    """
    A RAM block.

    :param offset: its start in the file, where it can be mapped: every page is at its place, and
        zero pages are zeros; None if pages are compressed, packed or a parent's
    """

    offset: int | None = None


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """
    Facts about a snapshot; sizes are in bytes.

    :param parent_id: the ``snapshot_id`` of its parent
    :param left_out_blocks: names and sizes of RAM blocks missing because the image was a migration
        file made with x-ignore-shared
    :param data_pages: nonzero pages, including ``same_pages`` of the parent and ``delta_pages``
        stored as differences from it
    :param architecture: of the guest's processors, for example ``x86_64``; None if unknown
    :param root: SHA-256 of its superblock, and so of all that it holds, in hexadecimal digits
    :param sealing: ``none``, ``signed`` or ``encrypted``
    :param parent_sealing: that of a parent which is sealed in another way, else None
    :param sealed_for: its key slots, in words
    :param proved: a key has shown that tables and index are what was sealed
    :param source: format of the image it was made from; None if that can't be read without a key
    :param via: the way to the RAM of the running guest that was saved; None for others
    :param created: time of the commit, ISO 8601 in UTC
    :param window_bits: base-2 logarithm of the history needed by a deflate decoder, in bytes
    :param page_digests: it has a digest of each page
    :param packets: number of packets in each encoding
    :param stored_size: stored bytes of all packets together
    :param disk_size: present size of the file on its filesystem
    """

    snapshot: str
    source: str | None
    via: str | None
    format_version: str
    snapshot_id: str
    parent_id: str | None
    root: str
    parent_root: str | None
    sealing: str
    parent_sealing: str | None
    sealed_for: tuple[str, ...]
    proved: bool
    created: str
    layout: str
    architecture: str | None
    packet_size: int
    window_bits: int
    page_digests: bool
    ram_size: int
    blocks: tuple[BlockInfo, ...]
    left_out_blocks: tuple[RamBlock, ...]
    data_pages: int
    zero_pages: int
    same_pages: int
    delta_pages: int
    packets: dict[str, int]
    stored_size: int
    file_size: int
    disk_size: int
    attachments: tuple[AttachmentInfo, ...] | None


def facts_of(source: SnapshotHead) -> SnapshotInfo:
    """
    Return facts about an open snapshot.

    :raises CorruptSnapshotError: the index is damaged
    """
    source.index.check_digest()
    block = source.superblock
    counts = source.index.counts()
    packets = dict(zip(Encoding, counts.encodings, strict=True))
    pages = sum(-(-known.size // PAGE_SIZE) for known in source.geometry.blocks)
    return SnapshotInfo(
        snapshot=source.shown,
        source=None if source.is_locked else source_format(source),
        via=None if source.is_locked else source_way(source),
        format_version=f"{block.version_major}.{block.version_minor}",
        snapshot_id=block.snapshot_id.hex(),
        parent_id=block.parent_id.hex() if source.has_parent else None,
        root=block.root.hex(),
        parent_root=block.parent_root.hex() if source.has_parent else None,
        sealing=source.sealing.name.lower(),
        parent_sealing=None if source.is_locked else parent_sealing(source),
        sealed_for=_sealed_for(source),
        proved=source.is_proved,
        created=datetime.fromtimestamp(block.created_ns / 1e9, UTC).isoformat("T", "seconds"),
        layout=source.layout.name.lower(),
        architecture=source.architecture and architecture_name(source.architecture),
        packet_size=block.packet_size,
        window_bits=block.window_bits,
        page_digests=block.page_digests_offset > 0,
        ram_size=source.geometry.ram_size,
        blocks=_blocks(
            source, plain=not source.has_parent and not any(packets[kind] for kind in COMPRESSED)
        ),
        left_out_blocks=_left_out(source),
        data_pages=counts.pages_in_use,
        zero_pages=pages - counts.pages_in_use,
        same_pages=counts.pages[PageKind.SAME_AS_PARENT],
        delta_pages=counts.pages[PageKind.DELTA_AGAINST_PARENT],
        packets={kind.name.lower(): count for kind, count in packets.items()},
        stored_size=counts.stored_size,
        file_size=block.file_size,
        disk_size=source.disk_size,
        attachments=None
        if source.is_locked
        else tuple(
            AttachmentInfo(entry.name, entry.size, entry.stored_size)
            for entry in source.attachments
        ),
    )


def _sealed_for(source: SnapshotHead) -> tuple[str, ...]:
    if source.sealing == Sealing.NONE:
        return ()
    try:
        return tuple(slot.shown for slot in source.key_table().used)
    except CorruptSnapshotError:  # only who has a key needs the table
        return ()


def _left_out(source: SnapshotHead) -> tuple[RamBlock, ...]:
    try:
        kept = Attachments(source, SOURCE_PREFIX, limited=True)
        return left_out(kept, source.geometry.blocks)
    except CorruptSnapshotError:  # an attachment unfit for a restore is no reason to fail here
        return ()


def _blocks(source: SnapshotHead, *, plain: bool) -> tuple[BlockInfo, ...]:
    secret = source.sealing == Sealing.ENCRYPTED
    mappable = plain and source.layout == Layout.FIXED and not secret
    start, packet_size = source.superblock.data_offset, source.superblock.packet_size
    return tuple(
        BlockInfo(
            block.name,
            block.size,
            block.pieces,
            block.page_size,
            offset=start + source.geometry.block_packets(number).start * packet_size
            if mappable
            else None,
        )
        for number, block in enumerate(source.geometry.blocks)
    )
