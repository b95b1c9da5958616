"""
Save the memory of virtual machines to files and restore it, in parallel.

The verbs of the command line are functions here, with the same words; :func:`open` gives random
access to a snapshot, and :mod:`snapmig.backup` has the verbs of scheduled backups. Errors are in
:mod:`snapmig.errors` and here.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from snapmig.errors import (
    CancelledError,
    CorruptSnapshotError,
    DestinationExistsError,
    ImageChangedError,
    NoSpaceError,
    SnapmigError,
    StoreError,
    UnsupportedError,
    UsageError,
    WorkerDiedError,
)
from snapmig.version import __version__

if TYPE_CHECKING:
    from snapmig import backup
    from snapmig.attachments import AttachmentSource
    from snapmig.batches.results import BatchJob, BatchProgress, BatchResult
    from snapmig.batches.run import batch
    from snapmig.cluster.scheduler import Scheduler
    from snapmig.geometry import RamBlock, RamPiece
    from snapmig.guests.monitor import MonitorError
    from snapmig.migration.wire import MigrationError
    from snapmig.operations.accelerators import AcceleratorInfo, Speed, accelerators
    from snapmig.operations.chain import ChainLink, chain
    from snapmig.operations.diff import BlockDiff, DiffResult, PageRange, diff
    from snapmig.operations.info import AttachmentInfo, BlockInfo, SnapshotInfo, info
    from snapmig.operations.options.names import (
        AcceleratorName,
        CompressionName,
        FormatName,
        HuffmanName,
        LayoutName,
        Level,
        ViaName,
        WindowName,
    )
    from snapmig.operations.options.save import SaveResult
    from snapmig.operations.progress import Progress, ProgressCallback
    from snapmig.operations.receive import receive
    from snapmig.operations.restore import RestoreResult, restore
    from snapmig.operations.rewrite import merge, rebase, repack
    from snapmig.operations.runs.workers import WorkerGroup
    from snapmig.operations.save import ImageArgument, save
    from snapmig.operations.shares import CommitResult, abandon, commit
    from snapmig.operations.snapshot import Snapshot
    from snapmig.operations.snapshot import open_snapshot as open  # noqa: A004 - as in gzip.open
    from snapmig.operations.verify import VerifyResult, verify

__all__ = (
    "AcceleratorInfo",
    "AcceleratorName",
    "AttachmentInfo",
    "AttachmentSource",
    "BatchJob",
    "BatchProgress",
    "BatchResult",
    "BlockDiff",
    "BlockInfo",
    "CancelledError",
    "ChainLink",
    "CommitResult",
    "CompressionName",
    "CorruptSnapshotError",
    "DestinationExistsError",
    "DiffResult",
    "FormatName",
    "HuffmanName",
    "ImageArgument",
    "ImageChangedError",
    "LayoutName",
    "Level",
    "MigrationError",
    "MonitorError",
    "NoSpaceError",
    "PageRange",
    "Progress",
    "ProgressCallback",
    "RamBlock",
    "RamPiece",
    "RestoreResult",
    "SaveResult",
    "Scheduler",
    "SnapmigError",
    "Snapshot",
    "SnapshotInfo",
    "Speed",
    "StoreError",
    "UnsupportedError",
    "UsageError",
    "VerifyResult",
    "ViaName",
    "WindowName",
    "WorkerDiedError",
    "WorkerGroup",
    "__version__",
    "abandon",
    "accelerators",
    "backup",
    "batch",
    "chain",
    "commit",
    "diff",
    "info",
    "merge",
    "open",
    "rebase",
    "receive",
    "repack",
    "restore",
    "save",
    "verify",
)

_HOMES = {
    "AcceleratorName": "snapmig.operations.options.names",
    "CompressionName": "snapmig.operations.options.names",
    "FormatName": "snapmig.operations.options.names",
    "HuffmanName": "snapmig.operations.options.names",
    "LayoutName": "snapmig.operations.options.names",
    "Level": "snapmig.operations.options.names",
    "ViaName": "snapmig.operations.options.names",
    "WindowName": "snapmig.operations.options.names",
    "WorkerGroup": "snapmig.operations.runs.workers",
    "BatchJob": "snapmig.batches.results",
    "BatchProgress": "snapmig.batches.results",
    "BatchResult": "snapmig.batches.results",
    "batch": "snapmig.batches.run",
    "BlockDiff": "snapmig.operations.diff",
    "ChainLink": "snapmig.operations.chain",
    "DiffResult": "snapmig.operations.diff",
    "PageRange": "snapmig.operations.diff",
    "chain": "snapmig.operations.chain",
    "diff": "snapmig.operations.diff",
    "merge": "snapmig.operations.rewrite",
    "receive": "snapmig.operations.receive",
    "rebase": "snapmig.operations.rewrite",
    "repack": "snapmig.operations.rewrite",
    "Scheduler": "snapmig.cluster.scheduler",
    "RamBlock": "snapmig.geometry",
    "RamPiece": "snapmig.geometry",
    "MigrationError": "snapmig.migration.wire",
    "MonitorError": "snapmig.guests.monitor",
    "Speed": "snapmig.operations.accelerators",
    "AttachmentSource": "snapmig.attachments",
    "ProgressCallback": "snapmig.operations.progress",
    "ImageArgument": "snapmig.operations.save",
    "AcceleratorInfo": "snapmig.operations.accelerators",
    "accelerators": "snapmig.operations.accelerators",
    "AttachmentInfo": "snapmig.operations.info",
    "BlockInfo": "snapmig.operations.info",
    "SnapshotInfo": "snapmig.operations.info",
    "info": "snapmig.operations.info",
    "Progress": "snapmig.operations.progress",
    "RestoreResult": "snapmig.operations.restore",
    "restore": "snapmig.operations.restore",
    "SaveResult": "snapmig.operations.options.save",
    "save": "snapmig.operations.save",
    "CommitResult": "snapmig.operations.shares",
    "abandon": "snapmig.operations.shares",
    "commit": "snapmig.operations.shares",
    "Snapshot": "snapmig.operations.snapshot",
    "open_snapshot": "snapmig.operations.snapshot",
    "VerifyResult": "snapmig.operations.verify",
    "verify": "snapmig.operations.verify",
}
"""Modules of the names imported on first use: a program that only saves need not wait for the code
of a restore."""


if not TYPE_CHECKING:  # type checkers use the names above, and would accept any name here

    def __getattr__(name: str) -> object:
        if name == "backup":
            return import_module("snapmig.backup")
        known = "open_snapshot" if name == "open" else name
        if name not in __all__ or known not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_HOMES[known]), known)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
