"""``restore ... qmp:SOCKET`` over multifd: snapmig migrates the guest into a waiting QEMU."""

from __future__ import annotations

import re
import struct
from contextlib import ExitStack
from functools import partial

import numpy as np

from snapmig.geometry import PAGE_SIZE
from snapmig.guests.guest import MOST_CHANNELS, Guest
from snapmig.guests.incoming import awaiting, guest_uuid, wait_until_loaded
from snapmig.guests.outgoing import Outgoing
from snapmig.handlers.counters import Counter
from snapmig.handlers.load import LoadTasks
from snapmig.handlers.send import SendHandler, SendPlan, SendTasks, SyncTasks
from snapmig.images.plan import Content
from snapmig.images.qemu.records import RAM_CONTINUE, RAM_ZERO
from snapmig.images.qemu.sections import (
    MAGIC,
    RAM_EOS,
    RAM_FLUSH,
    SECTION_PART,
    VERSION,
)
from snapmig.images.qemu.shared import whole_stream
from snapmig.images.qemu.state import VmState
from snapmig.migration.connections import PrivateFolder
from snapmig.migration.return_path import OPENING
from snapmig.migration.sender import MainSender, connect, connect_channel
from snapmig.migration.wire import MigrationError, WireCompression
from snapmig.operations.progress import reporter
from snapmig.operations.runs.read import Reading
from snapmig.operations.runs.restore_inputs import content_of

__all__ = ("has_flushes", "send_to_guest")

_END_S = 600.0
_FLUSH_SINCE = (8, 1)
"""From this QEMU and machine type on, marks are words of their own."""


def send_to_guest(reading: Reading, guest: Guest, compression: WireCompression) -> int:
    """
    Send a snapshot into a QEMU that waits, and let the guest run; return its nonzero pages.

    :param compression: of the channels
    :raises SnapmigError: the snapshot's device state does not fit this QEMU, or QEMU refuses it
    """
    content, state = whole_stream(content_of(reading.snapshot), "a migration")
    stream = _Stream(content, state, guest)
    channels = min(reading.options.jobs, MOST_CHANNELS)
    with ExitStack() as stack:
        folder = stack.enter_context(PrivateFolder(guest.process_now.uid))
        words = compression.name.lower()
        loading = stack.enter_context(awaiting(guest, folder.uri, channels, words))
        try:
            pages = _send(reading, stream, folder, loading, compression, channels, guest)
            wait_until_loaded(guest, loading)
        except MigrationError as error:
            raise loading.reason() or error from None
    guest.run()
    return pages


def _send(
    reading: Reading,
    stream: _Stream,
    folder: PrivateFolder,
    loading: Outgoing,
    compression: WireCompression,
    channels: int,
    guest: Guest,
) -> int:
    options, path = reading.options, str(folder.path)
    identity = guest_uuid(guest)
    plan = SendPlan(reading.plans, stream.block_names, compression)
    with ExitStack() as stack:
        first = connect(path, stream.header)
        main = MainSender(stack.enter_context(first))
        opened = [
            stack.enter_context(connect_channel(path, number, identity))
            for number in range(channels)
        ]
        main.send(stream.opening, loading.check)
        pool = stack.enter_context(
            options.workers(channels, partial(SendHandler, plan), lambda _signal: "")
        )
        report = reporter(pool, reading.snapshot.geometry.ram_size, options.progress)

        def poll() -> None:
            loading.check()
            report()

        packets = range(reading.snapshot.geometry.packet_count)
        load = LoadTasks(reading.snapshot, packets)
        pool.run(SendTasks(load, [each.fileno() for each in opened]), poll, ahead=reading.ahead)
        pool.run(SyncTasks(channels, stream.last_barriers), poll)
        report()
        main.send(stream.rest(), loading.check)
        main.wait_for_end(_END_S, loading.check)
        return int(pool.counters.total()[Counter.DATA_PAGES])


class _Stream:
    # The main connection's bytes, in the dialect of the destination.
    def __init__(self, content: Content, state: VmState, guest: Guest) -> None:
        self._content = content
        self._flushes = has_flushes(guest, state.machine)
        words = (RAM_FLUSH, RAM_EOS) if self._flushes else (RAM_EOS,)
        opening = state._replace(
            before=OPENING + state.before, list_end=struct.pack(f">{len(words)}Q", *words)
        )
        self._words = struct.pack(f">{len(words)}Q", *words)
        self._footer = state.after[:5] if state.has_footers else b""
        self._part = bytes([SECTION_PART]) + state.ram_header[1:5]
        self._after = state.after[len(self._footer) :]
        whole = opening.classic().opening()
        self.header = MAGIC + struct.pack(">I", VERSION)
        self.opening = whole[len(self.header) :] + self._footer
        memory = {item.name: item for item in guest.facts.memory}
        self._fresh = {name for name, item in memory.items() if item.path is None}

    @property
    def block_names(self) -> tuple[bytes, ...]:
        return tuple(block.name.encode() for block in self._content.blocks)

    @property
    def last_barriers(self) -> int:
        # One for the section with zero pages, and where each section is a mark, one for RAM's end.
        return 1 if self._flushes else 2

    def rest(self) -> bytes:
        """Return everything after the list of RAM blocks."""
        zeros = b"".join(self._zeros(number) for number in range(len(self._content.blocks)))
        return self._part + zeros + self._words + self._footer + self._after

    def _zeros(self, number: int) -> bytes:
        # Where a firmware's image, or a file, may be in place of zeros.
        block = self._content.blocks[number]
        if block.name.removeprefix("/objects/") in self._fresh:
            return b""
        masks = [mask.reshape(-1) for mask in self._content.data_pages(number)]
        pages = block.size // PAGE_SIZE
        places = np.flatnonzero(~np.concatenate(masks)[:pages])
        if not len(places):
            return b""
        records = np.zeros((len(places), 9), np.uint8)
        words = places.astype(np.uint64) * PAGE_SIZE | np.uint64(RAM_ZERO | RAM_CONTINUE)
        records[:, :8] = words.astype(">u8").view(np.uint8).reshape(-1, 8)
        raw, name = records.tobytes(), block.name.encode()
        first = struct.pack(">Q", int(places[0]) * PAGE_SIZE | RAM_ZERO)
        return first + bytes([len(name)]) + name + raw[8:]


def has_flushes(guest: Guest, machine: str) -> bool:
    """Return True if a QEMU's marks are words of their own, False if each section is one."""
    version = tuple(int(part) for part in guest.facts.qemu_version.split(".")[:2])
    found = re.search(r"-(\d+)\.(\d+)$", machine)
    kind = tuple(int(part) for part in found.groups()) if found else version
    return min(version, kind) >= _FLUSH_SINCE
