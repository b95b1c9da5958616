"""Warnings of a save run, each a list of at most one sentence."""

from __future__ import annotations

from snapmig.container.format import Encoding, Layout
from snapmig.container.writer import SnapshotWriter
from snapmig.handlers.counters import encoding_counter
from snapmig.operations.runs.save_inputs import SaveInputs
from snapmig.stores.location import is_near, relative_name
from snapmig.units import format_size
from snapmig.workers.counters import Row

__all__ = ("distant_parent", "kept_holes", "many_writes", "missing_blocks", "torn_image")


def distant_parent(inputs: SaveInputs) -> list[str]:
    """Warn of a parent out of a reader's default reach."""
    parent, path = inputs.options.parent, inputs.path
    if parent is None or is_near(path, relative_name(parent, path)):
        return []
    return [
        f"{parent} is neither beside {path} nor below: whoever reads the new snapshot "
        "finds it only when following remote parents is asked for"
    ]


def kept_holes(inputs: SaveInputs, writer: SnapshotWriter) -> list[str]:
    """Warn of a filesystem without holes under a snapshot of the fixed layout."""
    if inputs.options.layout != Layout.FIXED or writer.keeps_holes:
        return []
    return [
        f"{inputs.path}: its filesystem keeps no holes, so the snapshot takes as much "
        "space as the RAM; the packed layout saves that"
    ]


def missing_blocks(inputs: SaveInputs) -> list[str]:
    """Warn of RAM blocks absent from a migration file made with x-ignore-shared."""
    if not inputs.left_out:
        return []
    blocks = ", ".join(f"{each.name!r} of {format_size(each.size)}" for each in inputs.left_out)
    return [
        f"{inputs.source.shown}: was made with x-ignore-shared and does not have RAM "
        f"{blocks}, nor does the snapshot; save the running guest as qmp:SOCKET"
    ]


def torn_image(sampled: int, torn: int) -> list[str]:
    """Warn of an image written to during the save, from the packets of a sample."""
    if not torn:
        return []
    return [
        f"the image was written to while it was read: {torn} of the "
        f"{sampled} packets that were looked at again have changed, "
        "so the snapshot is not of one moment; pause the guest first"
    ]


def many_writes(counts: Row, changed: int) -> list[str]:
    """
    Warn of a guest so busy that a live save shortened its pause little.

    :param changed: packets written again while it stood still
    """
    stored = sum(int(counts[encoding_counter(kind)]) for kind in Encoding) or 1
    full = stored - int(counts[encoding_counter(Encoding.EMPTY)])
    if changed * 2 <= full:
        return []
    return [
        f"{changed} of {full} packets changed while the guest ran, so it stood "
        "still nearly as long as if it were not live; smaller packets may help"
    ]
