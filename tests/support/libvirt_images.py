"""libvirt's save images, built by hand."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import dataclass

from tests.support.qemu_files import Block, Mapped, Stream, data, part, zero

XML = "<domain type='kvm'><name>Gästin</name></domain>".encode() + b"\0"
COOKIE = b"<qemusave><cpu/></qemusave>\0"
PADDING = 65536
RAW, GZIP, BZIP2, XZ, LZOP, ZSTD, SPARSE = range(7)
PROGRAMS = {GZIP: "gzip", BZIP2: "bzip2", XZ: "xz", ZSTD: "zstd"}
RAM = Block(pages={0: 1, 3: 2, 9: 3}, stale={5: 0xEE})
RECORDS = part(zero(0, b"ram"), data(0, 1), data(3, 9), data(3, 2, b"ram"), data(9, 3))


@dataclass(frozen=True)
class Image:
    """A save image; every field can be wrong."""

    kind: int = RAW
    magic: bytes = b"LibvirtQemudSave"
    version: int = 2
    order: str = "<"
    cookie: bytes = COOKIE
    size: int | None = None
    body: bytes | None = None

    def head(self) -> bytes:
        """Return the bytes before QEMU's stream: header, XML, cookie, room to grow."""
        rest = XML + self.cookie + bytes(PADDING)
        size = len(rest) if self.size is None else self.size
        place = len(XML) if self.cookie else 0
        fields = (self.magic, self.version, size, 1, self.kind, place)
        return struct.pack(f"{self.order}16s5I56x", *fields) + rest

    def build(self) -> bytes:
        """Return the file."""
        head = self.head()
        if self.body is not None:
            return head + self.body
        if self.kind == SPARSE:
            return Mapped([RAM], start=len(head)).build().replace(bytes(len(head)), head, 1)
        stream = Stream([RECORDS]).build()
        if self.kind in PROGRAMS:
            command = [PROGRAMS[self.kind], "-c"]
            stream = subprocess.run(command, input=stream, stdout=-1, check=True).stdout
        return head + stream
