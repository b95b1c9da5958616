"""Parts of a dump besides its pages: headers, notes, and the list of what was erased."""

from __future__ import annotations

from snapmig.errors import SnapmigError
from snapmig.images.kdump.contents import DumpContents
from snapmig.images.kdump.header import Header

__all__ = ("ERASED", "HEAD", "NOTES", "VMCOREINFO", "kept_parts")

HEAD = "kdump.head"
NOTES = "kdump.notes"
VMCOREINFO = "kdump.vmcoreinfo"
ERASED = "kdump.erased"

_LIMITS = {NOTES: 64 << 20, VMCOREINFO: 1 << 20, ERASED: 16 << 20}


def kept_parts(dump: DumpContents, header: Header) -> dict[str, bytes]:
    """
    Return a dump's parts as attachments.

    :raises SnapmigError: one is too large, or not in the dump
    """
    sub = header.sub
    places = {
        NOTES: (sub.notes_offset, sub.notes_size),
        VMCOREINFO: (sub.vmcoreinfo_offset, sub.vmcoreinfo_size),
        ERASED: (sub.erased_offset, sub.erased_size),
    }
    kept = {HEAD: dump.read(0, header.block_size + header.layout.sub.size)}
    for name, (offset, size) in places.items():
        if size > _LIMITS[name]:
            message = (
                f"{name.partition('.')[2]} have {size} bytes, expected {_LIMITS[name]} at most"
            )
            raise SnapmigError(message, path=dump.shown)
        if size:
            kept[name] = dump.read(offset, size)
    return kept
