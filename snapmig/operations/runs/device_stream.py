"""
A guest's device state as a migration stream for a QEMU that has its RAM already, from a mapping.

The stream lists all RAM blocks, and has pages of firmware and video memory only. QEMU loads it as
any other, without a capability: blocks without a page in it keep what is mapped there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from snapmig.attachments import SOURCE_PREFIX, Attachments
from snapmig.container.reader import SnapshotFile
from snapmig.errors import SnapmigError, UnsupportedError, UsageError
from snapmig.geometry import PAGE_SIZE, Geometry, RamBlock
from snapmig.images.plan import Content
from snapmig.images.qemu.kept_state import FACTS as STREAM_FACTS
from snapmig.images.qemu.kept_state import SHARED_STATE
from snapmig.images.target import Store
from snapmig.operations.runs.guest_facts import FACTS, parse_facts
from snapmig.pages import Bytes, Mask

__all__ = ("DEVICE_STATE", "device_stream", "has_device_state", "mapped_blocks")

DEVICE_STATE = "device-state"
"""Name of the stream in a mount."""

MAX_SIZE = 1 << 30
"""Bytes of a stream: QEMU's video memory has up to 512 MiB."""


def has_device_state(source: SnapshotFile) -> bool:
    """Return True if a snapshot has the state of a QEMU, and RAM for it to map."""
    attachments = Attachments(source, SOURCE_PREFIX, limited=True)
    if SHARED_STATE not in attachments and STREAM_FACTS not in attachments:
        return False
    try:
        return bool(mapped_blocks(source))
    except SnapmigError:
        return False


def mapped_blocks(source: SnapshotFile) -> tuple[RamBlock, ...]:
    """
    Return the RAM blocks that a new QEMU maps: memory backends, not firmware or devices' memory.

    :raises UsageError: none of the blocks is known to be one
    """
    blocks = source.geometry.blocks
    attachments = Attachments(source, SOURCE_PREFIX, limited=True)
    if SHARED_STATE in attachments:  # the state has all others
        return blocks
    known: set[str] = set()
    if FACTS in attachments:
        facts = parse_facts(attachments[FACTS], blocks, complete=False)
        known = {item.name for item in facts.memory}
    found = [block for block in blocks if block.name.removeprefix("/objects/") in known]
    found = found or [block for block in blocks if block.pieces]
    if not found:
        message = "which of its RAM blocks are memory backends is not known"
        raise UsageError(message, path=source.shown)
    return tuple(found)


def device_stream(
    source: SnapshotFile, mapped: Sequence[RamBlock], read: Callable[[int, int], bytes]
) -> bytes:
    """
    Return the stream.

    :param mapped: blocks without pages in it
    :param read: returns the bytes between two RAM offsets
    :raises UsageError: the snapshot has no device state of QEMU
    :raises UnsupportedError: the pages of the other blocks are too many
    """
    # Imported by who makes a stream: those who only start a guest from it wait for the mount.
    from snapmig.images.formats.qemu_stream import plan_at  # noqa: PLC0415
    from snapmig.images.qemu.sections import IGNORE_SHARED  # noqa: PLC0415
    from snapmig.images.qemu.shared import whole_stream  # noqa: PLC0415
    from snapmig.operations.runs.restore_inputs import content_of  # noqa: PLC0415

    content, state = whole_stream(content_of(source), "a start from mapped memory")
    left_out = {block.name for block in mapped}
    kept = [block.name not in left_out for block in source.geometry.blocks]
    content = content._replace(data_pages=_only(content, kept))
    plan = plan_at(content, state.with_capability(IGNORE_SHARED, on=False), 0)
    if plan.size > MAX_SIZE:
        message = f"its device state has {plan.size} bytes, expected at most {MAX_SIZE}"
        raise UnsupportedError(message, path=source.shown)
    store = _Memory(plan.size)
    for offset, piece in plan.pieces:
        store.write(offset, np.frombuffer(piece[:], np.uint8))
    assert plan.placer is not None
    geometry = source.geometry
    for number, mask in _packets(geometry, content, kept):
        place = geometry.place(number)
        raw = read(place.ram_offset, place.ram_offset + place.length)
        pages = np.frombuffer(raw.ljust(len(mask) * PAGE_SIZE, b"\0"), np.uint8)
        plan.placer.write(store, place, mask, pages.reshape(-1, PAGE_SIZE)[mask])
    return bytes(store.content)


def _only(content: Content, kept: Sequence[bool]) -> Callable[[int], Iterator[Mask]]:
    def data_pages(block: int) -> Iterator[Mask]:
        for mask in content.data_pages(block):
            yield mask if kept[block] else np.zeros_like(mask)

    return data_pages


def _packets(
    geometry: Geometry, content: Content, kept: Sequence[bool]
) -> Iterator[tuple[int, Mask]]:
    # Packets of blocks whose pages are in the stream, with their nonzero pages.
    for block, wanted in enumerate(kept):
        if wanted:
            masks = np.concatenate([*content.data_pages(block)])
            packets = geometry.block_packets(block)
            edges = range(0, len(masks) + 1, content.packet_pages)
            for number, (start, stop) in zip(packets, pairwise(edges), strict=True):
                mask = masks[start:stop]
                if mask.any():
                    yield number, mask


class _Memory(Store):
    # A stream in the making, as a place for packets.
    def __init__(self, size: int) -> None:
        self.content = np.zeros(size, np.uint8)

    def write(self, offset: int, content: Bytes) -> None:
        self.content[offset : offset + content.size] = content.reshape(-1)

    def zero(self, offset: int, length: int) -> None:
        self.content[offset : offset + length] = 0

    def read(self, offset: int, content: Bytes) -> None:
        content[:] = self.content[offset : offset + content.size]
