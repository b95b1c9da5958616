"""Checked options of a save, and its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from snapmig.architectures import Architecture
from snapmig.attachments import AttachmentSource
from snapmig.container.format import Layout, Sealing
from snapmig.encodings.compressions import PacketSettings
from snapmig.guests.limits import LiveLimits
from snapmig.guests.wait import MonitorWait
from snapmig.operations.options.addresses import GivenAddress
from snapmig.operations.options.parse import LiveName
from snapmig.operations.progress import ProgressCallback
from snapmig.sealing.keyring import Keyring
from snapmig.stores.location import Location
from snapmig.workers.pool import WorkerPool, WorkersMaker

__all__ = ("SaveOptions", "SaveResult")


class SaveOptions(NamedTuple):
    """
    Checked options of :func:`snapmig.save`.

    :param packet_size: None for the parent's, or the default
    :param notes: remarks on the settings for the user, a sentence each
    :param deltas: store pages as differences from the parent's where smaller; None: if its pages
        are decoded anyway
    :param live: let the guest run; ``background``: as it is at the start
    :param page_digests: store a digest per page
    :param follow_remote_parents: look for the parent's parents anywhere
    :param workers: returns the worker processes
    :param addresses: guest physical addresses, replacing the source's own
    :param architecture: the guest's processors, replacing the source's own
    :param monitor: time limits for a guest's monitor
    :param via: a word of ``parse.WAYS_OUT``; None: the best for the guest
    :param live_limits: limits of a live save over multifd
    :param keyring: keys for the new snapshot, and for its parents
    :param mixed_chain: allow a parent that is sealed in another way
    :param resume: go on with an interrupted save, and let one of this save
    """

    jobs: int
    settings: PacketSettings
    packet_size: int | None
    layout: Layout
    attach: Mapping[str, AttachmentSource]
    force: bool
    live: bool | LiveName
    progress: ProgressCallback | None
    notes: Sequence[str] = ()
    parent: Location | None = None
    deltas: bool | None = None
    page_digests: bool = True
    follow_remote_parents: bool = False
    workers: WorkersMaker = WorkerPool
    addresses: Sequence[GivenAddress] = ()
    architecture: Architecture | None = None
    monitor: MonitorWait = MonitorWait()
    via: str | None = None
    live_limits: LiveLimits = LiveLimits()
    sealing: Sealing = Sealing.NONE
    keyring: Keyring | None = None
    mixed_chain: bool = False
    resume: bool = False


@dataclass(frozen=True, slots=True)
class SaveResult:
    """
    Result of a save; sizes are in bytes.

    :param data_pages: pages other than zero, among them ``same_pages`` of the parent and
        ``delta_pages`` stored as differences from it
    :param accelerator: the engine of zlib, None for other compressions
    :param codecs: bytes of pages given to each compression and level; pages that none makes smaller
        are not among them
    :param page_digests: the snapshot has a digest per page
    :param stored_size: stored bytes of all packets
    :param disk_size: space taken on the filesystem
    :param packets: number of packets per encoding
    :param pause_seconds: length of a running guest's pause
    :param changed_packets: packets of a live save written again while the guest stood still; over
        multifd, those changed after their first pass
    :param via: the way to a running guest's RAM: a word of ``parse.WAYS_OUT``
    :param rounds: passes of QEMU over the RAM, via multifd
    :param rewritten_size: stored bytes written over older ones, since the guest sent pages again
    :param kept_packets: packets with pages taken over from an interrupted save; None without
        ``resume``
    :param kept_parts: likewise parts of an interrupted upload that the server had; None for a file
    :param left_out_blocks: names of RAM blocks missing from a migration file made with
        x-ignore-shared, and so from the snapshot
    :param torn_packets: packets of a sample found changed at the end, because nobody had paused the
        guest
    :param root: SHA-256 of the superblock, and so of all that the snapshot holds, in hexadecimal
        digits
    :param sealing: ``none``, ``signed`` or ``encrypted``
    :param warnings: for the user, a sentence each
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
    codecs: dict[str, int]
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
    via: str | None = None
    rounds: int | None = None
    rewritten_size: int | None = None
    kept_packets: int | None = None
    kept_parts: int | None = None
    torn_packets: int = 0
    left_out_blocks: tuple[str, ...] = ()
    root: str = ""
    sealing: str = "none"
    warnings: tuple[str, ...] = ()
