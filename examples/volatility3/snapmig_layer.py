"""
Layers for volatility3: a snapshot of snapmig as the memory to be examined, without a restore.

    vol -p examples/volatility3 -f guest.snap banners.Banners

Only what a plugin reads is decoded. The memory is laid out by guest physical address, or, if the
snapshot knows none, from 0 on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from volatility3.framework import exceptions, interfaces
from volatility3.framework.configuration import requirements
from volatility3.framework.layers.segmented import SegmentedLayer

import snapmig

MAGIC = b"\x93SNAPMIG"


@cache
def snapshot_at(location: str) -> snapmig.Snapshot:
    """Open a snapshot once: layers are copied, and an open file can't be."""
    return snapmig.open(url2pathname(urlsplit(location).path))


class SnapmigRam(interfaces.layers.DataLayerInterface):
    """The RAM blocks of a snapshot, one after the other."""

    @classmethod
    def get_requirements(cls) -> list[interfaces.configuration.RequirementInterface]:
        """Return what is needed to build the layer again."""
        return [requirements.StringRequirement(name="location")]

    @property
    def snapshot(self) -> snapmig.Snapshot:
        """The snapshot."""
        return snapshot_at(self.config["location"])

    @property
    def minimum_address(self) -> int:
        """The first byte."""
        return 0

    @property
    def maximum_address(self) -> int:
        """The last byte."""
        return len(self.snapshot) - 1

    def is_valid(self, offset: int, length: int = 1) -> bool:
        """Return True if all of a range is there."""
        return 0 <= offset <= offset + length <= len(self.snapshot)

    def read(self, offset: int, length: int, pad: bool = False) -> bytes:
        """Return a range, filled up with zeros if asked for."""
        if self.is_valid(offset, length):
            return self.snapshot.read(offset, length)
        if not pad:
            raise exceptions.InvalidAddressException(self.name, offset, "not in the snapshot")
        return self.snapshot.read(offset, length).ljust(length, b"\0")

    def write(self, offset: int, data: bytes) -> None:
        """Refuse: a snapshot never changes."""
        raise NotImplementedError("a snapshot can't be written to")


class SnapmigLayer(SegmentedLayer):
    """The same by guest physical address."""

    def _load_segments(self) -> None:
        blocks = self.context.layers[self._base_layer].snapshot.blocks
        start = 0
        for block in blocks:
            for piece in block.pieces:
                place = start + piece.offset
                self._segments.append((piece.gpa, place, piece.size, piece.size))
            start += block.size
        self._segments = sorted(self._segments) or [(0, 0, start, start)]


class SnapmigStacker(interfaces.automagic.StackerLayerInterface):
    """Recognises a snapshot, and puts both layers on its file."""

    stack_order = 5

    @classmethod
    def stack(
        cls,
        context: interfaces.context.ContextInterface,
        layer_name: str,
        progress_callback: Callable[..., Any] | None = None,
    ) -> interfaces.layers.DataLayerInterface | None:
        """Return the layer by address, or None for another file."""
        del progress_callback
        file = context.layers[layer_name]
        if file.read(0, len(MAGIC), pad=True) != MAGIC:
            return None
        ram = context.layers.free_layer_name("SnapmigRam")
        context.config[f"{ram}.location"] = file.location
        context.add_layer(SnapmigRam(context, ram, ram))
        name = context.layers.free_layer_name("SnapmigLayer")
        context.config[f"{name}.base_layer"] = ram
        return SnapmigLayer(context, name, name)
