"""Destinations of a save run: a whole snapshot here, a share of one in :mod:`..shares`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, Protocol

from snapmig.attachments import StoredAttachment, store_attachments
from snapmig.container.format import Encoding
from snapmig.container.writer import SnapshotWriter, WrittenSnapshot
from snapmig.handlers.counters import encoding_counter
from snapmig.operations.runs.resume import DROPPED, RESUMABLE, remarking
from snapmig.operations.runs.save_inputs import SaveInputs
from snapmig.operations.runs.save_resume import resume_key
from snapmig.operations.runs.save_warnings import kept_holes
from snapmig.workers.counters import Row

__all__ = ("Finish", "OpenOutput", "SaveOutput", "whole_snapshot")


class Finish(NamedTuple):
    """
    Facts that a snapshot gets after its packets.

    :param attachments: of the source, besides those of the options
    :param counts: the workers' counters
    :param created_ns: time of the RAM's contents; None: now
    """

    attachments: Mapping[str, bytes | StoredAttachment]
    counts: Row
    created_ns: int | None = None


class SaveOutput(Protocol):
    """
    The packets a run saves, and the file it puts them into.

    :ivar packets: consecutive, possibly none
    :ivar warnings: about the file, a sentence each
    """

    writer: SnapshotWriter
    packets: range
    warnings: list[str]

    def finish(self, facts: Finish) -> WrittenSnapshot:
        """Put everything on stable storage, under its final name."""


OpenOutput = Callable[[SaveInputs], AbstractContextManager[SaveOutput]]
"""Opens an output; leaving it unfinished removes the partial file, unless others share that."""


class _WholeSnapshot:
    def __init__(self, inputs: SaveInputs, writer: SnapshotWriter) -> None:
        self._inputs = inputs
        self.writer = writer
        self.packets = range(inputs.geometry.packet_count)
        self.warnings = kept_holes(inputs, writer)

    def finish(self, facts: Finish) -> WrittenSnapshot:
        """Add the attachments and commit."""
        inputs, data_end = self._inputs, self.writer.end
        attach = inputs.options.attach
        store_attachments(self.writer, {**facts.attachments, **attach, **inputs.parent_attachments})
        return self.writer.commit(
            data_end=data_end,
            encodings=sum(1 << kind for kind in Encoding if facts.counts[encoding_counter(kind)]),
            force=inputs.options.force,
            created_ns=facts.created_ns,
            parent=None if inputs.parent is None else inputs.parent.snapshot.superblock,
            blocks=inputs.blocks,
            architecture=inputs.architecture,
        )


@contextmanager
def whole_snapshot(inputs: SaveInputs) -> Iterator[SaveOutput]:
    """Open a snapshot of all packets under a temporary name."""
    resume = resume_key(inputs) if inputs.options.resume else None
    with SnapshotWriter(
        inputs.path,
        inputs.geometry,
        inputs.options.layout,
        inputs.window_bits,
        page_digests=inputs.options.page_digests,
        seal=inputs.seal,
        resume=resume,
    ) as writer:
        output = _WholeSnapshot(inputs, writer)
        if resume is None:
            yield output
            return
        output.warnings += [DROPPED] * writer.dropped
        with remarking(RESUMABLE):
            yield output
