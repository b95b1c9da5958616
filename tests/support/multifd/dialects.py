"""
The ways in which releases of QEMU say the same, as its sources at each release have it.

A SYNC is a packet on every channel; the mark is the word on the main channel that belongs to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Dialect:
    """
    A release of QEMU, with its newest machine type or an older one.

    :param per_section: SYNC at the end of each section of RAM, where the end itself is the mark;
        else at the end of each round, with a FLUSH as the mark
    :param sync_with_pages: a SYNC may stand in a packet with pages, and an empty packet follow it
    :param stale_size: packets without pages repeat the payload's size of the packet before
    :param zeros_in_packets: zero pages are listed in packets; else they are words on main
    :param alloc_in_sync: SYNC packets state the size of the offsets' list
    :param end_sync: a SYNC at the very end of RAM besides the last round's
    :param end_mark: this SYNC has its mark
    :param repeats: the last page of a full packet can be the first of the next one too, on any
        channel: a race between the thread that fills packets and those that send them
    :param eager: the main channel begins before the others are connected
    :param switchover: a command tells when the guest stopped
    """

    name: str
    machine: bytes
    per_section: bool = False
    sync_with_pages: bool = False
    stale_size: bool = False
    zeros_in_packets: bool = True
    alloc_in_sync: bool = False
    end_sync: bool = False
    end_mark: bool = False
    repeats: bool = False
    eager: bool = False
    switchover: bool = False


QEMU_10 = Dialect("qemu-10", b"pc-q35-10.0", switchover=True)
QEMU_9_2 = Dialect("qemu-9.2", b"pc-q35-9.2", end_sync=True)
QEMU_9_1 = replace(QEMU_9_2, name="qemu-9.1", machine=b"pc-q35-9.1", alloc_in_sync=True)
QEMU_9_0 = replace(QEMU_9_1, name="qemu-9.0", machine=b"pc-q35-9.0", end_mark=True)
QEMU_8_2 = replace(
    QEMU_9_0,
    name="qemu-8.2",
    machine=b"pc-q35-8.2",
    sync_with_pages=True,
    stale_size=True,
    zeros_in_packets=False,
    eager=True,
)
QEMU_7_2 = replace(QEMU_8_2, name="qemu-7.2", machine=b"pc-q35-7.2", per_section=True, repeats=True)
QEMU_10_OLD_MACHINE = replace(
    QEMU_10,
    name="qemu-10-machine-8.0",
    machine=b"pc-q35-8.0",
    per_section=True,
    zeros_in_packets=False,
    switchover=False,
)

DIALECTS = (
    QEMU_7_2,
    QEMU_8_2,
    QEMU_9_0,
    QEMU_9_1,
    QEMU_9_2,
    QEMU_10,
    QEMU_10_OLD_MACHINE,
)
