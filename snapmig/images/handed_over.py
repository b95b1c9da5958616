"""
A guest that Cloud Hypervisor hands over: files with its memory, its configuration and its state.

A snapshot made of one has the blocks and attachments of a snapshot directory, and what a migration
needs besides.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from snapmig.architectures import ARCHITECTURES
from snapmig.errors import SnapmigError
from snapmig.geometry import PAGE_SIZE, Geometry, RamBlock
from snapmig.images.file import ImageFile, opened_files
from snapmig.images.formats.cloud_hypervisor import CONFIG, MAX_RANGES, NAME, STATE, blocks_of
from snapmig.images.readers.files import Part
from snapmig.images.readers.memory_manager import Mapping as RamMapping
from snapmig.images.readers.memory_manager import parse_migration_config
from snapmig.images.readers.parts import PartsImage
from snapmig.images.spans import Span, piece_spans
from snapmig.system.files import descriptor_path

__all__ = ("MIGRATION_CONFIG", "SlotPlan", "open_handed_over", "plan_slots")

MIGRATION_CONFIG = "migration-config.json"
"""Name of the attachment with the configuration as a migration sends it."""

_MAX_FILE = 1 << 56


class SlotPlan(NamedTuple):
    """
    A file with memory of the guest, as a migration hands it over.

    :ivar size: of the file
    :ivar spans: RAM offsets and their places in it
    """

    slot: int
    size: int
    spans: Sequence[Span]


def open_handed_over(
    shown: str, config: bytes, state: bytes, files: Mapping[int, int]
) -> PartsImage:
    """
    Return a guest's image in files that were handed over.

    :param shown: its display name
    :param config: as a migration sends it
    :param files: descriptors by slot; they stay the caller's
    :raises SnapmigError: these don't fit together
    """
    vm_config, mappings = _parse(shown, config)
    blocks = blocks_of(shown, state)
    plans = _plans(shown, blocks, mappings)
    missing = [plan.slot for plan in plans if plan.slot not in files]
    if missing:
        raise SnapmigError(f"no file came for memory slot {missing[0]}", path=shown)
    for plan in plans:
        _check_file(shown, plan, files[plan.slot])
    with opened_files([descriptor_path(files[plan.slot]) for plan in plans]) as opened:
        parts = sorted(_parts(plans, opened), key=lambda part: part.start)
        attachments = {CONFIG: vm_config, STATE: state, MIGRATION_CONFIG: config}
        image = PartsImage(NAME, blocks, parts, opened, attachments)
    image.shown = shown
    if any(piece.gpa == 0 for block in blocks for piece in block.pieces):
        image.architecture = ARCHITECTURES["x86_64"]
    return image


def plan_slots(shown: str, geometry: Geometry, config: bytes) -> list[SlotPlan]:
    """
    Return the files in which a snapshot's guest is to be handed over.

    :param config: as a migration sends it
    :raises SnapmigError: it is none, or of a guest with other memory
    """
    return _plans(shown, geometry.blocks, _parse(shown, config)[1])


def _parse(shown: str, config: bytes) -> tuple[bytes, list[RamMapping]]:
    try:
        vm_config, manager = parse_migration_config(config)
    except ValueError as error:
        message = f"not the configuration of a Cloud Hypervisor guest: {error}"
        raise SnapmigError(message, path=shown) from error
    return vm_config, manager.guest_ram_mappings


def _plans(
    shown: str, blocks: Sequence[RamBlock], mappings: Sequence[RamMapping]
) -> list[SlotPlan]:
    if not 0 < len(mappings) <= MAX_RANGES:
        message = f"{len(mappings)} mappings of RAM, expected 1 to {MAX_RANGES}"
        raise SnapmigError(message, path=shown)
    by_address = piece_spans(blocks)
    plans: dict[int, SlotPlan] = {}
    for each in mappings:
        if each.slot in plans:
            raise SnapmigError(f"two mappings have the slot {each.slot}", path=shown)
        size = each.file_offset + each.size
        whole = each.size > 0 and each.size % PAGE_SIZE == each.file_offset % PAGE_SIZE == 0
        if not whole or size > _MAX_FILE or each.gpa < 0:
            message = f"slot {each.slot} has {each.size} bytes from {each.file_offset} of its file"
            raise SnapmigError(f"{message} on, expected whole pages", path=shown)
        plans[each.slot] = SlotPlan(each.slot, size, list(_inside(each, by_address)))
    placed = sum(span.stop - span.start for plan in plans.values() for span in plan.spans)
    total = sum(block.size for block in blocks)
    if placed != total:
        message = f"slots have {placed} bytes of RAM, expected {total}"
        raise SnapmigError(message, path=shown)
    return list(plans.values())


def _inside(mapping: RamMapping, by_address: Sequence[Span]) -> Iterator[Span]:
    for span in by_address:
        gpa, end = span.offset, span.offset + span.stop - span.start
        low, high = max(gpa, mapping.gpa), min(end, mapping.gpa + mapping.size)
        if low < high:
            start = span.start + low - gpa
            yield Span(start, start + high - low, mapping.file_offset + low - mapping.gpa)


def _check_file(shown: str, plan: SlotPlan, fd: int) -> None:
    facts = os.fstat(fd)
    if not stat.S_ISREG(facts.st_mode):
        raise SnapmigError(f"slot {plan.slot} has no regular file", path=shown)
    if facts.st_size < plan.size:
        message = f"file of slot {plan.slot} has {facts.st_size} bytes, expected {plan.size}"
        raise SnapmigError(message, path=shown)


def _parts(plans: Sequence[SlotPlan], files: Sequence[ImageFile]) -> Iterator[Part]:
    for plan, file in zip(plans, files, strict=True):
        for span in plan.spans:
            yield Part(file.path, span.start, span.stop, span.offset)
