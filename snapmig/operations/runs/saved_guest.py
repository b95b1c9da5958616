"""A snapshot's guest besides its RAM; light, because ``run`` starts QEMU by it before all else."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from snapmig.attachments import SOURCE_PREFIX, Attachments, StoredAttachment, source_format
from snapmig.container.reader import SnapshotFile
from snapmig.errors import CorruptSnapshotError, SnapmigError
from snapmig.images.qemu.attachments import load_vm_state
from snapmig.images.qemu.kept_state import SHARED_STATE
from snapmig.operations.options.parse import GUEST_FORMAT
from snapmig.operations.runs.guest_facts import FACTS, parse_facts

__all__ = ("MAPPED_RAM_SINCE", "SavedGuest", "load_guest")

MAPPED_RAM_SINCE = (9, 0)
"""The first QEMU with mapped-ram files."""


@dataclass(frozen=True)
class SavedGuest:
    """
    A snapshot's guest besides its RAM.

    :param state: QEMU's device state without shared RAM, in pieces; None if the snapshot was made
        from a migration file with everything
    :param command_line: of the QEMU it was saved from, or empty
    :param qemu_version: of that QEMU; a recent one if unknown
    """

    machine: str
    state: StoredAttachment | None
    command_line: tuple[str, ...] = ()
    qemu_version: tuple[int, ...] = MAPPED_RAM_SINCE


def load_guest(source: SnapshotFile) -> SavedGuest:
    """
    Return the guest of a snapshot.

    :raises UsageError: the saved image had no device state of QEMU
    :raises CorruptSnapshotError: its attachments were not written by snapmig
    """
    attachments = Attachments(source, SOURCE_PREFIX, limited=True)
    try:
        return _load_guest(attachments, source)
    except SnapmigError as error:
        error.path = error.path or source.shown
        raise


def _load_guest(attachments: Attachments, source: SnapshotFile) -> SavedGuest:
    from_guest = source_format(source) == GUEST_FORMAT
    for name in (FACTS, SHARED_STATE):
        if from_guest and name not in attachments:
            raise CorruptSnapshotError(
                f"has no attachment {name}, though a running guest was saved"
            )
    facts = None
    if FACTS in attachments:
        facts = parse_facts(attachments[FACTS], source.geometry.blocks, complete=from_guest)
    if facts is not None and from_guest:
        saved = SavedGuest(facts.machine, attachments.pieces(SHARED_STATE))
    else:
        state = load_vm_state(attachments, "a resume", source.geometry.blocks)
        saved = SavedGuest(state.machine, None)
    if facts is None:
        return saved
    version = tuple(int(number) for number in re.findall(r"\d+", facts.qemu_version))
    return replace(saved, command_line=facts.command_line, qemu_version=version)
