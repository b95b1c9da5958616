"""Damage to a file: flipped bits, cuts, and sectors that are lost, moved, or of an older state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from tests.support.damage.regions import Region, read_superblock, regions

SECTORS = (512, 4096)
FIELDS = 260
"""Bytes of the superblock's fields."""
METADATA = ("superblock", "block table", "piece table", "attachment table", "record",
            "page digests", "attachment")  # fmt: skip


class Mutation(NamedTuple):
    """
    One damage to a file.

    :param patches: new bytes, with their offsets
    :param size: the file's new size, None for the same
    """

    name: str
    patches: tuple[tuple[int, bytes], ...] = ()
    size: int | None = None


@dataclass(frozen=True)
class Subject:
    """
    A sound snapshot, and one of other contents with the same geometry.

    :param step: every which of the damages is wanted
    :param reserved: likewise of the bytes that are reserved in the superblock
    """

    raw: bytes
    older: bytes
    random: Random
    step: int
    reserved: int = 1

    @property
    def regions(self) -> list[Region]:
        """Its parts."""
        return regions(self.raw)

    @property
    def slots(self) -> list[Region]:
        """The stored bytes of its packets."""
        return [region for region in self.regions if region.name == "stored"]

    def chosen(self, count: int) -> range:
        """Return numbers below a count, as many as are wanted, from a random one on."""
        return range(self.random.randrange(min(self.step, count)) if count else 0, count, self.step)

    def sector(self, at: int, size: int) -> bytes:
        """Return a sector of the sound file."""
        return self.raw[at : at + size]


def flipped_bytes(subject: Subject) -> Iterator[Mutation]:
    """Flip a bit of each byte of all that is no page data."""
    for region in subject.regions:
        if region.name in METADATA:
            for at in subject.chosen(region.stop - region.start):
                if region.name != "superblock" or at < FIELDS or at % subject.reserved == 0:
                    yield _flip(subject, region.start + at)


def flipped_bits(subject: Subject) -> Iterator[Mutation]:
    """Flip random bits anywhere, most of them in page data."""
    for _ in subject.chosen(150):
        yield _flip(subject, subject.random.randrange(len(subject.raw)))
    for _ in subject.chosen(350):
        region = subject.random.choice(subject.slots)
        yield _flip(subject, subject.random.randrange(region.start, region.stop))


def _flip(subject: Subject, at: int) -> Mutation:
    value = subject.raw[at] ^ 1 << subject.random.randrange(8)
    return Mutation(f"bit flipped at {at:#x}", ((at, bytes([value])),))


def cut(subject: Subject) -> Iterator[Mutation]:
    """Cut the file at the borders of its parts, beside them and anywhere; and make it longer."""
    size = len(subject.raw)
    edges = {edge + by for region in subject.regions for edge in region[1:3] for by in (-1, 0, 1)}
    edges |= {subject.random.randrange(size) for _ in range(200)} | {size + 1, size + 4096}
    places = sorted(edge for edge in edges if edge >= 0 and edge != size)
    for number in subject.chosen(len(places)):
        yield Mutation(f"cut at {places[number]:#x}", (), places[number])


def zeroed(subject: Subject) -> Iterator[Mutation]:
    """Lose each sector to zeros."""
    for size in SECTORS:
        for number in subject.chosen(len(subject.raw) // size):
            yield from _put(subject, "zeroed", number * size, bytes(size))


def swapped(subject: Subject) -> Iterator[Mutation]:
    """Swap two sectors, or the bytes of two slots."""
    for size in SECTORS:
        for _ in subject.chosen(120):
            one, other = (_sector(subject, size) for _ in range(2))
            yield from _swap(subject, one, other, size)
    for _ in subject.chosen(80):
        first, second = (subject.random.choice(subject.slots) for _ in range(2))
        length = min(first.stop - first.start, second.stop - second.start)
        yield from _swap(subject, first.start, second.start, length)


def duplicated(subject: Subject) -> Iterator[Mutation]:
    """Write a sector, a slot or a record to a place where another one belongs."""
    for size in SECTORS:
        for _ in subject.chosen(120):
            source, at = _sector(subject, size), _sector(subject, size)
            yield from _put(subject, "duplicated", at, subject.sector(source, size))
    for name in ("stored", "record"):
        places = [region for region in subject.regions if region.name == name]
        for _ in subject.chosen(80):
            first, second = (subject.random.choice(places) for _ in range(2))
            length = min(first.stop - first.start, second.stop - second.start)
            content = subject.sector(first.start, length)
            yield from _put(subject, "duplicated", second.start, content)


def older(subject: Subject) -> Iterator[Mutation]:
    """Bring back what stood in the same place in an older state of the file."""
    for size in SECTORS:
        for number in subject.chosen(len(subject.raw) // size):
            at = number * size
            yield from _put(subject, "older", at, subject.older[at : at + size])
    for region in subject.regions:
        content = subject.older[region.start : region.stop]
        yield from _put(subject, f"older {region.name}", region.start, content)


def older_packets(subject: Subject) -> Iterator[Mutation]:
    """Bring back a whole packet of an older state: slot, record and page digests together."""
    block = read_superblock(subject.raw)
    for packet in range(block.packets):
        patches = [
            (region.start, subject.older[region.start : region.stop])
            for region in [*subject.regions, *regions(subject.older)]
            if region.packet == packet
        ]
        if any(subject.sector(at, len(content)) != content for at, content in patches):
            yield Mutation(f"older packet {packet}", tuple(patches))


KINDS: dict[str, Callable[[Subject], Iterator[Mutation]]] = {
    kind.__name__: kind
    for kind in (
        flipped_bytes, flipped_bits, cut, zeroed, swapped, duplicated, older, older_packets,
    )
}  # fmt: skip


def _sector(subject: Subject, size: int) -> int:
    return subject.random.randrange(len(subject.raw) // size) * size


def _put(subject: Subject, name: str, at: int, content: bytes) -> Iterator[Mutation]:
    # Nothing where it makes no difference.
    if subject.sector(at, len(content)) != content:
        yield Mutation(f"{name}: {len(content)} bytes at {at:#x}", ((at, content),))


def _swap(subject: Subject, one: int, other: int, size: int) -> Iterator[Mutation]:
    first, second = subject.sector(one, size), subject.sector(other, size)
    if first != second and abs(one - other) >= size:
        name = f"swapped: {size} bytes at {one:#x} and {other:#x}"
        yield Mutation(name, ((one, second), (other, first)))
