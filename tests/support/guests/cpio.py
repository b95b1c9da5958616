"""
A writer of cpio archives in the "newc" form, unpacked by Linux as its first file system.

Owners are always root and times always zero, so that it needs no privileges and the same entries
give the same bytes.
"""

import stat
from typing import BinaryIO

TRAILER = "TRAILER!!!"
PAD = 4


class CpioWriter:
    """Writes entries to a binary stream; `close` writes the end mark, not the stream's end."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._entries = 0

    def folder(self, name: str, mode: int = 0o755) -> None:
        """Add a folder; Linux wants it before its contents."""
        self._entry(name, stat.S_IFDIR | mode, b"")

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        """Add a regular file."""
        self._entry(name, stat.S_IFREG | mode, content)

    def symlink(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, name: str, major: int, minor: int) -> None:
        """Add a character device, such as the console of the first process."""
        self._entry(name, stat.S_IFCHR | 0o600, b"", (major, minor))

    def close(self) -> None:
        """Write the archive's last entry."""
        self._entry(TRAILER, 0, b"")

    def _entry(
        self, name: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)
    ) -> None:
        self._entries += 1
        raw_name = name.encode() + b"\0"
        numbers = [self._entries, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(raw_name), 0]
        header = b"070701" + b"".join(b"%08X" % number for number in numbers)
        self._padded(header + raw_name)
        self._padded(content)

    def _padded(self, data: bytes) -> None:
        self._stream.write(data)
        self._stream.write(bytes(-len(data) % PAD))
