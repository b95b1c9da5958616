"""
Save the memory of virtual machines to files and restore it, in parallel.

The four verbs of the command line are functions here, with the same words; :func:`open` gives
random access to a snapshot. Errors are in :mod:`snapmig.errors` and here.
"""

from snapmig.errors import (
    CorruptSnapshotError,
    DestinationExistsError,
    ImageChangedError,
    NoSpaceError,
    SnapmigError,
    UnsupportedError,
    UsageError,
    WorkerDiedError,
)
from snapmig.geometry import RamBlock
from snapmig.operations.info import AttachmentInfo, SnapshotInfo, info
from snapmig.operations.progress import Progress
from snapmig.operations.restore import RestoreResult, restore
from snapmig.operations.save import SaveResult, save
from snapmig.operations.snapshot import Snapshot
from snapmig.operations.snapshot import open_snapshot as open  # noqa: A004 - as in gzip.open
from snapmig.operations.verify import VerifyResult, verify
from snapmig.version import __version__

__all__ = (
    "AttachmentInfo",
    "CorruptSnapshotError",
    "DestinationExistsError",
    "ImageChangedError",
    "NoSpaceError",
    "Progress",
    "RamBlock",
    "RestoreResult",
    "SaveResult",
    "SnapmigError",
    "Snapshot",
    "SnapshotInfo",
    "UnsupportedError",
    "UsageError",
    "VerifyResult",
    "WorkerDiedError",
    "__version__",
    "info",
    "open",
    "restore",
    "save",
    "verify",
)
