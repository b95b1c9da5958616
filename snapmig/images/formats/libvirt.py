"""
libvirt's save images: a header, the domain's XML, then QEMU's stream, raw, sparse or compressed.

See libvirt's src/qemu/qemu_saveimage.h. The header is in the byte order of the host that wrote it.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from snapmig.errors import CorruptSnapshotError, SnapmigError, UsageError
from snapmig.images.file import ImageFile, closed_on_error
from snapmig.images.formats import mapped_ram, qemu_stream
from snapmig.images.plan import Content, ImagePlan
from snapmig.images.qemu.attachments import load_vm_state
from snapmig.images.qemu.kept_state import MAX_STATE_SIZE
from snapmig.images.qemu.parse import parse_vm_state
from snapmig.images.qemu.shared import whole_stream
from snapmig.images.source import ImageSource
from snapmig.images.unpacking import unpack
from snapmig.units import format_size

__all__ = ("NAME", "open_image", "plan_image")

NAME = "libvirt"

_COMPLETE = b"LibvirtQemudSave"
_PARTIAL = b"LibvirtQemudPart"
_HEADER = "16s5I56x"
_HEADER_SIZE = 92
_VERSION = 2
_RAW = 0
_SPARSE = 6
_PROGRAMS = {1: "gzip", 2: "bzip2", 3: "xz", 4: "lzop", 5: "zstd"}
_HEAD = "libvirt.head"
_RUNNING = 1
_ROOM = 64 << 10
"""
Free space after the XML, as in libvirt's own files: ``virsh save-image-edit`` may lengthen the XML.
"""

_START_SIZE = 65 << 20
"""Bytes of a stream sure to contain its list of RAM blocks."""
_MAX_PASSES = 8
"""Passes of a live save over the RAM; a paused guest takes one."""

MAX_HEAD_SIZE = 64 << 20
"""libvirt itself leaves 64 KiB after the XML; a domain's XML has a few KiB."""


class _Header(NamedTuple):
    order: str
    magic: bytes
    data_size: int
    kind: int
    cookie: int

    @property
    def stream_offset(self) -> int:
        return _HEADER_SIZE + self.data_size


def open_image(file: ImageFile) -> ImageSource:
    """
    Open a save image.

    :raises SnapmigError: incomplete, cut short, or its decompressor fails
    """
    header = _parse(file.read(0, _HEADER_SIZE), file)
    if header.magic == _PARTIAL:
        message = "the save image is incomplete: libvirt did not finish it"
        raise SnapmigError(message, path=file.shown)
    head = file.read(0, header.stream_offset)
    image: ImageSource
    if header.kind == _RAW:
        image = qemu_stream.open_at(file, header.stream_offset, NAME)
    elif header.kind == _SPARSE:
        image = mapped_ram.open_at(file, header.stream_offset, NAME)
    else:
        image = _open_compressed(file, header)
    image.attachments = {**image.attachments, _HEAD: head}
    return image


def plan_image(content: Content) -> ImagePlan:
    """
    Return the plan to turn a snapshot into a save image.

    A snapshot made from a save image gets the same header and XML again; a compressed stream
    becomes raw, because libvirt reads both alike. Other snapshots become a raw image of a running
    guest, with the domain's XML given by the user.

    :raises UsageError: there is no device state of QEMU, or no XML
    """
    if content.domain_xml is not None:
        head = bytearray(_make_head(content.domain_xml))
        content, state = whole_stream(content, NAME)
        return qemu_stream.plan_at(content, state, len(head), bytes(head))
    if _HEAD not in content.attachments:
        whole_stream(content, NAME)  # without device state an XML is no help
        raise UsageError(
            "libvirt needs the domain's XML, and this snapshot has none: give --domain-xml, or "
            "attach domain.xml when saving"
        )
    head = _check_head(content.attachments[_HEAD])
    state = load_vm_state(content.attachments, NAME, content.blocks)
    header = _parse(head, None)
    if header.kind == _SPARSE:
        return mapped_ram.plan_at(content, state, len(head), bytes(head))
    struct.pack_into(f"{header.order}I", head, 28, _RAW)
    return qemu_stream.plan_at(content, state, len(head), bytes(head))


def _make_head(xml: bytes) -> bytes:
    xml = xml.rstrip(b"\0")
    if not re.search(rb"<domain[\s>]", xml) or b"\0" in xml:
        raise UsageError(
            "the domain's XML has no element <domain>, expected what virsh dumpxml prints"
        )
    rest = xml + b"\0" + bytes(_ROOM)
    if len(rest) > MAX_HEAD_SIZE:
        raise UsageError(f"the domain's XML has {len(xml)} bytes, at most {MAX_HEAD_SIZE - _ROOM}")
    return struct.pack(f"={_HEADER}", _COMPLETE, _VERSION, len(rest), _RUNNING, _RAW, 0) + rest


def _check_head(raw: bytes) -> bytearray:
    # Not trusted: the snapshot's author may have written anything there.
    if len(raw) < _HEADER_SIZE:
        raise _refuse(f"{len(raw)} bytes, expected a header of {_HEADER_SIZE}", None)
    header = _parse(raw, None)
    if header.magic != _COMPLETE:
        raise _refuse("it is that of an incomplete image", None)
    if header.stream_offset != len(raw):
        size = header.stream_offset
        raise _refuse(f"{len(raw)} bytes, expected {size} as its header says", None)
    xml, _, rest = raw[_HEADER_SIZE:].partition(b"\0")
    if not xml.lstrip().startswith(b"<") or header.cookie not in (0, len(xml) + 1):
        raise _refuse("no XML where its header says", None)
    if header.cookie and not rest.lstrip().startswith(b"<"):
        raise _refuse("no cookie where its header says", None)
    return bytearray(raw)


def _parse(raw: bytes | bytearray, file: ImageFile | None) -> _Header:
    for order in "<>":
        magic, version, data_size, _running, kind, cookie = struct.unpack_from(
            f"{order}{_HEADER}", raw
        )
        if version == _VERSION:
            break
    else:
        raise _refuse(f"save image has a version other than {_VERSION}", file)
    if magic not in (_COMPLETE, _PARTIAL):
        raise _refuse("not a save image of libvirt", file)
    if not 0 < data_size <= MAX_HEAD_SIZE:
        raise _refuse(f"XML and cookie have {data_size} bytes, at most {MAX_HEAD_SIZE}", file)
    if kind not in (_RAW, _SPARSE, *_PROGRAMS):
        raise _refuse(f"save image has the format {kind}, which is not known here", file)
    return _Header(order, magic, data_size, kind, cookie)


def _refuse(words: str, file: ImageFile | None) -> SnapmigError:
    # Without a file it is about an attachment, whose checksum held.
    if file is None:
        return CorruptSnapshotError(f"attachment 'source/{_HEAD}': {words}")
    return SnapmigError(words, path=file.shown)


def _open_compressed(file: ImageFile, header: _Header) -> ImageSource:
    limit: int | None = None

    def check(plain: ImageFile, size: int) -> None:
        nonlocal limit
        if limit is None and size > _START_SIZE:
            limit = _size_limit(plain)
        if limit is not None and size > limit:
            raise SnapmigError(
                f"decompressed, it has more than {format_size(limit)}, the most expected for "
                "the RAM listed at its start",
                path=file.shown,
            )

    command = [_PROGRAMS[header.kind], "-dc"]
    with closed_on_error(unpack(file, header.stream_offset, command, check)) as plain:
        return qemu_stream.open_at(plain, 0, NAME)


def _size_limit(plain: ImageFile) -> int:
    state, _ = parse_vm_state(plain)
    return sum(block.length for block in state.blocks) * _MAX_PASSES + MAX_STATE_SIZE
