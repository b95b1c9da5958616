"""The settings of a save that may be gone on with: another save must have the same."""

from __future__ import annotations

from snapmig.container.tables import pack_blocks
from snapmig.operations.runs.resume import key_of
from snapmig.operations.runs.save_inputs import SaveInputs
from snapmig.version import __version__

__all__ = ("resume_key",)


def resume_key(inputs: SaveInputs) -> str:
    """Return the key of everything that determines the stored bytes, besides the pages."""
    settings, parent = inputs.options.settings, inputs.parent
    known = None if parent is None else parent.snapshot.superblock
    facts = {
        "version": __version__,
        "layout": inputs.options.layout,
        "packet_size": inputs.geometry.packet_size,
        "blocks": pack_blocks(inputs.geometry.blocks).hex(),
        "codecs": [codec.name for codec in settings.codecs],
        "engine": settings.engine,
        "window": inputs.window_bits,
        "huffman": settings.deflate.huffman,
        "page_digests": inputs.options.page_digests,
        "sealing": inputs.options.sealing,
        "deltas": inputs.options.deltas,
        "parent": None if known is None else (known.snapshot_id + known.index_digest).hex(),
    }
    return key_of(facts)
