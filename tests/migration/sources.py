"""Snapshots of scripted guests, and their way into a scripted destination."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import snapmig
from snapmig.container.reader import SnapshotFile
from snapmig.handlers.counters import Counter
from snapmig.images.qemu.shared import whole_stream
from snapmig.migration.address import Address
from snapmig.migration.compression import WireCompression
from snapmig.migration.dialing import Dialer
from snapmig.migration.sender import MainSender
from snapmig.migration.source_stream import SourceStream, has_flushes
from snapmig.operations.runs.read import Reading, read_options
from snapmig.operations.runs.restore_inputs import content_of
from snapmig.operations.runs.sending import send_over_channels
from snapmig.system.private_folder import PrivateFolder
from tests.support.multifd.destination import GOOD, Destination, Manner
from tests.support.multifd.dialects import QEMU_10, Dialect
from tests.support.multifd.plain import write_plain
from tests.support.multifd.plan import BLOCKS, Block, Plan
from tests.support.multifd.talk import MAIN
from tests.support.multifd.waiting import UUID, WaitingQemu
from tests.support.outcome import Outcome
from tests.support.processes import alive, children, wait_for

RAM = BLOCKS[0]
OTHERS = 0xA5
"""What the memory of a destination is filled with that is not new."""


def save(plan: Plan, path: Path, dialect: Dialect = QEMU_10, **options: Any) -> Path:
    """Save a guest's plan as a snapshot."""
    stream = path.with_suffix(".stream")
    stream.write_bytes(write_plain(plan, dialect, return_path=False).line(MAIN).data)
    snapmig.save(stream, path, **{"jobs": 2, **options})
    return path


def send(
    snapshot: Path,
    destination: Destination,
    *,
    channels: int = 2,
    wire: str = "none",
    fresh: Sequence[bytes] = (RAM.name,),
) -> int:
    """Send a snapshot by the library's functions, without a monitor."""
    compression = WireCompression[wire.upper()]
    options = read_options(channels, "auto", None, None)
    uuid = bytes.fromhex(UUID.replace("-", ""))
    with ExitStack() as stack:
        file = stack.enter_context(SnapshotFile(os.fspath(snapshot)))
        reading = stack.enter_context(Reading(file, options))
        folder = stack.enter_context(PrivateFolder())
        content, state = whole_stream(content_of(file), "a migration")
        new = {name.decode() for name in fresh}
        stream = SourceStream(content, state, flushes=has_flushes(state.machine), fresh=new)
        destination.listen(folder.uri)
        dialer = Dialer(Address(str(folder.path)))
        main = MainSender(stack.enter_context(closing(dialer.open_main(stream.header))))
        opened = [
            stack.enter_context(closing(dialer.open_channel(number, uuid)))
            for number in range(channels)
        ]
        counters = send_over_channels(reading, stream, main, opened, compression, lambda: None)
        return int(counters[Counter.DATA_PAGES])


def filled(blocks: Sequence[Block], fresh: Sequence[bytes] = (RAM.name,)) -> dict[str, int]:
    """Return what a destination's blocks are filled with."""
    return {one.name.decode(): OTHERS for one in blocks if one.name not in fresh}


@dataclass(frozen=True)
class Restored:
    """
    The end of ``restore`` into a QEMU with a scripted destination.

    :param ran: the guest was started
    :param ram: what has arrived, of a migration that came to its end
    :param settings: each list of capabilities that QEMU was given
    :param left_open: connections that are still open
    :param processes: those that are left
    """

    outcome: Outcome
    ran: bool
    left_open: list[str | None]
    processes: list[int]
    ram: dict[str, bytes] | None
    settings: list[Any]


Call = Callable[..., Outcome]


def restore(
    cli: Call, snapshot: Path, folder: Path, manner: Manner = GOOD, *options: object, **how: Any
) -> Restored:
    """Restore a snapshot through the command line."""
    before = children(os.getpid())
    with (
        Destination(manner) as destination,
        WaitingQemu(folder / "qmp", destination, [RAM], QEMU_10.machine, **how) as qemu,
    ):
        outcome = cli("restore", snapshot, f"qmp:{qemu.path}", "-j", 2, *options)
        processes = [pid for pid in alive(children(os.getpid())) if pid not in before]
        wait_for(lambda: not destination.left_open)
        ram = destination.ram(filled(BLOCKS)) if outcome.code == 0 else None
        asked = [values for name, values in qemu.commands if name == "migrate-set-capabilities"]
        settings = [values["capabilities"] for values in asked]
        return Restored(outcome, qemu.ran, destination.left_open, processes, ram, settings)
