"""What verify and restore make of a damaged snapshot, in this process for speed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import snapmig
from snapmig.operations.runs.read import Reading
from snapmig.workers.counters import COUNTERS
from tests.support.damage.mutations import Mutation
from tests.support.damage.regions import Region

HARMLESS, NAMED, TOLD = "harmless", "named", "told"


def run_here(_self: Reading, tasks: Any, make_handler: Callable[[], Any], *_shown: Any) -> Any:
    """Do all tasks in this process; takes the place of :meth:`Reading.run`."""
    handler, row = make_handler(), np.zeros(COUNTERS, np.int64)
    while (task := tasks.next_for(0)) is not None:
        tasks.finished(0, task, handler.run(task, row))
    return row


class WrongError(AssertionError):
    """Damage was not noticed, or something was said of it that is not true."""


@dataclass
class Judge:
    """
    Tries one damage after the other.

    :param path: the damaged file, ``snapshot`` the one that is read: itself, or a child of it
    :param content: RAM of the sound snapshot
    :param parts: of the sound file
    :ivar counts: of verdicts
    """

    path: Path
    snapshot: Path
    content: bytes
    parts: Sequence[Region]
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._raw = self.path.read_bytes()
        self._image = self.path.with_name("image")
        self._attachments = self._read_attachments()

    def try_one(self, mutation: Mutation) -> str:
        """
        Damage the file, look, and mend it again.

        :raises WrongError: a wrong byte was taken for a good one, or damage was not named
        """
        with self._damaged(mutation):
            try:
                verdict = self._look(mutation)
            except AssertionError as error:
                raise WrongError(f"{mutation.name}: {error}") from error
        self.counts[verdict] += 1
        return verdict

    @contextmanager
    def _damaged(self, mutation: Mutation) -> Iterator[None]:
        fd = os.open(self.path, os.O_RDWR)
        try:
            for at, content in mutation.patches:
                os.pwrite(fd, content, at)
            if mutation.size is not None:
                os.ftruncate(fd, mutation.size)
            yield
        finally:
            os.ftruncate(fd, len(self._raw))
            for at, content in mutation.patches:
                os.pwrite(fd, self._raw[at : at + len(content)], at)
            if mutation.size is not None and mutation.size < len(self._raw):
                os.pwrite(fd, self._raw[mutation.size :], mutation.size)
            os.close(fd)

    def _look(self, mutation: Mutation) -> str:
        found = self._verified()
        refused = not self._restored()
        if found is not None and found.ok:
            assert not refused, "restore refuses what verify finds good"
            assert self._read_attachments() == self._attachments, "attachments differ"
            self._check_unused(mutation)
            return HARMLESS
        if found is None:
            return TOLD
        self._keep_going(found)
        packets = self._touched(mutation)
        if not packets:
            return TOLD
        missing = [packet for packet in packets if not self._names(found, packet)]
        if mutation.name.startswith("older") and "index digest" in " ".join(found.problems):
            return TOLD if missing else NAMED  # a whole packet may be of an older state
        assert not missing, f"packets {missing} are not named: {found.problems}, {found.damaged}"
        return NAMED

    def _verified(self) -> snapmig.VerifyResult | None:
        try:
            return snapmig.verify(self.snapshot)
        except snapmig.SnapmigError:
            return None  # there is no verdict, which is no approval

    def _restored(self, **options: Any) -> snapmig.RestoreResult | None:
        try:
            result = snapmig.restore(self.snapshot, self._image, force=True, **options)
        except snapmig.SnapmigError:
            return None
        if not options:
            assert self._image.read_bytes() == self.content, "restore gives wrong bytes as good"
        return result

    def _keep_going(self, found: snapmig.VerifyResult) -> None:
        result = self._restored(keep_going=True)
        if result is None:
            return
        expected = bytearray(self.content)
        for lost in result.lost:
            expected[lost.offset : lost.offset + lost.size] = bytes(lost.size)
        if self._image.read_bytes() != expected:
            assert any("older state" in word for word in result.warnings), "a loss is not listed"
        assert result.exit_code in (0, 3)
        assert result.exit_code == 3 or found.exit_code == 3

    def _check_unused(self, mutation: Mutation) -> None:
        # What makes no difference may stand in unused bytes only, or behind an attachment's end.
        for region in self.parts:
            if region.name != "attachment" and self._changes(mutation, region):
                raise AssertionError(f"nobody notices a change of {region}")

    def _touched(self, mutation: Mutation) -> list[int]:
        # Packets that are damaged, if nothing else is.
        if mutation.size is not None:
            return []
        found = [region for region in self.parts if self._changes(mutation, region)]
        packets = [region.packet for region in found if region.packet is not None]
        return sorted(set(packets)) if len(packets) == len(found) else []

    def _changes(self, mutation: Mutation, region: Region) -> bool:
        for at, content in mutation.patches:
            first, stop = max(at, region.start), min(at + len(content), region.stop)
            if first < stop and content[first - at : stop - at] != self._raw[first:stop]:
                return True
        return mutation.size is not None and mutation.size < region.stop

    def _names(self, found: snapmig.VerifyResult, packet: int) -> bool:
        start = packet * self._packet_size
        return any(each.offset <= start < each.offset + each.size for each in found.damaged) and (
            f"packet {packet}: " in " ".join(found.problems) or len(found.problems) >= 8
        )

    @property
    def _packet_size(self) -> int:
        return int.from_bytes(self._raw[124:128], "little")

    def _read_attachments(self) -> dict[str, bytes]:
        with snapmig.open(self.snapshot) as opened:
            return dict(opened.attachments)
