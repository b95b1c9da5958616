"""The result of a save run, from the workers' counters."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from snapmig.container.format import Encoding
from snapmig.container.writer import WrittenSnapshot
from snapmig.handlers.counters import Counter, by_codec, encoding_counter
from snapmig.operations.options.save import SaveResult
from snapmig.operations.runs.save_inputs import SaveInputs
from snapmig.operations.runs.save_output import SaveOutput
from snapmig.workers.counters import Row

__all__ = ("Measured", "make_result")


class Measured(NamedTuple):
    """
    Figures of a finished run.

    :param counts: of the workers, without those of the sample
    :param changed: packets that a live save wrote again in its last pass
    :param torn: packets of the sample that had changed
    :param pause_seconds: time for which a running guest was paused
    """

    counts: Row
    changed: int
    torn: int
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
    codecs = settings.codecs
    used = counts[by_codec(Counter.CODEC_DATA, len(codecs))].tolist()
    return SaveResult(
        image=inputs.source.shown,
        format=inputs.source.format,
        snapshot=str(inputs.path),
        snapshot_id=written.snapshot_id.hex(),
        parent=None if options.parent is None else str(options.parent),
        jobs=options.jobs,
        compression=settings.compression,
        accelerator=settings.engine if settings.has_deflate else None,
        window_bits=inputs.window_bits,
        codecs={codec.name: size for codec, size in zip(codecs, used, strict=True) if size},
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
        changed_packets=measured.changed if options.live is True else None,
        kept_packets=_kept_packets(inputs, counts),
        kept_parts=written.kept_parts if options.resume else None,
        torn_packets=measured.torn,
        left_out_blocks=tuple(block.name for block in inputs.left_out),
        root=written.root.hex(),
        sealing=options.sealing.name.lower(),
        warnings=tuple(measured.warnings),
    )


def _kept_packets(inputs: SaveInputs, counts: Row) -> int | None:
    to_file = inputs.options.resume and isinstance(inputs.path, Path)
    return int(counts[Counter.KEPT_PACKETS]) if to_file else None
