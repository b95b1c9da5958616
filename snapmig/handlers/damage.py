"""Damage found by workers: packets that are lost, and the first few reasons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from snapmig.chains.reader import ChainReader
from snapmig.container.index import StoredPacket
from snapmig.errors import CorruptSnapshotError, SnapmigError, UnsupportedError
from snapmig.workers.tasks import Task

__all__ = ("Damage", "sound_packets")

MAX_DAMAGE_SHOWN = 8
"""Damaged packets described per batch; the others are only named."""


class Damage(NamedTuple):
    """The numbers of a batch's damaged packets, with errors for the first few."""

    packets: list[int]
    errors: list[SnapmigError]

    @classmethod
    def reply(cls, found: dict[int, SnapmigError]) -> list[Damage]:
        """Return a worker's reply, empty without damage."""
        return [cls(list(found), list(found.values())[:MAX_DAMAGE_SHOWN])] if found else []


def sound_packets(
    chain: ChainReader, task: Task, damage: dict[int, SnapmigError]
) -> list[StoredPacket]:
    """
    Return a batch's packets with pages and sound records.

    :param damage: takes an error for each damaged record
    """
    try:
        return chain.packets(task.first, task.count)
    except (CorruptSnapshotError, UnsupportedError):
        return list(_each_packet(chain, task, damage))


def _each_packet(
    chain: ChainReader, task: Task, damage: dict[int, SnapmigError]
) -> Iterator[StoredPacket]:
    # One of the records is wrong: find it by checking each alone, and still use the others.
    for number in task.packets:
        try:
            packet = chain.snapshot.packet(chain.snapshot.geometry.place(number))
            if packet.pages:
                yield packet
        except (CorruptSnapshotError, UnsupportedError) as error:
            damage[number] = error
