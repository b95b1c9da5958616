"""Attachments: named byte strings in a snapshot, such as device state or a domain's XML."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from snapmig.container.format import (
    MAX_ATTACHMENT_SIZE,
    MAX_ATTACHMENTS,
    MAX_NAME_SIZE,
    Encoding,
)
from snapmig.container.reader import SnapshotFile
from snapmig.container.tables import AttachmentEntry
from snapmig.container.writer import SnapshotWriter
from snapmig.encodings.deflate import compress_stream, decompress
from snapmig.errors import CorruptSnapshotError, SnapmigError, UsageError
from snapmig.images.source import ImageSource
from snapmig.units import format_size

__all__ = (
    "SOURCE_PREFIX",
    "AttachmentSource",
    "check_attachments",
    "load_attachment",
    "source_attachments",
    "source_format",
    "store_attachments",
)

AttachmentSource = bytes | str | os.PathLike[str]
"""The contents themselves, or the path of the file that has them."""

SOURCE_PREFIX = "source/"
"""Names of attachments that a save makes itself, from what an image has besides pages."""
_FORMAT_NAME = SOURCE_PREFIX + "format"

_STEP = 1 << 20


def check_attachments(attach: Mapping[str, AttachmentSource]) -> None:
    """
    Refuse attachments that can't be stored, before any work is done.

    :raises UsageError: a bad name, or too many
    :raises SnapmigError: a file that is too large
    :raises OSError: a file that can't be read
    """
    if len(attach) > MAX_ATTACHMENTS:
        raise UsageError(f"{len(attach)} attachments, expected at most {MAX_ATTACHMENTS}")
    for name, source in attach.items():
        if name.startswith(SOURCE_PREFIX):
            message = f"attachment name {name!r} is kept for what belongs to the image itself"
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
    # Opened, so that a file that can't be read is refused now, without waiting for a pipe's writer.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        facts = os.fstat(fd)
    finally:
        os.close(fd)
    if not stat.S_ISREG(facts.st_mode):
        message = f"attachment {name!r} is not a regular file"
        raise SnapmigError(message, path=os.fspath(path))
    return facts.st_size


def source_attachments(source: ImageSource) -> dict[str, bytes]:
    """Return what must be kept of an image besides its pages; nothing for a raw one."""
    kept = {SOURCE_PREFIX + name: content for name, content in source.attachments.items()}
    return kept if source.format == "raw" else {_FORMAT_NAME: source.format.encode(), **kept}


def source_format(snapshot: SnapshotFile) -> str:
    """
    Return the format of the image that a snapshot was made of.

    :raises CorruptSnapshotError: the attachment that says so is damaged
    """
    for entry in snapshot.attachments:
        if entry.name == _FORMAT_NAME:
            return load_attachment(snapshot, entry).decode("ascii", "replace")
    return "raw"


def store_attachments(writer: SnapshotWriter, attach: Mapping[str, AttachmentSource]) -> None:
    """Compress attachments to the end of a snapshot."""
    for name, source in attach.items():
        start = writer.end
        contents = _Contents(name, source)
        for piece in compress_stream(contents):
            writer.append(piece)
        entry = AttachmentEntry(
            name=name,
            offset=start,
            stored_size=writer.end - start,
            size=contents.size,
            encoding=Encoding.DEFLATE,
            sha256=contents.digest.digest(),
        )
        writer.add_attachment(entry)


def load_attachment(snapshot: SnapshotFile, entry: AttachmentEntry) -> bytes:
    """
    Return an attachment's contents.

    :raises CorruptSnapshotError: they are not what the table says
    """
    contents = snapshot.stored_attachment(entry)
    if entry.encoding == Encoding.DEFLATE:
        try:
            contents = decompress(contents, entry.size, 15)
        except CorruptSnapshotError as error:
            message = f"attachment {entry.name!r}: {error.message}"
            raise CorruptSnapshotError(message, path=snapshot.shown) from error
    computed = hashlib.sha256(contents).digest()
    if computed != entry.sha256:
        message = (
            f"attachment {entry.name!r}: SHA-256 is {entry.sha256.hex()}, computed {computed.hex()}"
        )
        raise CorruptSnapshotError(message, path=snapshot.shown)
    return contents


class _Contents:
    # The pieces of an attachment, hashed and counted on their way.
    def __init__(self, name: str, source: AttachmentSource) -> None:
        self._name = name
        self._source = source
        self.size = 0
        self.digest = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for piece in _pieces(self._source):
            self.size += len(piece)
            _check_size(self._name, self.size)  # a file may have grown since it was looked at
            self.digest.update(piece)
            yield piece


def _pieces(source: AttachmentSource) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    with Path(source).open("rb") as file:
        while piece := file.read(_STEP):
            yield piece


def _check_size(name: str, size: int) -> None:
    if size > MAX_ATTACHMENT_SIZE:
        limit = format_size(MAX_ATTACHMENT_SIZE)
        raise SnapmigError(f"attachment {name!r} has {format_size(size)}, expected at most {limit}")
