"""``info`` of a qcow2 disk image: the guests that ``savevm`` left in it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from snapmig.images.file import opened_files
from snapmig.images.qcow2.header import MAGIC, read_header, read_snapshots
from snapmig.images.qcow2.lock import is_written
from snapmig.operations.options.arguments import checks_arguments
from snapmig.system.files import is_regular

__all__ = ("Qcow2Info", "Qcow2Snapshot", "is_qcow2", "qcow2_info")


@dataclass(frozen=True, slots=True)
class Qcow2Snapshot:
    """
    A snapshot inside a disk image.

    :param created: time of its making, ISO 8601 in UTC
    :param clock_seconds: the guest's own clock
    :param vm_state_size: bytes of memory and device state; 0 for a snapshot of the disk alone
    """

    id: str
    name: str
    created: str
    clock_seconds: float
    disk_size: int
    vm_state_size: int


@dataclass(frozen=True, slots=True)
class Qcow2Info:
    """
    Facts about a qcow2 disk image; sizes are in bytes.

    :param version: of the format, 2 or 3
    :param in_use: a QEMU has it open for writing
    """

    image: str
    version: int
    disk_size: int
    cluster_size: int
    in_use: bool
    snapshots: tuple[Qcow2Snapshot, ...]


def is_qcow2(path: str) -> bool:
    """Return True if a path is a readable file that starts as a qcow2 image."""
    try:
        if not is_regular(Path(path).resolve()):
            return False
        with Path(path).open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


@checks_arguments
def qcow2_info(image: str | os.PathLike[str]) -> Qcow2Info:
    """
    Return facts about a qcow2 disk image, with its snapshots.

    :raises SnapmigError: not a qcow2 image, or an impossible field
    :raises UnsupportedError: encrypted, or in a form not known here
    :raises OSError: it can't be read
    """
    with opened_files([os.fspath(image)]) as (file,):
        header = read_header(file)
        found = read_snapshots(file, header)
        in_use = is_written(file.fd)
        file.close()
    return Qcow2Info(
        image=file.shown,
        version=header.version,
        disk_size=header.size,
        cluster_size=header.cluster_size,
        in_use=in_use,
        snapshots=tuple(
            Qcow2Snapshot(
                each.id,
                each.name,
                datetime.fromtimestamp(each.seconds, UTC).isoformat("T", "seconds"),
                each.clock_ns / 1e9,
                each.disk_size,
                each.vm_state_size,
            )
            for each in found
        ),
    )
