"""What a save is asked for, and what it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from snapmig.architectures import Architecture
from snapmig.attachments import AttachmentSource
from snapmig.container.format import Layout
from snapmig.encodings.compressions import PacketSettings
from snapmig.guests.wait import MonitorWait
from snapmig.operations.options.addresses import GivenAddress
from snapmig.operations.progress import ProgressCallback
from snapmig.stores.location import Location
from snapmig.workers.pool import WorkerPool, WorkersMaker

__all__ = ("SaveOptions", "SaveResult")


class SaveOptions(NamedTuple):
    """
    How a snapshot is made: checked values of the words that :func:`snapmig.save` takes.

    :param packet_size: None for the parent's, or the usual one
    :param steps: levels to choose from while it is made; one where the user named it
    :param notes: what the user should know of the settings, a sentence each
    :param deltas: whether pages may be stored as differences from the parent's; None: where its
        pages are decoded anyway
    :param page_digests: whether the snapshot has the digest of each page; None: as the parent has
    :param follow_remote_parents: whether parents of the parent are looked for anywhere
    :param workers: gives the worker processes
    :param addresses: guest physical addresses in place of those that the source tells
    :param architecture: the guest's processors, in place of those that the source tells
    :param monitor: how long a guest's monitor is waited for
    """

    jobs: int
    settings: PacketSettings
    steps: tuple[int, ...]
    packet_size: int | None
    layout: Layout
    attach: Mapping[str, AttachmentSource]
    force: bool
    live: bool
    progress: ProgressCallback | None
    notes: Sequence[str] = ()
    parent: Location | None = None
    deltas: bool | None = None
    page_digests: bool | None = None
    follow_remote_parents: bool = False
    workers: WorkersMaker = WorkerPool
    addresses: Sequence[GivenAddress] = ()
    architecture: Architecture | None = None
    monitor: MonitorWait = MonitorWait()


@dataclass(frozen=True, slots=True)
class SaveResult:
    """
    What a save did; sizes are in bytes.

    :param data_pages: pages that are not zero, of which ``same_pages`` are the parent's and
        ``delta_pages`` stored as differences from it
    :param accelerator: the engine of zlib, None for other compressions
    :param levels: batches of packets that were compressed at each level
    :param page_digests: whether the snapshot has the digest of each page
    :param stored_size: all packets' stored bytes together
    :param disk_size: what the snapshot takes on its filesystem
    :param packets: how many packets are in which encoding
    :param pause_seconds: how long a running guest stood still
    :param changed_packets: packets of a live save that changed after they were saved
    :param left_out_blocks: names of RAM blocks that a migration file made with x-ignore-shared does
        not have, nor the snapshot
    :param torn_packets: packets of a sample that had changed at the end, since nobody had paused
        the guest
    :param warnings: what the user should know, a sentence each
    """

    image: str
    format: str
    snapshot: str
    snapshot_id: str
    parent: str | None
    jobs: int
    compression: str
    accelerator: str | None
    window_bits: int
    levels: dict[str, int]
    page_digests: bool
    ram_size: int
    data_pages: int
    zero_pages: int
    same_pages: int
    delta_pages: int
    packets: dict[str, int]
    stored_size: int
    file_size: int
    disk_size: int
    seconds: float
    pause_seconds: float | None = None
    changed_packets: int | None = None
    torn_packets: int = 0
    left_out_blocks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
