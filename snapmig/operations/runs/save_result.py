"""The result of a save run, from the workers' counters."""

from __future__ import annotations

from typing import NamedTuple

from snapmig.container.format import Encoding
from snapmig.container.writer import WrittenSnapshot
from snapmig.handlers.counters import Counter, encoding_counter
from snapmig.operations.options.save import SaveResult
from snapmig.operations.runs.save_inputs import SaveInputs
from snapmig.operations.runs.save_output import SaveOutput
from snapmig.workers.counters import Row

__all__ = ("Measured", "make_result")


class Measured(NamedTuple):
    """
    Figures of a finished run.

    :param counts: of the workers, without those of the sample
    :param torn: packets of the sample that had changed
    :param levels: batches compressed at each level
    :param pause_seconds: time for which a running guest was paused
    """

    counts: Row
    torn: int
    levels: dict[int, int]
    seconds: float
    pause_seconds: float | None
    warnings: list[str]


def make_result(
    inputs: SaveInputs, output: SaveOutput, written: WrittenSnapshot, measured: Measured
) -> SaveResult:
    """Return the result of a finished run."""
    options, settings, counts = inputs.options, inputs.options.settings, measured.counts
    data_pages = int(counts[Counter.DATA_PAGES])
    pause = measured.pause_seconds
    return SaveResult(
        image=inputs.source.shown,
        format=inputs.source.format,
        snapshot=str(inputs.path),
        snapshot_id=written.snapshot_id.hex(),
        parent=None if options.parent is None else str(options.parent),
        jobs=options.jobs,
        compression=settings.compression,
        accelerator=settings.engine if settings.encoding == Encoding.DEFLATE else None,
        window_bits=inputs.window_bits,
        levels={str(level): count for level, count in sorted(measured.levels.items())},
        page_digests=output.writer.plan.page_digests_offset > 0,
        ram_size=len(inputs.geometry.ram_range(output.packets)),
        data_pages=data_pages,
        zero_pages=inputs.geometry.page_count(output.packets) - data_pages,
        same_pages=int(counts[Counter.SAME_PAGES]),
        delta_pages=int(counts[Counter.DELTA_PAGES]),
        packets={kind.name.lower(): int(counts[encoding_counter(kind)]) for kind in Encoding},
        stored_size=int(counts[Counter.STORED_BYTES]),
        file_size=written.file_size,
        disk_size=written.disk_size,
        seconds=round(measured.seconds, 3),
        pause_seconds=None if pause is None else round(pause, 4),
        changed_packets=int(counts[Counter.CHANGED_PACKETS]) if options.live is True else None,
        torn_packets=measured.torn,
        left_out_blocks=tuple(block.name for block in inputs.left_out),
        warnings=tuple(measured.warnings),
    )
