"""``info``: facts about a snapshot from its superblock, tables and index."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from snapmig.architectures import architecture_name
from snapmig.attachments import SOURCE_PREFIX, Attachments, source_format, source_way
from snapmig.container.format import COMPRESSED, Encoding, Layout, PageKind
from snapmig.container.index import kind_counts
from snapmig.container.reader import SnapshotFile
from snapmig.errors import CorruptSnapshotError
from snapmig.geometry import PAGE_SIZE, RamBlock
from snapmig.images.qemu.attachments import left_out
from snapmig.operations.options.arguments import checks_arguments

__all__ = ("AttachmentInfo", "BlockInfo", "SnapshotInfo", "info")


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
    :param source: format of the image it was made from
    :param via: the way to the RAM of the running guest that was saved; None for others
    :param created: time of the commit, ISO 8601 in UTC
    :param window_bits: base-2 logarithm of the history needed by a deflate decoder, in bytes
    :param page_digests: it has a digest of each page
    :param packets: number of packets in each encoding
    :param stored_size: stored bytes of all packets together
    :param disk_size: present size of the file on its filesystem
    """

    snapshot: str
    source: str
    via: str | None
    format_version: str
    snapshot_id: str
    parent_id: str | None
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
    attachments: tuple[AttachmentInfo, ...]


@checks_arguments
def info(snapshot: str | os.PathLike[str]) -> SnapshotInfo:
    """
    Return facts about a snapshot. The whole index is checked; packets are not read.

    :param snapshot: a path, or ``s3://BUCKET/KEY``
    :raises CorruptSnapshotError: not a snapshot, or damaged outside its packets
    :raises UnsupportedError: needs a feature unknown to this version
    :raises StoreError: object storage can't be reached, or refused a request
    :raises OSError: it can't be read
    """
    with SnapshotFile(os.fspath(snapshot)) as source:
        source.index.check_digest()
        block = source.superblock
        encodings = np.zeros(256, np.int64)
        stored = 0
        kinds = np.zeros(len(PageKind), np.int64)
        for _, records in source.index.steps():
            encodings += np.bincount(records["encoding"], minlength=256)
            stored += int(records["stored_size"].sum(dtype=np.int64))
            kinds += kind_counts(records)
        data_pages = int(kinds.sum() - kinds[PageKind.ZERO])
        pages = sum(-(-known.size // PAGE_SIZE) for known in source.geometry.blocks)
        return SnapshotInfo(
            snapshot=source.shown,
            source=source_format(source),
            via=source_way(source),
            format_version=f"{block.version_major}.{block.version_minor}",
            snapshot_id=block.snapshot_id.hex(),
            parent_id=block.parent_id.hex() if source.has_parent else None,
            created=datetime.fromtimestamp(block.created_ns / 1e9, UTC).isoformat("T", "seconds"),
            layout=source.layout.name.lower(),
            architecture=source.architecture and architecture_name(source.architecture),
            packet_size=block.packet_size,
            window_bits=block.window_bits,
            page_digests=source.page_digests is not None,
            ram_size=source.geometry.ram_size,
            blocks=_blocks(
                source, plain=not source.has_parent and not encodings[list(COMPRESSED)].any()
            ),
            left_out_blocks=_left_out(source),
            data_pages=data_pages,
            zero_pages=pages - data_pages,
            same_pages=int(kinds[PageKind.SAME_AS_PARENT]),
            delta_pages=int(kinds[PageKind.DELTA_AGAINST_PARENT]),
            packets={kind.name.lower(): int(encodings[kind]) for kind in Encoding},
            stored_size=stored,
            file_size=block.file_size,
            disk_size=source.disk_size,
            attachments=tuple(
                AttachmentInfo(entry.name, entry.size, entry.stored_size)
                for entry in source.attachments
            ),
        )


def _left_out(source: SnapshotFile) -> tuple[RamBlock, ...]:
    try:
        kept = Attachments(source, SOURCE_PREFIX, limited=True)
        return left_out(kept, source.geometry.blocks)
    except CorruptSnapshotError:  # an attachment unfit for a restore is no reason to fail here
        return ()


def _blocks(source: SnapshotFile, *, plain: bool) -> tuple[BlockInfo, ...]:
    mappable = plain and source.layout == Layout.FIXED
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
