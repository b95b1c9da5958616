"""
Headers of ELF cores: the processor, and the segments of RAM.

See elf(5), and dump/dump.c of QEMU.
"""

from __future__ import annotations

from importlib import import_module
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np

from snapmig.architectures import Architecture
from snapmig.errors import SnapmigError, UnsupportedError
from snapmig.geometry import MAX_RAM_SIZE
from snapmig.images.file import ImageFile
from snapmig.pages import Mask

__all__ = ("Header", "Load", "read_header", "read_loads")

MAX_SEGMENTS = 1 << 18

_LOAD = 1
_MACHINE_AT = 18
_MANY_SEGMENTS = 0xFFFF
"""Replaces a number of segments too large for the field; the first section header has it then."""
_END = np.uint64(MAX_RAM_SIZE)

_SEGMENT_FIELDS = {
    64: ("type:u4", "flags:u4", "offset:u8", "vaddr:u8", "paddr:u8", "filesz:u8", "memsz:u8",
         "align:u8"),
    32: ("type:u4", "offset:u4", "vaddr:u4", "paddr:u4", "filesz:u4", "memsz:u4", "flags:u4",
         "align:u4"),
}  # fmt: skip


class Load(NamedTuple):
    """A segment of RAM: its addresses, and the place of its first ``stored`` bytes in the file."""

    start: int
    stop: int
    stored: int
    offset: int


class Header(NamedTuple):
    """
    The fields of an ELF header in use here.

    :param machine: number of the processor
    :param offset: of the table of segments
    :param segments: their number
    """

    machine: int
    width: int
    little: bool
    offset: int
    segments: int

    @property
    def architecture(self) -> Architecture | None:
        """The guest's processors, None if the header names none."""
        return Architecture(self.machine, self.width, self.little) if self.machine else None


def read_header(file: ImageFile) -> Header:
    """
    Return the header of a core.

    :raises SnapmigError: cut short, or an impossible field
    """
    structs_module, utils = _elftools()
    ident = file.read(0, 16)
    if ident[:4] != b"\x7fELF" or ident[4] not in (1, 2) or ident[5] not in (1, 2):
        raise SnapmigError("not an ELF file of 32 or 64 bits", path=file.shown)
    width, little = 32 * ident[4], ident[5] == 1
    structs = structs_module.ELFStructs(little_endian=little, elfclass=width)
    structs.create_basic_structs()
    header = utils.struct_parse(structs.Elf_Ehdr, BytesIO(file.read(0, 64 if width == 64 else 52)))
    if header["e_type"] != "ET_CORE":
        raise SnapmigError("ELF file is not a core", path=file.shown)
    size = _segment_type(width, little=little).itemsize
    if header["e_phentsize"] != size:
        message = f"segment headers have {header['e_phentsize']} bytes, expected {size}"
        raise SnapmigError(message, path=file.shown)
    count = header["e_phnum"]
    if count == _MANY_SEGMENTS:
        structs.create_advanced_structs(header["e_type"], header["e_machine"], "ELFOSABI_SYSV")
        length = structs.Elf_Shdr.sizeof()
        _check_inside(file, header["e_shoff"], length, "section header")
        section = file.read(header["e_shoff"], length)
        count = utils.struct_parse(structs.Elf_Shdr, BytesIO(section))["sh_info"]
    if count > MAX_SEGMENTS:
        message = f"{count} segments, expected at most {MAX_SEGMENTS}"
        raise SnapmigError(message, path=file.shown)
    machine = int.from_bytes(file.read(_MACHINE_AT, 2), "little" if little else "big")
    return Header(machine, width, little, header["e_phoff"], count)


def _elftools() -> tuple[Any, Any]:
    try:
        return import_module("elftools.elf.structs"), import_module("elftools.common.utils")
    except ImportError as error:
        message = "ELF cores need pyelftools: pip install 'snapmig[elf]'"
        raise SnapmigError(message) from error


def read_loads(file: ImageFile, header: Header) -> list[Load]:
    """
    Return a core's segments of RAM.

    :raises SnapmigError: there is none, or an impossible one
    """
    kind = _segment_type(header.width, little=header.little)
    _check_inside(file, header.offset, header.segments * kind.itemsize, "segment headers")
    raw = file.read(header.offset, header.segments * kind.itemsize)
    table = np.frombuffer(raw, kind)
    table = table[(table["type"] == _LOAD) & (table["memsz"] > 0)]
    # Left out of the core on purpose, so the guest's RAM is not zero there.
    absent = (1 << header.width) - 1
    table = table[(table["filesz"] > 0) | (table["offset"] != absent)]
    if not table.size:
        raise SnapmigError("core has no segment of RAM", path=file.shown)
    stored_at = np.unique(table["offset"][table["filesz"] > 0])
    if len(stored_at) > 1 and not table["paddr"].any():
        message = "this is the core of a process: no segment has a physical address"
        raise UnsupportedError(message, path=file.shown)
    start, memory, stored, offset = (
        table[name].astype(np.uint64) for name in ("paddr", "memsz", "filesz", "offset")
    )
    # No sums here, because they could exceed 64 bits.
    bad = (stored > memory) | (memory > _END) | (start > _END - np.minimum(memory, _END))
    _check_none(file, table, bad, "has more bytes than memory, or ends beyond 56 bits")
    outside = (stored > file.size) | (offset > file.size - np.minimum(stored, file.size))
    _check_none(file, table, outside & (stored > 0), f"is not all before {file.size:#x}, the end")
    return list(map(Load, *(a.tolist() for a in (start, start + memory, stored, offset))))


def _check_none(file: ImageFile, table: Any, mask: Mask, words: str) -> None:
    if mask.any():
        entry = table[mask][0]
        message = f"segment of {entry['filesz']} bytes for address {entry['paddr']:#x} {words}"
        raise SnapmigError(message, path=file.shown, offset=int(entry["offset"]))


def _segment_type(width: int, *, little: bool) -> np.dtype[Any]:
    order = "<" if little else ">"
    fields = [field.split(":") for field in _SEGMENT_FIELDS[width]]
    return np.dtype([(name, order + kind) for name, kind in fields])


def _check_inside(file: ImageFile, offset: int, length: int, what: str) -> None:
    if offset + length > file.size:
        message = f"{what}: {length} bytes, but the file ends at {file.size:#x}: is it cut short?"
        raise SnapmigError(message, path=file.shown, offset=offset)
