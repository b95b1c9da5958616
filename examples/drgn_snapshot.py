"""
Open a snapshot of a Linux guest in drgn, without a restore.

    python examples/drgn_snapshot.py SNAPSHOT

prints the kernel's banner. Only what drgn asks for is decoded. `open_program` is for scripts of
your own, `main` is an example of one. The kernel must have VMCOREINFO and kallsyms, as those of
distributions have; types need its debugging symbols, which drgn looks for where it always does.
"""

from __future__ import annotations

import os
import struct
import sys

import drgn
from drgn.helpers.linux.kallsyms import load_vmlinux_kallsyms

import snapmig

PAGE = 4096
NOTE = b"\0\0\0\0VMCOREINFO\0\0"
"""The kernel's note from its type on. Two lengths stand before it, at the start of a page."""
LONGEST = 64 << 10


def find_note(snapshot: snapmig.Snapshot) -> bytes:
    """Return the text of VMCOREINFO, which the kernel keeps in memory."""
    for offset in snapshot.search(NOTE):
        if (start := offset - 8) % PAGE == 0:
            _, size = struct.unpack("<2I", snapshot.read(start, 8))
            text = snapshot.read(offset + len(NOTE), min(size, LONGEST))
            if text.startswith(b"OSRELEASE="):
                return text.rstrip(b"\0")
    raise snapmig.SnapmigError("has no VMCOREINFO: is it a Linux guest's?")


def core_of(note: bytes) -> int:
    """Return a descriptor of a core with the note and no memory."""
    padding = bytes(-len(note) % 4)
    content = struct.pack("<3I", 11, len(note), 0) + b"VMCOREINFO\0\0" + note + padding
    ident = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 4, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    header += struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(content), len(content), 4)
    core = os.memfd_create("core", os.MFD_CLOEXEC)
    os.write(core, header + content)
    return core


def open_program(snapshot: snapmig.Snapshot) -> drgn.Program:
    """Return drgn's program of a snapshot of an x86-64 guest, with the symbols of kallsyms."""

    def read(address: int, count: int, _offset: int, _physical: bool) -> bytes:
        return snapshot.read_at(address, count)

    program = drgn.Program()
    core = core_of(find_note(snapshot))
    program.set_core_dump(core)
    for start, stop in snapshot.ranges:
        program.add_memory_segment(start, stop - start, read, True)
    symbols = load_vmlinux_kallsyms(program)
    program.register_symbol_finder("kallsyms", symbols, enable_index=0)
    return program


def main(path: str) -> None:
    """Print the kernel's banner."""
    with snapmig.open(path) as snapshot:
        program = open_program(snapshot)
        address = program.symbol("linux_banner").address
        print(program.read_c_string(address).decode().strip())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(sys.argv[1])
    except snapmig.SnapmigError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
