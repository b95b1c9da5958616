"""Attachments: named byte strings in a snapshot, such as device state or a domain's XML."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from snapmig.container.format import (
    MAX_ATTACHMENT_SIZE,
    MAX_ATTACHMENTS,
    MAX_NAME_SIZE,
    Encoding,
)
from snapmig.container.head import SnapshotHead
from snapmig.container.tables import SEALED_PART_SIZE, AttachmentEntry
from snapmig.encodings.deflate import compress_stream, decompress_stream
from snapmig.errors import CorruptSnapshotError, SnapmigError, UsageError
from snapmig.images.qemu.kept_state import AFTER, FACTS, MAX_FACTS_SIZE, MAX_STATE_SIZE
from snapmig.system.files import Buffer, open_regular
from snapmig.units import format_size

if TYPE_CHECKING:  # numpy with them
    from snapmig.container.writer import SnapshotWriter
    from snapmig.images.source import ImageSource

__all__ = (
    "DOMAIN_XML",
    "NOTE_PACKET",
    "SOURCE_PREFIX",
    "VIA",
    "AttachmentSource",
    "Attachments",
    "StoredAttachment",
    "check_attachments",
    "load_attachment",
    "note_packet",
    "parent_sealing",
    "source_attachments",
    "source_format",
    "source_way",
    "store_attachments",
)

AttachmentSource = bytes | str | os.PathLike[str]
"""The contents themselves, or the path of the file that has them."""

SOURCE_PREFIX = "source/"
"""Name prefixes of attachments made by a save from an image's contents besides pages."""
DOMAIN_XML = "domain.xml"
"""Name of the attachment with libvirt's definition of the guest."""

NOTE_PACKET = SOURCE_PREFIX + "note-packet"
"""Name of the attachment with the number of a packet in which a save saw VMCOREINFO."""

_FORMAT_NAME = SOURCE_PREFIX + "format"

VIA = "via"
"""The source's attachment with the way to a running guest's RAM, such as ``multifd``."""

_FORMAT = re.compile(r"[a-z0-9][a-z0-9-]{0,63}", re.ASCII)

_STEP = 1 << 20

_LIMITS = {
    _FORMAT_NAME: 64,
    f"{SOURCE_PREFIX}{VIA}": 64,
    NOTE_PACKET: 20,
    f"{SOURCE_PREFIX}parent-sealing": 64,
    f"{SOURCE_PREFIX}parent": 4096,  # no path is longer on Linux
    f"{SOURCE_PREFIX}guest.json": 8 << 20,  # a command line has at most 2 MiB
    f"{SOURCE_PREFIX}{FACTS}": MAX_FACTS_SIZE,
    f"{SOURCE_PREFIX}elf.json": 32 << 20,  # 2^18 segments
    f"{SOURCE_PREFIX}kdump.head": 128 << 10,
    f"{SOURCE_PREFIX}kdump.notes": 64 << 20,
    f"{SOURCE_PREFIX}kdump.vmcoreinfo": 1 << 20,
    f"{SOURCE_PREFIX}kdump.erased": 16 << 20,
    f"{SOURCE_PREFIX}vmstate": 10_000_000,  # Firecracker's own limit
    f"{SOURCE_PREFIX}{AFTER}": MAX_STATE_SIZE,
}
"""Bytes of contents that are taken into memory to make an image of a snapshot again. A device state
without RAM has a few MiB."""
_LIMIT = 128 << 20


def check_attachments(attach: Mapping[str, AttachmentSource]) -> None:
    """
    Refuse attachments that can't be stored, before any work is done.

    :raises UsageError: a bad name, or too many
    :raises SnapmigError: a file is too large
    :raises OSError: a file can't be read
    """
    if len(attach) > MAX_ATTACHMENTS:
        raise UsageError(f"{len(attach)} attachments, expected at most {MAX_ATTACHMENTS}")
    for name, source in attach.items():
        if name.startswith(SOURCE_PREFIX):
            message = f"attachment name {name!r} is reserved for contents of the image itself"
            raise UsageError(message)
        if not _is_utf8(name):
            raise UsageError(f"attachment name {name!r} is not UTF-8")
        if not 0 < len(name.encode()) <= MAX_NAME_SIZE or "\0" in name:
            message = f"attachment name {name!r} is not 1 to {MAX_NAME_SIZE} bytes long"
            raise UsageError(message)
        size = len(source) if isinstance(source, bytes) else _file_size(name, source)
        _check_size(name, size)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _file_size(name: str, path: str | os.PathLike[str]) -> int:
    # Opened, so that an unreadable file is refused now.
    try:
        fd = open_regular(path)
    except SnapmigError as error:
        message = f"attachment {name!r} is {error.message}"
        raise SnapmigError(message, path=os.fspath(path)) from error
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def source_attachments(source: ImageSource) -> dict[str, bytes]:
    """Return the attachments needed besides an image's pages; none for a raw one."""
    kept = {SOURCE_PREFIX + name: content for name, content in source.attachments.items()}
    return kept if source.format == "raw" else {_FORMAT_NAME: source.format.encode(), **kept}


def source_format(snapshot: SnapshotHead) -> str:
    """
    Return the format of the image a snapshot was made from.

    :raises CorruptSnapshotError: the attachment with the format is damaged
    """
    return _source_word(snapshot, _FORMAT_NAME, "the name of a format") or "raw"


def source_way(snapshot: SnapshotHead) -> str | None:
    """
    Return the way to the RAM of the running guest that was saved, None for others.

    :raises CorruptSnapshotError: the attachment with the way is damaged
    """
    return _source_word(snapshot, SOURCE_PREFIX + VIA, "the name of a way")


def parent_sealing(snapshot: SnapshotHead) -> str | None:
    """
    Return the sealing of a parent that is sealed in another way, None for all others.

    :raises CorruptSnapshotError: the attachment with it is damaged
    """
    return _source_word(snapshot, f"{SOURCE_PREFIX}parent-sealing", "a sealing")


def note_packet(snapshot: SnapshotHead) -> int | None:
    """
    Return the packet in which a save saw the kernel's note VMCOREINFO, None if none is named.

    :raises CorruptSnapshotError: the attachment with it is damaged
    """
    word = _source_word(snapshot, NOTE_PACKET, "the number of a packet")
    return int(word) if word is not None and word.isdigit() else None


def _source_word(snapshot: SnapshotHead, name: str, wanted: str) -> str | None:
    for entry in snapshot.attachments:
        if entry.name == name:
            word = load_attachment(snapshot, entry, limited=True).decode("ascii", "replace")
            if _FORMAT.fullmatch(word) is None:
                message = f"attachment {name!r} is {word!r}, expected {wanted}"
                raise CorruptSnapshotError(message, path=snapshot.shown)
            return word
    return None


def store_attachments(
    writer: SnapshotWriter, attach: Mapping[str, AttachmentSource | StoredAttachment]
) -> None:
    """Compress attachments to the end of a snapshot."""
    for name, source in attach.items():
        start = writer.end
        contents = _Contents(name, source)
        stored_size = 0
        sealer = writer.sealer
        pieces = compress_stream(contents)
        for piece in pieces if sealer is None else _in_parts(pieces):
            writer.append(piece if sealer is None else sealer.seal(bytes(piece)))
            stored_size += memoryview(piece).nbytes
        entry = AttachmentEntry(
            name=name,
            offset=start,
            stored_size=stored_size,
            size=contents.size,
            encoding=Encoding.DEFLATE,
            sha256=contents.digest.digest(),
        )
        writer.add_attachment(entry)


def _in_parts(pieces: Iterable[Buffer]) -> Iterator[bytes]:
    # The same bytes, cut as they are encrypted.
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        while len(waiting) >= SEALED_PART_SIZE:
            yield bytes(waiting[:SEALED_PART_SIZE])
            del waiting[:SEALED_PART_SIZE]
    if waiting:
        yield bytes(waiting)


class StoredAttachment:
    """
    An attachment's contents in pieces, read again at each iteration; never all in memory.

    The last piece comes before the contents have been compared with the table.

    :raises CorruptSnapshotError: they differ from the table
    """

    def __init__(self, snapshot: SnapshotHead, entry: AttachmentEntry) -> None:
        self._snapshot = snapshot
        self._entry = entry

    def __len__(self) -> int:
        return self._entry.size

    def __iter__(self) -> Iterator[bytes]:
        entry = self._entry
        pieces = self._snapshot.attachment_pieces(entry)
        if entry.encoding == Encoding.DEFLATE:
            pieces = decompress_stream(pieces, entry.size)
        digest = hashlib.sha256()
        try:
            for piece in pieces:
                digest.update(piece)
                yield piece
        except CorruptSnapshotError as error:
            if error.path is not None:
                raise
            message = f"attachment {entry.name!r}: {error.message}"
            raise CorruptSnapshotError(message, path=self._snapshot.shown) from error
        if digest.digest() != entry.sha256:
            message = (
                f"attachment {entry.name!r}: SHA-256 is {entry.sha256.hex()}, "
                f"computed {digest.hexdigest()}"
            )
            raise CorruptSnapshotError(message, path=self._snapshot.shown)

    def check(self) -> None:
        """Read all of it."""
        for _ in self:
            pass


def load_attachment(
    snapshot: SnapshotHead, entry: AttachmentEntry, *, limited: bool = False
) -> bytes:
    """
    Return an attachment's contents.

    :param limited: refuse more than snapmig itself writes under that name, without reading it
    :raises CorruptSnapshotError: they differ from the table
    """
    limit = _LIMITS.get(entry.name, _LIMIT)
    if limited and entry.size > limit:
        message = f"attachment {entry.name!r} has {entry.size} bytes, expected at most {limit}"
        raise CorruptSnapshotError(message, path=snapshot.shown)
    return b"".join(StoredAttachment(snapshot, entry))


class Attachments(Mapping[str, bytes]):
    """
    A snapshot's attachments by name, read and checked on access.

    :param prefix: start of the names of those wanted, left out here
    :param limited: as of :func:`load_attachment`
    """

    def __init__(self, file: SnapshotHead, prefix: str = "", *, limited: bool = False) -> None:
        self._file = file
        self._limited = limited
        found = (entry for entry in file.attachments if entry.name.startswith(prefix))
        self._entries = {entry.name.removeprefix(prefix): entry for entry in found}

    def __getitem__(self, name: str) -> bytes:
        return load_attachment(self._file, self._entries[name], limited=self._limited)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(map(repr, self))}>"

    def pieces(self, name: str) -> StoredAttachment:
        """Return the contents of a possibly large attachment."""
        return StoredAttachment(self._file, self._entries[name])


class _Contents:
    # The pieces of an attachment, hashed and counted on their way.
    def __init__(self, name: str, source: AttachmentSource | StoredAttachment) -> None:
        self._name = name
        self._source = source
        self.size = 0
        self.digest = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for piece in _pieces(self._source):
            self.size += len(piece)
            _check_size(self._name, self.size)  # a file may have grown since its size was checked
            self.digest.update(piece)
            yield piece


def _pieces(source: AttachmentSource | StoredAttachment) -> Iterator[bytes]:
    if isinstance(source, StoredAttachment):
        yield from source
    elif isinstance(source, bytes):
        yield source
    else:
        with os.fdopen(open_regular(source), "rb") as file:
            while piece := file.read(_STEP):
                yield piece


def _check_size(name: str, size: int) -> None:
    if size > MAX_ATTACHMENT_SIZE:
        limit = format_size(MAX_ATTACHMENT_SIZE)
        raise SnapmigError(f"attachment {name!r} has {format_size(size)}, expected at most {limit}")
