"""
The simplest offload daemon, for comparison: ``python -m ... SOCKET FILE``.

It copies memory slots to one file and syncs it; that of Cloud Hypervisor's sources makes several.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from pathlib import Path

_CONFIG, _MEMORY_FD, _COMPLETE, _COMPLETE_PAUSED = 2, 7, 5, 8


def main() -> None:
    """Take one guest."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen()
    print("listening", file=sys.stderr, flush=True)
    connection, _ = listener.accept()
    files, config, command = {}, {}, 0
    while command not in (_COMPLETE, _COMPLETE_PAUSED):
        command, length = struct.unpack("<H6xQ", connection.recv(16, socket.MSG_WAITALL))
        if command == _MEMORY_FD:
            raw, fds, _, _ = socket.recv_fds(connection, 4, 1)
            files[struct.unpack("<I", raw)[0]] = fds[0]
        elif length:
            payload = connection.recv(length, socket.MSG_WAITALL)
            config = json.loads(payload) if command == _CONFIG else config
        if command in (_COMPLETE, _COMPLETE_PAUSED):
            _copy(files, config["memory_manager_data"]["guest_ram_mappings"])
        connection.sendall(struct.pack("<H6xQ", 1, 0))


def _copy(files: dict[int, int], mappings: list[dict[str, int]]) -> None:
    with Path(sys.argv[2]).open("wb") as file:
        for each in mappings:
            left, at = each["size"], each["file_offset"]
            while left:
                count = os.sendfile(file.fileno(), files[each["slot"]], at, min(left, 1 << 24))
                left, at = left - count, at + count
        os.fsync(file.fileno())


if __name__ == "__main__":
    main()
