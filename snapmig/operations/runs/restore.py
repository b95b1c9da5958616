"""A restore under way: packets, their places in a file, and the workers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from snapmig.architectures import Architecture
from snapmig.attachments import (
    DOMAIN_XML,
    SOURCE_PREFIX,
    StoredAttachment,
    load_attachment,
    source_format,
)
from snapmig.container.format import PageKind
from snapmig.container.index import unpack_kinds
from snapmig.container.reader import SnapshotFile
from snapmig.errors import NoSpaceError, SnapmigError, UsageError
from snapmig.geometry import PAGE_SIZE
from snapmig.handlers.counters import Counter
from snapmig.handlers.load import LoadTasks, RestoreHandler, RestorePlan
from snapmig.images.formats import find_format
from snapmig.images.plan import Content, ImagePlan, Placer, block_starts
from snapmig.images.target import TargetPlan
from snapmig.operations.options.addresses import GivenAddress, place_blocks
from snapmig.operations.progress import reporter
from snapmig.operations.runs.read import Reading
from snapmig.pages import Mask
from snapmig.system.files import (
    NamelessFile,
    NewFile,
    PartialDirectory,
    PartialFile,
    check_destination,
    descriptor_path,
    fill_file,
    free_bytes,
    open_regular,
    write_error,
    write_file,
)
from snapmig.system.libc import huge_page_size
from snapmig.system.together import commit_together
from snapmig.units import format_size

__all__ = (
    "Part",
    "Placing",
    "SourceAttachments",
    "fill",
    "plan_block",
    "plan_whole",
    "restore_in_place",
    "restore_new",
)

_INDEX_STEP = 4096


class Part(NamedTuple):
    """Packets to restore, the size of their RAM, and the places of everything."""

    packets: range
    ram_size: int
    pages: int
    image: ImagePlan
    placer: Placer


class Placing(NamedTuple):
    """
    The guest's RAM layout given by the user, instead of the snapshot's own.

    :param addresses: guest physical addresses
    :param architecture: the guest's processors
    """

    addresses: Sequence[GivenAddress] = ()
    architecture: Architecture | None = None


AS_KNOWN = Placing()


def plan_whole(
    source: SnapshotFile,
    name: str,
    domain_xml: bytes | None = None,
    placing: Placing = AS_KNOWN,
) -> Part:
    """
    Plan a whole snapshot as an image of a format.

    :param domain_xml: libvirt's definition of the guest, preferred to any in the snapshot

    :raises UsageError: the snapshot lacks something needed by the format
    :raises CorruptSnapshotError: an attachment needed for it is invalid
    """
    geometry = source.geometry
    # The user's addresses take precedence over those of a saved core.
    kept = {} if any(placing) else SourceAttachments(source)
    content = Content(
        blocks=place_blocks(geometry.blocks, placing.addresses),
        attachments=kept,
        format=source_format(source),
        packet_pages=geometry.packet_pages,
        data_pages=partial(_data_pages, source),
        architecture=placing.architecture or source.architecture,
        domain_xml=domain_xml or _attached_xml(source),
    )
    try:
        plan = find_format(name).plan_image(content)
    except SnapmigError as error:
        error.path = error.path or source.shown
        raise
    placer = plan.placer or Placer(plan.block_offsets, block_starts(geometry.blocks))
    pages = sum(-(-block.size // PAGE_SIZE) for block in geometry.blocks)
    return Part(range(geometry.packet_count), geometry.ram_size, pages, plan, placer)


def _attached_xml(source: SnapshotFile) -> bytes | None:
    # A save image's definition is better: it was the guest's at that moment.
    entries = {entry.name: entry for entry in source.attachments}
    if DOMAIN_XML not in entries or f"{SOURCE_PREFIX}libvirt.head" in entries:
        return None
    return load_attachment(source, entries[DOMAIN_XML])


def plan_block(source: SnapshotFile, name: str, file_offset: int = 0) -> Part:
    """
    Plan one RAM block of a snapshot as a raw image, or as a part of a file.

    :raises UsageError: there is no block of that name
    """
    geometry = source.geometry
    names = [known.name for known in geometry.blocks]
    if name not in names:
        message = f"has no RAM block {name!r}, it has {', '.join(names[:20])}"
        raise UsageError(message, path=source.shown)
    number = names.index(name)
    size = geometry.blocks[number].size
    starts = [geometry.block_start(number)] * len(names)
    plan = ImagePlan(size, (file_offset,) * len(names))
    packets, pages = geometry.block_packets(number), -(-size // PAGE_SIZE)
    return Part(packets, size, pages, plan, Placer(plan.block_offsets, starts))


class SourceAttachments(Mapping[str, bytes]):
    """The saved image's contents besides pages, under its format's names."""

    def __init__(self, source: SnapshotFile) -> None:
        self._source = source
        self._entries = {
            entry.name.removeprefix(SOURCE_PREFIX): entry
            for entry in source.attachments
            if entry.name.startswith(SOURCE_PREFIX)
        }

    def __getitem__(self, name: str) -> bytes:
        return load_attachment(self._source, self._entries[name], limited=True)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def pieces(self, name: str) -> StoredAttachment:
        """Return the contents of a possibly large attachment."""
        return StoredAttachment(self._source, self._entries[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _data_pages(source: SnapshotFile, block: int) -> Iterator[Mask]:
    packets = source.geometry.block_packets(block)
    for first in range(packets.start, packets.stop, _INDEX_STEP):
        records = source.checked_records(first, min(_INDEX_STEP, packets.stop - first))
        kinds = records["kinds"].reshape(-1)
        pages = len(records) * source.geometry.packet_pages
        yield unpack_kinds(kinds, pages) != PageKind.ZERO


def restore_new(reading: Reading, path: Path, part: Part, *, force: bool) -> int:
    """
    Write a new image, visible once complete; return the number of nonzero pages.

    :raises NoSpaceError: it does not fit
    :raises DestinationExistsError: the image, or another file of it, exists
    """
    # A damaged index would make nonsense of the space it asks for.
    reading.snapshot.index.check_digest()
    if part.image.member is None:
        companions = {
            path.with_name(path.name + suffix): content
            for suffix, content in part.image.companions.items()
        }
        for destination in (path, *companions):
            check_destination(destination, force=force)
        with _written(reading, path, part) as (file, data_pages), ExitStack() as stack:
            others = []
            for companion, content in companions.items():
                others.append(stack.enter_context(PartialFile(companion, len(content))))
                fill_file(others[-1], content)
            commit_together([*others, file], force=force)
        return data_pages
    with PartialDirectory(path) as folder:
        inside = folder.partial_path / part.image.member
        with _written(reading, inside, part) as (file, data_pages):
            file.commit(force=False)
        for name, content in part.image.companions.items():
            write_file(folder.partial_path / name, content)
        folder.commit()
    return data_pages


@contextmanager
def restore_nameless(reading: Reading, folder: Path, part: Part) -> Iterator[tuple[int, int]]:
    """
    Write an image to a file without a name, for the duration of the ``with`` block.

    Yield its descriptor and the number of nonzero pages.

    :raises NoSpaceError: it does not fit
    """
    reading.snapshot.index.check_digest()
    with NamelessFile(folder, _check_room(reading, folder, str(folder), part)) as file:
        data_pages = _fill_new(reading, file, folder, part)
        yield file.fd, data_pages


@contextmanager
def _written(reading: Reading, path: Path, part: Part) -> Iterator[tuple[PartialFile, int]]:
    # A partial file with everything in it, synced, for the caller to commit.
    with PartialFile(path, _check_room(reading, path.parent, str(path), part)) as file:
        data_pages = _fill_new(reading, file, path.parent, part)
        file.sync()
        yield file, data_pages


def _check_room(reading: Reading, folder: Path, shown: str, part: Part) -> int:
    # Return the space needed by the image.
    needed = reading.snapshot.index.pages_in_use(part.packets) * PAGE_SIZE
    needed += sum(len(piece) for _, piece in part.image.pieces)
    needed += sum(len(content) for content in part.image.companions.values())
    free = free_bytes(folder)
    if needed > free:
        message = f"image needs {format_size(needed)}, its filesystem has {format_size(free)} free"
        raise NoSpaceError(message, path=shown)
    return needed


def _fill_new(reading: Reading, file: NewFile, folder: Path, part: Part) -> int:
    file.resize(part.image.size)
    for offset, piece in part.image.pieces:
        file.write(piece, offset)
    target = TargetPlan(
        path=descriptor_path(file.fd),
        shown=file.shown,
        needed=file.needed,
        in_place=False,
        huge_page_size=huge_page_size(str(folder)),
    )
    return fill(reading, target, part)


def restore_in_place(reading: Reading, path: Path, part: Part) -> int:
    """Write into an existing image of the same size; return the number of nonzero pages."""
    try:
        fd = open_regular(path, os.O_RDWR)
    except SnapmigError as error:
        raise SnapmigError(f"image is {error.message}", path=str(path)) from error
    try:
        facts = os.fstat(fd)
        if facts.st_size != part.image.size:
            message = f"image has {facts.st_size} bytes, the snapshot's RAM {part.image.size}"
            raise SnapmigError(message, path=str(path))
        target = TargetPlan(
            path=descriptor_path(fd),
            shown=str(path),
            needed=part.image.size,
            in_place=True,
            huge_page_size=huge_page_size(str(path)),
        )
        with _partly_restored(path):
            data_pages = fill(reading, target, part)
            try:
                os.fsync(fd)
            except OSError as error:
                raise write_error(error, str(path), part.image.size) from error
    finally:
        os.close(fd)
    return data_pages


@contextmanager
def _partly_restored(path: Path) -> Iterator[None]:
    try:
        yield
    except SnapmigError as error:
        error.args = (f"{error.message}; {path} is only partly restored now",)
        raise
    except OSError as error:
        message = f"{error.strerror}; {path} is only partly restored now"
        raise SnapmigError(message, path=error.filename) from error
    except BaseException as error:
        error.add_note(f"{path} is only partly restored now")
        raise


def fill(reading: Reading, target: TargetPlan, part: Part) -> int:
    """Have workers write a part's pages into a file; return the number of nonzero pages."""
    plan = RestorePlan(reading.plans, target, part.placer)
    options = reading.options
    make_handler = partial(RestoreHandler, plan)
    with options.workers(options.jobs, make_handler, lambda _signal: "") as pool:
        report = reporter(pool, part.ram_size, options.progress)
        pool.run(LoadTasks(reading.snapshot, part.packets), report, ahead=reading.ahead)
        report()
        reading.take_warnings(pool)
        return int(pool.counters.total()[Counter.DATA_PAGES])
