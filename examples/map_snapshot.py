"""
Start a guest from a snapshot without restoring it: QEMU maps its RAM straight out of the file.

For snapshots of guests that ran with shared memory, saved with --compression none. The guest runs
at once, and reads only the pages it uses. Its writes stay in its own memory: the file is opened for
reading, so several guests can run from one snapshot, which must stay unchanged meanwhile.

    python examples/map_snapshot.py SNAPSHOT STATE

writes the guest's device state to the new file STATE. The printed options replace the memory
backends in the guest's original command; the printed monitor commands come after that.

Index and zero pages are checked before, the other pages are not: `snapmig verify` does that.

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 corrupt snapshot, 4 unsupported.
"""

import os
import shlex
import sys
from pathlib import Path

import snapmig

DEVICE_STATE = "source/state"


def backend(block: snapmig.BlockInfo, path: Path) -> str:
    """Return a memory backend for a RAM block in a snapshot; QEMU wants commas doubled."""
    facts = {
        "id": block.name,
        "size": block.size,
        "mem-path": path,
        "offset": block.offset,
        "share": "off",  # the snapshot stays as it is
        "readonly": "on",  # and is opened for reading,
        "rom": "off",  # which does not make the guest's RAM read-only
    }
    pairs = [f"{key}={str(value).replace(',', ',,')}" for key, value in facts.items()]
    return ",".join(["memory-backend-file", *pairs])


def write_new(path: Path, content: bytes) -> None:
    """Write a new file readable only by its owner: it holds secrets of the guest."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)


def prepare(path: Path, state: Path) -> list[str]:
    """Write a snapshot's device state to a file, and return the lines to print."""
    blocks = snapmig.info(path).blocks
    if any(block.offset is None for block in blocks):
        raise snapmig.SnapmigError("can't be mapped; save with --compression none", path=str(path))
    # Zero pages have no checksum, and a guest would see any bytes there.
    found = snapmig.verify(path, quick=True)
    if not found.ok:
        raise snapmig.CorruptSnapshotError(
            found.problems[0].removeprefix(f"{path}: "), path=str(path)
        )
    with snapmig.open(path) as snapshot:
        if DEVICE_STATE not in snapshot.attachments:
            message = "has no device state beside its RAM, as a guest with shared memory leaves it"
            raise snapmig.SnapmigError(message, path=str(path))
        write_new(state, snapshot.attachments[DEVICE_STATE])
    return [
        *(f"-object {shlex.quote(backend(block, path))}" for block in blocks),
        "-incoming defer",
        "(qemu) migrate_set_capability x-ignore-shared on",
        f"(qemu) migrate_incoming file:{state}",
        "(qemu) cont",
    ]


def main(arguments: list[str]) -> int:
    """Run the program."""
    if len(arguments) != 2:
        print("usage: map_snapshot.py SNAPSHOT STATE", file=sys.stderr)
        return 2
    path, state = (Path(argument).absolute() for argument in arguments)
    try:
        lines = prepare(path, state)
    except (snapmig.SnapmigError, OSError) as error:
        print(f"map_snapshot.py: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 1)
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
