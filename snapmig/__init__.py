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
    KeyRequiredError,
    NoSpaceError,
    SnapmigError,
    StoreError,
    UnreadableError,
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
    from snapmig.operations.keys import (
        KeysInfo,
        KeySlotInfo,
        add_keys,
        list_keys,
        new_key,
        remove_key,
        rotate_keys,
    )
    from snapmig.operations.memory_map import BlockMap, Cell, MemoryMap, memory_map
    from snapmig.operations.mount import MountResult, mount, umount
    from snapmig.operations.options.keys import SealingName
    from snapmig.operations.options.parse import (
        AcceleratorName,
        CompressionName,
        FormatName,
        HuffmanName,
        LayoutName,
        Level,
        LiveName,
        ViaName,
        WindowName,
        WireName,
    )
    from snapmig.operations.options.save import SaveResult
    from snapmig.operations.progress import Progress, ProgressCallback
    from snapmig.operations.qcow2 import Qcow2Info, Qcow2Snapshot, qcow2_info
    from snapmig.operations.receive import receive
    from snapmig.operations.receive_cloud_hypervisor import receive_cloud_hypervisor
    from snapmig.operations.restore import LostRange, RestoreResult, restore
    from snapmig.operations.restore_cloud_hypervisor import (
        HandOverResult,
        restore_cloud_hypervisor,
    )
    from snapmig.operations.rewrite import merge, rebase, repack
    from snapmig.operations.run import RunResult, run
    from snapmig.operations.runs.workers import WorkerGroup
    from snapmig.operations.save import ImageArgument, save
    from snapmig.operations.send import SendResult, send
    from snapmig.operations.serve_firecracker import ServeResult, serve_firecracker
    from snapmig.operations.shares import CommitResult, abandon, commit
    from snapmig.operations.snapshot import Page, PageSource, Snapshot
    from snapmig.operations.snapshot import open_snapshot as open  # noqa: A004 - as in gzip.open
    from snapmig.operations.thaw import ThawResult, thaw
    from snapmig.operations.verify import VerifyResult, verify
    from snapmig.sealing.keyring import Keys

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
    "BlockMap",
    "CancelledError",
    "Cell",
    "ChainLink",
    "CommitResult",
    "CompressionName",
    "CorruptSnapshotError",
    "DestinationExistsError",
    "DiffResult",
    "FormatName",
    "HandOverResult",
    "HuffmanName",
    "ImageArgument",
    "ImageChangedError",
    "KeyRequiredError",
    "KeySlotInfo",
    "Keys",
    "KeysInfo",
    "LayoutName",
    "Level",
    "LiveName",
    "LostRange",
    "MemoryMap",
    "MigrationError",
    "MonitorError",
    "MountResult",
    "NoSpaceError",
    "Page",
    "PageRange",
    "PageSource",
    "Progress",
    "ProgressCallback",
    "Qcow2Info",
    "Qcow2Snapshot",
    "RamBlock",
    "RamPiece",
    "RestoreResult",
    "RunResult",
    "SaveResult",
    "Scheduler",
    "SealingName",
    "SendResult",
    "ServeResult",
    "SnapmigError",
    "Snapshot",
    "SnapshotInfo",
    "Speed",
    "StoreError",
    "ThawResult",
    "UnreadableError",
    "UnsupportedError",
    "UsageError",
    "VerifyResult",
    "ViaName",
    "WindowName",
    "WireName",
    "WorkerDiedError",
    "WorkerGroup",
    "__version__",
    "abandon",
    "accelerators",
    "add_keys",
    "backup",
    "batch",
    "chain",
    "commit",
    "diff",
    "info",
    "list_keys",
    "memory_map",
    "merge",
    "mount",
    "new_key",
    "open",
    "qcow2_info",
    "rebase",
    "receive",
    "receive_cloud_hypervisor",
    "remove_key",
    "repack",
    "restore",
    "restore_cloud_hypervisor",
    "rotate_keys",
    "run",
    "save",
    "send",
    "serve_firecracker",
    "thaw",
    "umount",
    "verify",
)

_NAMES = {
    "snapmig.attachments": "AttachmentSource",
    "snapmig.batches.results": "BatchJob BatchProgress BatchResult",
    "snapmig.batches.run": "batch",
    "snapmig.cluster.scheduler": "Scheduler",
    "snapmig.geometry": "RamBlock RamPiece",
    "snapmig.guests.monitor": "MonitorError",
    "snapmig.migration.wire": "MigrationError",
    "snapmig.operations.accelerators": "AcceleratorInfo Speed accelerators",
    "snapmig.operations.chain": "ChainLink chain",
    "snapmig.operations.diff": "BlockDiff DiffResult PageRange diff",
    "snapmig.operations.info": "AttachmentInfo BlockInfo SnapshotInfo info",
    "snapmig.operations.keys": "KeysInfo KeySlotInfo add_keys list_keys new_key remove_key "
    "rotate_keys",
    "snapmig.operations.memory_map": "BlockMap Cell MemoryMap memory_map",
    "snapmig.operations.mount": "MountResult mount umount",
    "snapmig.operations.options.keys": "SealingName",
    "snapmig.operations.options.parse": "AcceleratorName CompressionName FormatName HuffmanName "
    "LayoutName Level LiveName ViaName WindowName WireName",
    "snapmig.operations.options.save": "SaveResult",
    "snapmig.operations.progress": "Progress ProgressCallback",
    "snapmig.operations.qcow2": "Qcow2Info Qcow2Snapshot qcow2_info",
    "snapmig.operations.receive": "receive",
    "snapmig.operations.receive_cloud_hypervisor": "receive_cloud_hypervisor",
    "snapmig.operations.restore": "LostRange RestoreResult restore",
    "snapmig.operations.restore_cloud_hypervisor": "HandOverResult restore_cloud_hypervisor",
    "snapmig.operations.rewrite": "merge rebase repack",
    "snapmig.operations.run": "RunResult run",
    "snapmig.operations.runs.workers": "WorkerGroup",
    "snapmig.operations.save": "ImageArgument save",
    "snapmig.operations.send": "SendResult send",
    "snapmig.operations.serve_firecracker": "ServeResult serve_firecracker",
    "snapmig.operations.shares": "CommitResult abandon commit",
    "snapmig.operations.snapshot": "Page PageSource Snapshot open_snapshot",
    "snapmig.operations.thaw": "ThawResult thaw",
    "snapmig.operations.verify": "VerifyResult verify",
    "snapmig.sealing.keyring": "Keys",
}
"""Names imported on first use, by module: a program that only saves need not wait for the code of a
restore."""
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}


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
