"""Guests that Cloud Hypervisor hands over: requests, or a configuration and a state."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

from snapmig.daemons.offload import Connection
from snapmig.daemons.offload_receiver import receive_guest
from snapmig.errors import SnapmigError
from snapmig.geometry import Geometry
from snapmig.images.handed_over import open_handed_over, plan_slots
from tests.support.vmm.cloud_hypervisor import (
    COMPLETE,
    CONFIG,
    MEMORY_FD,
    START,
    STATE,
    migration_config,
    state,
)

SIZE = 3 << 16
_BETWEEN = b"\n---\n"


def _request(command: int, payload: bytes = b"") -> bytes:
    return struct.pack("<H6xQ", command, len(payload)) + payload


def seeds() -> list[bytes]:
    """Return requests, and a configuration with its state."""
    start, slot = _request(START), _request(MEMORY_FD, bytes(4))
    rest = [_request(CONFIG, migration_config(SIZE)), _request(STATE, state(SIZE))]
    return [
        b"".join([start, slot, *rest, _request(COMPLETE)]),
        b"".join([start, *rest]),
        migration_config(SIZE) + _BETWEEN + state(SIZE),
    ]


def read(data: bytes, folder: Path) -> None:
    """Take requests from a socket, or open a guest and read it."""
    config, between, tree = data.partition(_BETWEEN)
    if not between:
        _receive(data)
        return
    path = folder / "slot"
    path.write_bytes(bytes(SIZE))
    fds = {slot: os.open(path, os.O_RDONLY) for slot in range(8)}
    try:
        image = open_handed_over("fuzz", config, tree, fds)
    finally:
        for fd in fds.values():
            os.close(fd)
    try:
        geometry = Geometry(image.blocks, 64 << 10)
        reader = image.opener()()
        for start, stop in reader.extents(0, geometry.ram_size):
            reader.view(start, stop).sum()
        for plan in plan_slots("fuzz", geometry, config):
            assert all(0 <= each.offset < plan.size for each in plan.spans)
    finally:
        image.close()


def _receive(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, open(os.devnull) as other:  # noqa: PTH123
        slot = data.find(struct.pack("<H6xQ", MEMORY_FD, 4))
        head, rest = data[: slot + 16], data[slot + 16 :]
        theirs.sendall(head)
        if rest:
            socket.send_fds(theirs, [rest[:4]], [other.fileno()])
            theirs.sendall(rest[4:])
        theirs.shutdown(socket.SHUT_WR)
        receive_guest(Connection(ours, "fuzz", 1)).close()
    raise SnapmigError("taken")
