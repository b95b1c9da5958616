"""
Which compression to take when: by the time, the size, and the bandwidth of where a snapshot goes.

A save writes while it compresses, and a restore reads while it decompresses. So over a bandwidth
each takes the longer of two times: the one measured in memory, and the snapshot's size on disk
divided by the bandwidth. Start-up counts, and so what is fastest depends on the guest's size too.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

from tests.bench.contestants import OWN
from tests.bench.plan import OPERATIONS
from tests.bench.summary import Context, Results
from tests.bench.tables import MIB


class Cost(NamedTuple):
    """Seconds in memory, and bytes that must be moved."""

    seconds: float
    size: float


class Range(NamedTuple):
    """Bandwidths in bytes per second, of which the upper may be infinite."""

    low: float
    high: float


@dataclass(frozen=True)
class Choice:
    """
    One compression's medians; None where something was not measured.

    :param seconds: of the whole process, by operation
    :param cpu_seconds: of all its processes, by operation
    :param disk_bytes: what the snapshot takes
    :param fastest: the bandwidths at which no other compression is as fast, by operation
    """

    name: str
    compression: str
    level: int
    seconds: dict[str, float | None]
    cpu_seconds: dict[str, float | None]
    disk_bytes: float | None
    fastest: dict[str, Range | None]

    def record(self) -> dict[str, Any]:
        """Return it for a line of JSON, which knows no infinity: a bound that is not is None."""
        known = asdict(self) | {"type": "choice"}
        known["fastest"] = {
            operation: None
            if found is None
            else [bound if math.isfinite(bound) else None for bound in found]
            for operation, found in self.fastest.items()
        }
        return known


def fastest(costs: Mapping[str, Cost]) -> dict[str, Range | None]:
    """
    Return for each name the bandwidths at which it is the fastest, None where it never is.

    What is both larger and slower than another never is. The others, from the smallest to the
    largest, are faster each than the one before: it takes over from that one at the bandwidth that
    moves its own bytes in that one's time.
    """
    ordered = sorted(costs.items(), key=lambda item: (item[1].size, item[1].seconds))
    left: list[tuple[str, Cost]] = []
    for name, cost in ordered:
        if not left or cost.seconds < left[-1][1].seconds:
            left.append((name, cost))
    bounds = [0.0]
    bounds += [after.size / cost.seconds for (_, cost), (_, after) in pairwise(left)]
    bounds.append(math.inf)
    found: dict[str, Range | None] = dict.fromkeys(costs)
    for (name, _), low, high in zip(left, bounds, bounds[1:], strict=False):
        found[name] = Range(low, high)
    return found


def choices(results: Results, context: Context) -> list[Choice]:
    """Return what snapmig's rows say, written to the first destination."""
    place, jobs = next(iter(context.destinations)), context.job_counts[0]

    def middle(operation: str, name: str, figure: str) -> float | None:
        values = results.times(operation, place, name, jobs, figure).values()
        return median(values) if values else None

    def costs(operation: str) -> dict[str, Cost]:
        pairs = {
            one.name: (
                middle(operation, one.name, "wall_s"),
                middle("save", one.name, "disk_bytes"),
            )
            for one in OWN
        }
        return {name: Cost(wall, size) for name, (wall, size) in pairs.items() if wall and size}

    ranges = {operation: fastest(costs(operation)) for operation in OPERATIONS}
    return [
        Choice(
            one.name,
            one.compression,
            one.level,
            {operation: middle(operation, one.name, "wall_s") for operation in OPERATIONS},
            {operation: middle(operation, one.name, "cpu_s") for operation in OPERATIONS},
            middle("save", one.name, "disk_bytes"),
            {operation: ranges[operation].get(one.name) for operation in OPERATIONS},
        )
        for one in OWN
        if any(middle(operation, one.name, "wall_s") for operation in OPERATIONS)
    ]


def choice_rows(found: Sequence[Choice]) -> Iterator[list[str]]:
    """Yield the table."""
    head = ["save s", "restore s", "disk MiB", "save cpu s", "restore cpu s"]
    yield ["", *head, "fastest save at MiB/s", "fastest restore at MiB/s"]
    for one in found:
        yield [
            f"{one.compression} {one.level}" if one.compression != "none" else "none",
            *(_number(one.seconds[operation], "{:.3f}") for operation in OPERATIONS),
            _number(one.disk_bytes and one.disk_bytes / MIB, "{:.1f}"),
            *(_number(one.cpu_seconds[operation], "{:.2f}") for operation in OPERATIONS),
            *(_range(one, operation) for operation in OPERATIONS),
        ]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _range(one: Choice, operation: str) -> str:
    found = one.fastest[operation]
    if found is None:
        return "never" if one.seconds[operation] and one.disk_bytes else "-"
    low, high = (bound / MIB for bound in found)
    if not low:
        return "any" if math.isinf(high) else f"below {high:.0f}"
    return f"above {low:.0f}" if math.isinf(high) else f"{low:.0f} to {high:.0f}"
