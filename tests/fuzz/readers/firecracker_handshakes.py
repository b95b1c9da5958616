"""Firecracker's message to its page-fault handler."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from snapmig.daemons.handshake import receive_handshake
from snapmig.daemons.regions import parse_regions
from snapmig.errors import SnapmigError
from snapmig.geometry import Geometry, RamBlock

GEOMETRY = Geometry((RamBlock.at(0, 3 << 20), RamBlock.at(1 << 32, 1 << 20)), 64 << 10)


def seeds() -> list[bytes]:
    """Return messages of new and old versions, and one of huge pages."""
    new = [
        {"base_host_virt_addr": 0x7F00_0000_0000, "size": 3 << 20, "offset": 0, "page_size": 4096},
        {"base_host_virt_addr": 0x7F80_0000_0000, "size": 1 << 20, "offset": 3 << 20,
         "page_size": 4096, "page_size_kib": 4096},
    ]  # fmt: skip
    old = [{"base_host_virt_addr": 0x7F00_0000_0000, "size": 4 << 20, "offset": 0}]
    huge = [{**old[0], "page_size_kib": 2 << 20}]
    return [json.dumps(each).encode() for each in (new, old, huge)]


def read(data: bytes, folder: Path) -> None:  # noqa: ARG001
    """Take a message from a socket, and look up addresses in its regions."""
    ours, theirs = socket.socketpair()
    with ours, theirs, open(os.devnull) as other:  # noqa: PTH123
        socket.send_fds(theirs, [data or b" "], [other.fileno()])
        theirs.shutdown(socket.SHUT_WR)
        try:
            receive_handshake(ours, 1)
        except SnapmigError as error:
            if "userfaultfd" not in error.message:
                raise
    regions = parse_regions(data, GEOMETRY)
    assert sum(item.size for item in regions.items) == GEOMETRY.ram_size
    for item in regions.items:
        assert regions.at_address(item.address + item.size - 1) == item
        assert regions.at_offset(item.start) == item
