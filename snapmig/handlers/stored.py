"""Worker side of a verification without a key: stored bytes against their checksums."""

from __future__ import annotations

from collections.abc import Sequence

from snapmig.chains.reader import ReadPlan
from snapmig.container.index import unpack_records
from snapmig.container.reader import SnapshotFile
from snapmig.errors import CorruptSnapshotError, SnapmigError, StoreError
from snapmig.handlers.counters import Counter
from snapmig.handlers.damage import Damage
from snapmig.workers.counters import Row
from snapmig.workers.tasks import Task

__all__ = ("StoredHandler",)


class StoredHandler:
    """Reads the stored bytes of packets that it can't decrypt; continues after damage."""

    def __init__(self, plan: ReadPlan) -> None:
        self._file = SnapshotFile(plan.source, plan.shown, locked=True)

    def run(self, task: Task, row: Row) -> list[Damage]:
        """Check a batch of packets; return its damage."""
        damage: dict[int, SnapmigError] = {}
        for number in task.packets:
            place = self._file.geometry.place(number)
            try:
                packet = self._file.packet(place)
                if packet.stored_size:
                    self._file.checked_stored(packet)
            except StoreError:
                raise
            except SnapmigError as error:
                error.path = self._file.shown
                damage[number] = error
            row[Counter.RAM_BYTES] += place.length
        row[Counter.DAMAGED_PACKETS] += len(damage)
        return Damage.reply(damage)

    def expect(self, task: Task) -> None:
        """Prefetch a batch's stored bytes from a remote snapshot."""
        try:
            records = self._file.checked_records(task.first, task.count)
        except CorruptSnapshotError:  # reported when its turn comes
            return
        stored = records[records["stored_size"] > 0]
        self._file.prefetch(unpack_records(stored) if len(stored) else [])

    def notes(self) -> Sequence[str]:
        """Return nothing: no engine takes part."""
        return ()
