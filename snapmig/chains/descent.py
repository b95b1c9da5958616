"""
Packets that a snapshot has from its parents: in which file of the chain each is stored.

Most packets of a long chain were stored long ago, and one after the other its files say so: a
record in each for each packet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter

import numpy as np

from snapmig.chains.member import ChainMember
from snapmig.container.index import StoredPacket, kinds_in_use, pack_kinds, unpack_records
from snapmig.errors import SnapmigError

__all__ = ("find_stored",)

_MANY = 16
"""Packets for which arrays take less time than one record after the other."""

Found = Iterator[tuple[ChainMember, list[StoredPacket]]]


def find_stored(
    members: Sequence[ChainMember], packets: Sequence[StoredPacket], apart: list[StoredPacket]
) -> Found:
    """
    Yield the files that store packets as a whole, each with its records of these.

    :param members: the files behind the youngest
    :param packets: the youngest's records of packets without a page stored there
    :param apart: gets those with pages from several files, to be merged page by page, and all
        that are left where an index is damaged or a file is missing
    """
    find = _find_many if len(packets) >= _MANY else _find_few
    return find(members, packets, apart)


def _find_few(
    members: Sequence[ChainMember], packets: Sequence[StoredPacket], apart: list[StoredPacket]
) -> Found:
    left = packets
    for member in members:
        if not left:
            return
        try:
            entries = member.entries_of([packet.packet for packet in left])
        except SnapmigError:
            break
        stored: list[StoredPacket] = []
        passed_on: list[StoredPacket] = []
        for entry, packet in zip(entries, left, strict=True):
            if entry.in_use.tobytes() != packet.in_use.tobytes():
                apart.append(packet)
            elif not entry.needs_parent:
                stored.append(entry)
            else:
                (apart if entry.stored_pages else passed_on).append(packet)
        yield member, stored
        left = passed_on
    apart += left


def _find_many(
    members: Sequence[ChainMember], packets: Sequence[StoredPacket], apart: list[StoredPacket]
) -> Found:
    # The same with arrays: 1 us a packet and file instead of 10.
    packets = sorted(packets, key=attrgetter("packet"))
    places = np.arange(len(packets))
    numbers = np.array([packet.packet for packet in packets])
    in_use = pack_kinds([packet.in_use for packet in packets], len(packets[0].kinds))
    for member in members:
        if not len(places):
            return
        try:
            records = member.records_of(numbers[places])
        except SnapmigError:
            break
        kinds = records["kinds"]
        same = np.asarray((kinds_in_use(kinds) == in_use[places]).all(axis=1))
        has_stored, needs_parent = (kinds & 0x55).any(axis=1), (kinds & 0xAA).any(axis=1)
        whole, passed_on = same & ~needs_parent, same & needs_parent & ~has_stored
        apart += [packets[at] for at in places[~(whole | passed_on)]]
        yield member, unpack_records(records[whole]) if whole.any() else []
        places = places[passed_on]
    apart += [packets[at] for at in places]
