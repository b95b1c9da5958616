"""A save worker: one packet pipeline and one store, and a handler for each kind of task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, NamedTuple

from snapmig.container.format import Layout
from snapmig.container.slots import SlotPlan
from snapmig.encodings.compressions import PacketSettings
from snapmig.encodings.encoder import PacketEncoder
from snapmig.geometry import Geometry
from snapmig.handlers.comparison import compare_with
from snapmig.handlers.counters import Counter
from snapmig.handlers.kept_packets import KeptPackets
from snapmig.handlers.packet_store import PacketStore
from snapmig.handlers.pipeline import PacketPipeline
from snapmig.handlers.refresh import Refresh, Sample
from snapmig.handlers.save_fixed import SaveEmpty, SaveFixed
from snapmig.handlers.save_packed import SavePacked
from snapmig.handlers.save_tasks import Kind
from snapmig.images.source import ImageReader
from snapmig.workers.counters import Row
from snapmig.workers.tasks import Task

if TYPE_CHECKING:
    from snapmig.chains.reader import ReadPlan

__all__ = ("SaveHandler", "SavePlan")


class SavePlan(NamedTuple):
    """
    Everything a save worker needs, picklable.

    :param parents: snapshots whose pages need not be stored again, the youngest first
    :param paced: keep workers close behind the disk, for codecs that follow its speed
    :param deltas: allow pages stored as differences from the parent's; None: where its pages are
        decoded anyway
    :param resumed: the file has packets of an earlier run
    """

    open_image: Callable[[], ImageReader]
    parents: Sequence[ReadPlan]
    geometry: Geometry
    slots: SlotPlan
    settings: PacketSettings
    paced: bool = False
    deltas: bool | None = None
    resumed: bool = False


class SaveHandler:
    """Saves batches of packets, dispatching each task by its kind."""

    def __init__(self, plan: SavePlan) -> None:
        image, encoder = plan.open_image(), PacketEncoder(plan.settings)
        comparison = compare_with(plan.parents, plan.slots, deltas=plan.deltas)
        resumed = plan.resumed
        self._store = PacketStore(plan.slots, plan.geometry, paced=plan.paced, tidies=resumed)
        self._kept: KeptPackets | None = None
        if resumed:
            self._kept = KeptPackets(self._store, plan.geometry, has_parent=bool(plan.parents))
        self._pipeline = PacketPipeline(image, plan.geometry, encoder, comparison, self._kept)
        self._handlers = _handlers(self._pipeline, self._store, plan.slots.layout)

    def run(self, task: Task, row: Row) -> int:
        """Do one task; return the stored bytes that still need a place."""
        started = perf_counter_ns()
        waiting = self._handlers[task.kind](task, row)
        row[Counter.WORK_NS] += perf_counter_ns() - started
        self._store.count(row)
        self._pipeline.encoding.count(row)
        row[Counter.KEPT_PACKETS] = 0 if self._kept is None else self._kept.count
        return waiting

    def expect(self, task: Task) -> None:
        """Prefetch the pages of a batch."""
        if task.kind == Kind.ENCODE:
            self._pipeline.expect(task)

    def notes(self) -> Sequence[str]:
        """Return new remarks on failures of an engine."""
        return self._pipeline.encoding.notes()


def _handlers(
    pipeline: PacketPipeline, store: PacketStore, layout: Layout
) -> dict[int, Callable[[Task, Row], int]]:
    packed = SavePacked(pipeline, store)
    fixed = SaveFixed(pipeline, store)
    return {
        Kind.EMPTY: SaveEmpty(store).run,
        Kind.ENCODE: fixed.run if layout == Layout.FIXED else packed.encode,
        Kind.PLACE: packed.place,
        Kind.REFRESH: Refresh(pipeline, store, holes=False).run,
        Kind.REFRESH_EMPTY: Refresh(pipeline, store, holes=True).run,
        Kind.SAMPLE: Sample(pipeline, store).run,
    }
