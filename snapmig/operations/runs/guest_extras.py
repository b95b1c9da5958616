"""Parts of a guest's snapshot besides its pages: facts, addresses, and libvirt's definition."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from snapmig.attachments import DOMAIN_XML, VIA
from snapmig.geometry import RamBlock, block_problem
from snapmig.guests.addresses import Addresses, pieces_of_blocks
from snapmig.guests.guest import Guest
from snapmig.images.source import ImageSource
from snapmig.operations.options.save import SaveOptions
from snapmig.operations.runs.guest_facts import FACTS, describe

__all__ = ("domain_xml", "facts_of", "place_ram", "with_page_sizes")


def place_ram(source: ImageSource, addresses: Addresses) -> None:
    """Give a source's RAM blocks the guest physical addresses reported by QEMU, if any."""
    pieces = pieces_of_blocks(
        addresses.regions, {block.name: block.size for block in source.blocks}
    )
    placed = tuple(replace(block, pieces=pieces.get(block.name, ())) for block in source.blocks)
    # Impossible addresses are no reason to leave a guest unsaved.
    if pieces and block_problem(placed) is None:
        source.blocks = placed
    source.architecture = addresses.architecture or source.architecture


def with_page_sizes(blocks: Iterable[RamBlock], guest: Guest) -> tuple[RamBlock, ...]:
    """Return RAM blocks with the sizes of the pages behind a guest's memory."""
    sizes = guest.facts.page_size
    return tuple(replace(block, page_size=sizes(block.name)) for block in blocks)


def facts_of(guest: Guest, way: str) -> dict[str, bytes]:
    """Return attachments with the facts about a guest, and the way that it was saved."""
    return {FACTS: describe(guest.facts), VIA: way.encode()}


def domain_xml(guest: Guest, options: SaveOptions) -> dict[str, bytes]:
    """
    Return an attachment with libvirt's definition of a guest, none if it is not libvirt's.

    Asked before QEMU stops the guest, for the pause to be short. No device comes or goes later:
    QEMU refuses that during a migration.
    """
    xml = None if DOMAIN_XML in options.attach else guest.monitor.domain_xml()
    return {} if xml is None else {DOMAIN_XML: xml}
