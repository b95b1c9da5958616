"""Everything a save run starts from: the source, its parent, the RAM as it will be stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from snapmig.architectures import Architecture
from snapmig.attachments import check_attachments
from snapmig.chains.lookup import PARENT_NAME, PARENT_SEALING, geometry_problem, parent_hint
from snapmig.container.format import (
    DEFAULT_PACKET_SIZE,
    MAX_PIECES,
    MAX_RAM_BLOCKS,
    Sealing,
)
from snapmig.container.reader import SnapshotFile
from snapmig.encodings.coders import EngineError
from snapmig.encodings.compressions import PacketSettings
from snapmig.encodings.engines import train
from snapmig.errors import SnapmigError, UsageError
from snapmig.geometry import Geometry, RamBlock, block_problem
from snapmig.handlers.sample import sample_packets
from snapmig.images.formats.raw import DEFAULT_BLOCK_NAME
from snapmig.images.qemu.kept_state import left_out
from snapmig.images.readers.parts import PartsImage
from snapmig.images.source import ImageSource
from snapmig.operations.options.addresses import inherit_pieces, place_blocks
from snapmig.operations.options.engine import AUTO
from snapmig.operations.options.keys import check_mixed
from snapmig.operations.options.save import SaveOptions
from snapmig.sealing.keyring import NewSeal
from snapmig.stores.location import Location, parse_location, same_location
from snapmig.stores.opening import check_location

if TYPE_CHECKING:
    from snapmig.operations.runs.read import Reading

__all__ = ("SaveInputs", "open_inputs")

SAMPLE_PACKETS = 64
"""Packets, 32 MiB of RAM, that a Huffman table is made from."""


class SaveInputs(NamedTuple):
    """
    A checked source, snapshot name and parent, with the options of a save.

    :param geometry: the RAM, with the addresses known at the start
    :param parent: the parent snapshot, open; None without one
    :param left_out: RAM blocks listed by a migration file and absent from it
    """

    source: ImageSource
    path: Location
    options: SaveOptions
    parent: Reading | None
    geometry: Geometry
    left_out: tuple[RamBlock, ...]

    @property
    def blocks(self) -> tuple[RamBlock, ...]:
        """RAM blocks with the addresses known by now: those of a running guest may change."""
        return _placed_blocks(self.source, self.options, self.parent)

    @property
    def architecture(self) -> Architecture | None:
        """The guest's processors: as given, else as the source or the parent says."""
        known = self.options.architecture or self.source.architecture
        if known is None and self.parent is not None:
            return self.parent.snapshot.architecture
        return known

    @property
    def window_bits(self) -> int:
        """Base-2 logarithm of the deflate window."""
        return self.options.settings.deflate.window_bits

    @property
    def parent_attachments(self) -> dict[str, bytes]:
        """Attachments about the parent: the way to it, and how it is sealed if in another way."""
        parent = self.options.parent
        if parent is None or self.parent is None:
            return {}
        hint = {PARENT_NAME: parent_hint(self.path, parent)}
        theirs = self.parent.snapshot.sealing
        if theirs == self.options.sealing:
            return hint
        return {**hint, PARENT_SEALING: theirs.name.lower().encode()}

    @property
    def seal(self) -> NewSeal | None:
        """The seal of the snapshot."""
        options = self.options
        if options.sealing == Sealing.NONE or options.keyring is None:
            return None
        return NewSeal(options.keyring, options.sealing == Sealing.ENCRYPTED)

    def packet_settings(self) -> PacketSettings:
        """
        Return the settings of the compression, with a Huffman table trained on request.

        :raises SnapmigError: the engine can't train a table
        """
        settings = self.options.settings
        if settings.deflate.huffman != "trained":
            return settings
        samples = sample_packets(self.source.opener()(), self.geometry, SAMPLE_PACKETS)
        try:
            histogram = train(settings.engine, list(samples))
        except EngineError as error:
            raise SnapmigError(f"{settings.engine} can't train a table: {error}") from error
        return settings._replace(deflate=settings.deflate._replace(histogram=histogram))


@contextmanager
def open_inputs(source: ImageSource, path: Location, options: SaveOptions) -> Iterator[SaveInputs]:
    """
    Check a source and a snapshot's name, and open the parent.

    :param source: stays the caller's to close
    :raises UsageError: attachments, RAM blocks or a parent unfit for this snapshot
    :raises DestinationExistsError: the snapshot exists, and overwriting was not asked for
    """
    check_attachments(options.attach)
    check_location(path, force=options.force)
    if any(same_location(parse_location(name), path) for name in source.paths):
        raise UsageError("image and snapshot are the same file", path=str(path))
    if options.parent is None:
        yield _inputs(source, path, options, None)
        return
    with _open_parent(options.parent, path, options) as parent:
        yield _inputs(source, path, options, parent)


def _inputs(
    source: ImageSource, path: Location, options: SaveOptions, parent: Reading | None
) -> SaveInputs:
    if parent is not None:
        _take_blocks(source, parent.snapshot.geometry)
    blocks = _placed_blocks(source, options, parent)
    geometry = Geometry(blocks, _packet_size(options, parent))
    if parent is not None and (problem := geometry_problem(geometry, parent.snapshot.geometry)):
        raise UsageError(problem, path=source.shown)
    missing = left_out(source.attachments, source.blocks)
    return SaveInputs(source, path, options, parent, geometry, missing)


@contextmanager
def _open_parent(parent: Location, path: Location, options: SaveOptions) -> Iterator[Reading]:
    if same_location(parent, path):
        raise UsageError("parent and snapshot are the same file", path=str(path))
    from snapmig.operations.runs.read import Reading, read_options  # noqa: PLC0415 - many have none

    follow = options.follow_remote_parents
    read = read_options(options.jobs, AUTO, None, None, follow_remote_parents=follow)
    with SnapshotFile(str(parent), keys=options.keyring) as snapshot:
        check_mixed(snapshot, options.sealing, mixed=options.mixed_chain)
        snapshot.index.check_digest()
        snapshot.keep_page_digests()
        with Reading(snapshot, read) as reading:
            if any(same_location(parse_location(each.shown), path) for each in reading.chain):
                raise UsageError("is a parent of the new snapshot", path=str(path))
            yield reading


def _take_blocks(source: ImageSource, parent: Geometry) -> None:
    # A raw file does not tell its RAM blocks apart: of the parent's size it has the parent's.
    names = [block.name for block in source.blocks]
    is_file = isinstance(source, PartsImage) and source.format == "raw"
    is_whole = is_file and names == [DEFAULT_BLOCK_NAME]
    if is_whole and source.blocks[0].size == parent.ram_size:
        source.blocks = tuple(replace(block, pieces=()) for block in parent.blocks)


def _packet_size(options: SaveOptions, parent: Reading | None) -> int:
    if options.packet_size is not None:
        return options.packet_size
    return DEFAULT_PACKET_SIZE if parent is None else parent.snapshot.geometry.packet_size


def _placed_blocks(
    source: ImageSource, options: SaveOptions, parent: Reading | None
) -> tuple[RamBlock, ...]:
    _check_blocks(source)
    blocks = source.blocks
    if parent is not None:
        blocks = inherit_pieces(blocks, parent.snapshot.geometry.blocks)
    placed = place_blocks(blocks, options.addresses)
    if sum(len(block.pieces) for block in placed) > MAX_PIECES:
        raise UsageError(f"RAM has more than {MAX_PIECES} pieces", path=source.shown)
    return placed


def _check_blocks(source: ImageSource) -> None:
    # The caller makes the blocks of raw files; those of other formats come from the file.
    kind = UsageError if source.format == "raw" else SnapmigError
    if len(source.blocks) > MAX_RAM_BLOCKS:
        message = f"{len(source.blocks)} RAM blocks, expected at most {MAX_RAM_BLOCKS}"
        raise kind(message, path=source.shown)
    if problem := block_problem(source.blocks):
        raise kind(problem, path=source.shown)
