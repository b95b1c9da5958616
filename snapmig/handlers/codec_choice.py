"""
``--compression auto`` and ``--level auto``: the codec that suits the destination, batch by batch.

Workers count what each codec costs, what else they do, and how long they wait for the destination.
From that :mod:`~snapmig.encodings.codec_mix` has the mix that saves the guest soonest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from snapmig.container.format import Encoding
from snapmig.encodings.codec_mix import SLACK, Cost, Mix, best_mix
from snapmig.encodings.compressions import Codec
from snapmig.handlers.counters import Counter, by_codec
from snapmig.workers.counters import COUNTERS, Row

__all__ = ("CodecChoice",)

WINDOW_BATCHES = 2
"""Batches of each worker between two decisions."""
WINDOW_S = 0.02
"""And at least so many seconds, where batches are small."""
FADING = 0.5
"""
Weight of what was measured before, window by window. Memory is alike over some ten batches, and the
next ten may take twice the bytes: by then a mix for those before has left the destination idle, or
workers waiting.
"""
PROBES_FADING = 0.98
"""The same for codecs beside each other: probes are few, and that changes little with memory."""
PRIOR_BYTES = 1 << 20
"""Weight of the codecs' usual costs beside bytes that probes have measured."""

FIRST_BANDWIDTH = 0.6
"""Bytes a nanosecond of the destination until it has shown others: a modest SSD's."""
MOST_BANDWIDTH = 100.0
WAITS = 0.1
"""Share of waiting from which on the destination is the limit, and so has shown its bandwidth."""
NO_WAIT = 0.03
"""Share below which it may be faster than thought."""
SOONEST = 1.001
"""Slack of a destination in memory: a smaller snapshot saves no time there."""
LEAST_STEP, EARLY_STEP, MOST_STEP, STEP_GROWTH = 0.03, 1.0, 2.0, 1.3
"""
By how much more it is then taken for: three times as fast until someone has waited, twice until a
rate could be taken, later a little, and by a larger step after each window without a wait. Before a
rate is known, no more than three times what it took: what was written may still be ahead of it.
"""

AHEAD = 1.25
"""
By how much faster than lately a destination may be assumed to be, once it has shown its bandwidth.
Steps alone went to four times the truth within half a second, wherever the right mix made nobody
wait.
"""

SPAN_WINDOWS, SPAN_NS = 2, 0.25e9
"""
Least windows and time over which a rate is taken: in a single window a batch more or less is a
sixth, and a destination takes bytes in lumps.
"""
GROWTH_NS = 0.05e9
"""Time without a wait before a destination is taken for faster: some take bytes in bursts."""
RECENT_WINDOWS, RECENT_NS = 8, 2e9
"""
Least windows and time of which the median of the rates with waits counts. A destination shows its
bandwidth only while there is always something to write. A mix that keeps workers as busy as the
destination leaves it idle at times, and after the rate of such a time alone the next mix would be
slower still; the best of the rates may be that of a burst.
"""

Sums = npt.NDArray[np.float64]


class _Moment(NamedTuple):
    # Sums since the start.
    ns: float
    drained: float
    waited_ns: float
    worked_ns: float

    def since(self, other: _Moment) -> _Moment:
        return _Moment(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))

    @property
    def rate(self) -> float:
        return self.drained / self.ns

    @property
    def waiting(self) -> float:
        return self.waited_ns / max(1.0, self.worked_ns)


class CodecChoice:
    """
    Chooses the codec for the next batch, by its place.

    :param codecs: the fastest first; of a single one nothing is measured
    :param start: the codec of the first batches
    :param workers: their number
    :param rate: limit on what they write, in bytes per second
    :param total: returns the sum of the workers' counters
    :param in_memory: nobody waits for the destination
    """

    def __init__(
        self,
        codecs: Sequence[Codec],
        start: int,
        workers: int,
        rate: int | None,
        total: Callable[[], Row],
        clock: Callable[[], float] = perf_counter,
        *,
        in_memory: bool = False,
    ) -> None:
        self._codecs = codecs
        self._workers = workers
        self._total = total
        self._clock = clock
        self._most = MOST_BANDWIDTH if rate is None else rate / 1e9
        self._bandwidth = min(MOST_BANDWIDTH if in_memory else FIRST_BANDWIDTH, self._most)
        self._step = MOST_STEP
        unlimited = in_memory and rate is None
        first = 0 if unlimited else start
        self._slack = SOONEST if unlimited else SLACK
        self._mix = Mix(first, first, 0.0)
        self._owed = 0.0
        self._batches = 0
        self._last: Row = np.zeros(COUNTERS, np.int64)
        self._last_s = clock()
        self._asked_ns = self._shown_ns = 0.0
        self._moments = deque([_Moment(self._last_s * 1e9, 0, 0, 0)])
        self._recent: Sums = np.zeros(COUNTERS)
        self._lasting: Sums = np.zeros(COUNTERS)
        self._coding = np.array([codec.encoding != Encoding.RAW for codec in codecs])

    def __call__(self, waited_ns: int = 0) -> int:
        """
        Return it.

        :param waited_ns: time of all workers spent waiting for object storage so far
        """
        self._batches += 1
        if len(self._codecs) > 1 and self._batches >= WINDOW_BATCHES * self._workers:
            now = self._clock()
            if now - self._last_s >= WINDOW_S:
                self._decide(waited_ns, now)
                self._batches = 0
        self._owed += self._mix.share
        if self._owed < 1:
            return self._mix.first
        self._owed -= 1
        return self._mix.second

    def _decide(self, waited_ns: int, now: float) -> None:
        row = self._total()
        new = (row - self._last).astype(np.float64)
        self._recent = self._recent * FADING + new
        self._lasting = self._lasting * PROBES_FADING + new
        self._moments.append(_moment(row, waited_ns, now))
        self._follow(new[Counter.WRITTEN_BYTES])
        self._last, self._last_s = row, now
        if self._of(self._recent, Counter.CODEC_DATA).any():
            self._mix = best_mix(self._costs(), self._slack)

    def _follow(self, written: float) -> None:
        # The destination's bandwidth: what it took while workers had to wait for it, or else more.
        moments = self._moments
        while len(moments) > RECENT_WINDOWS + 1 and moments[-1].ns - moments[1].ns > RECENT_NS:
            moments.popleft()
        last = moments[-1].since(moments[-2])
        if not last.drained or not written:
            return  # nobody has asked the destination yet
        self._asked_ns = self._asked_ns or moments[-2].ns
        if last.waiting > WAITS:
            shown = [span.rate for span in _spans(list(moments)) if span.waiting > WAITS]
            self._bandwidth = float(np.median(shown)) if shown else last.rate
            known = moments[-1].ns - self._asked_ns >= SPAN_NS
            self._step = LEAST_STEP if known else EARLY_STEP
            self._shown_ns = moments[-1].ns if known else 0.0
        elif last.waiting < NO_WAIT and moments[-1].ns - self._shown_ns >= GROWTH_NS:
            ahead = AHEAD if self._shown_ns else 1 + MOST_STEP
            *_, lately = _spans(list(moments))  # a window alone may be a burst
            more = min(self._bandwidth * (1 + self._step), lately.rate * ahead)
            self._bandwidth = max(self._bandwidth, more)
            if self._shown_ns:
                self._step = min(STEP_GROWTH * self._step, MOST_STEP)
                self._shown_ns = moments[-1].ns
        self._bandwidth = min(self._bandwidth, self._most)

    def _of(self, sums: Sums, counter: Counter) -> Sums:
        # Of each codec.
        return sums[by_codec(counter, len(self._codecs))]

    def _costs(self) -> list[Cost]:
        recent = self._recent
        ns, ratio = self._codec_ns(), self._ratios()
        data = self._of(recent, Counter.CODEC_DATA).sum()
        written = recent[Counter.WRITTEN_BYTES]
        write_ns = (recent[Counter.WRITE_NS] - recent[Counter.WAIT_NS]) / max(1.0, written)
        coding = sum(self._of(recent, each).sum() for each in (Counter.CODEC_NS, Counter.PROBE_NS))
        other = recent[Counter.WORK_NS] - recent[Counter.WRITE_NS] - coding
        other_ns = max(0.0, other) / data
        beside = max(0.0, written - self._of(recent, Counter.CODEC_STORED).sum()) / data
        sizes = ratio + beside  # with packets that no codec makes smaller
        works = (other_ns + ns + write_ns * sizes) / self._workers
        return [
            Cost(float(work), float(size) / self._bandwidth, float(size))
            for work, size in zip(works, sizes, strict=True)
        ]

    def _codec_ns(self) -> Sums:
        usual = np.array([codec.ns for codec in self._codecs])
        return self._measured(usual, Counter.CODEC_NS, Counter.PROBE_NS)

    def _ratios(self) -> Sums:
        usual = np.array([codec.ratio for codec in self._codecs])
        found = self._measured(usual, Counter.CODEC_STORED, Counter.PROBE_STORED)
        return np.where(self._coding, np.minimum(found, 1), 1)

    def _measured(self, usual: Sums, in_use: Counter, probed: Counter) -> Sums:
        # The relations between codecs are the usual ones, then those of the probes; their height is
        # that of the latest packets that the codecs in use encoded.
        tried = PRIOR_BYTES + self._of(self._lasting, Counter.PROBE_DATA)
        expected = self._scaled(usual, self._lasting, in_use) * PRIOR_BYTES
        found = (expected + self._of(self._lasting, probed)) / tried
        return self._scaled(found, self._recent, in_use)

    def _scaled(self, each: Sums, sums: Sums, in_use: Counter) -> Sums:
        # So that what was used of each codec gives what was found.
        used = self._of(sums, Counter.CODEC_DATA) * self._coding
        found = float((self._of(sums, in_use) * self._coding).sum())
        given = float((each * used).sum())
        return each * (found / given) if given and found else each


def _moment(row: Row, waited_ns: int, now: float) -> _Moment:
    # Waiting for object storage is no worker's, but the same to the choice.
    drained, waits, works = (
        float(row[counter]) for counter in (Counter.DRAINED_BYTES, Counter.WAIT_NS, Counter.WORK_NS)
    )
    return _Moment(now * 1e9, drained, waits + waited_ns, works + waited_ns)


def _spans(moments: Sequence[_Moment]) -> Iterator[_Moment]:
    # Back from each moment as far as a rate takes; the first ones are left out but for the longest.
    start = 0
    for at, later in enumerate(moments[1:], 1):
        while start + SPAN_WINDOWS < at and later.ns - moments[start + 1].ns >= SPAN_NS:
            start += 1
        if later.ns - moments[start].ns >= SPAN_NS or later is moments[-1]:
            yield later.since(moments[start])
