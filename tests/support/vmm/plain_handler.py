"""
The simplest handler of page faults, for comparison: ``python -m ... SOCKET FILE``.

It copies the one page asked for from a raw file, as the example of Firecracker's sources does.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import select
import socket
import struct
import sys
from pathlib import Path

_COPY = 0xC028AA03


def main() -> None:
    """Serve one guest."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen()
    print("listening", file=sys.stderr, flush=True)
    connection, _ = listener.accept()
    raw, fds, _, _ = socket.recv_fds(connection, 1 << 16, 1)
    regions = json.loads(raw)
    with Path(sys.argv[2]).open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE)
    base = ctypes.addressof(ctypes.c_char.from_buffer(content))
    poll = select.poll()
    poll.register(fds[0], select.POLLIN)
    poll.register(connection, select.POLLHUP)
    while all(fd == fds[0] for fd, _ in poll.poll()):
        message = os.read(fds[0], 32)
        (address,) = struct.unpack_from("<Q", message, 16)
        start, offset = next(
            (each["base_host_virt_addr"], each["offset"])
            for each in regions
            if each["base_host_virt_addr"] <= address < each["base_host_virt_addr"] + each["size"]
        )
        source = base + offset + address - start
        fcntl.ioctl(fds[0], _COPY, bytearray(struct.pack("<QQQQq", address, source, 4096, 0, 0)))


if __name__ == "__main__":
    main()
