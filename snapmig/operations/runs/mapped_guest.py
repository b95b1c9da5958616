"""Memory backends of a guest that maps its RAM from a mount."""

from __future__ import annotations

from pathlib import Path

from snapmig.container.reader import SnapshotFile
from snapmig.operations.runs.device_stream import mapped_blocks
from snapmig.operations.runs.mounted_files import escaped
from snapmig.operations.runs.qemu_command import Backend

__all__ = ("mapped_backends",)


def mapped_backends(source: SnapshotFile, place: Path) -> dict[str, Backend]:
    """
    Return backends that map the RAM blocks of a mounted snapshot.

    :param place: the mount's directory
    """
    return {
        block.name.removeprefix("/objects/"): Backend.file(
            place / "blocks" / escaped(block.name), share=False
        )
        for block in mapped_blocks(source)
    }
