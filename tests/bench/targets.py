"""The ratios that snapmig should reach beside other programs and beside the limits."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.codecs import ISAL
from tests.bench.contestants import SNAPMIG
from tests.bench.summary import Context, Results, added, ratio
from tests.bench.tables import relative, verdict

ZSTD_ROW, LZ4_ROW = "snapmig zstd 1", "snapmig lz4 1"
LARGER = 1.02
"""Zstd's packets are compressed alone and end at whole blocks: that may cost this much."""


@dataclass(frozen=True)
class Target:
    """
    A ratio that snapmig should reach: a figure of another divided by its own.

    :param own: the row of snapmig
    :param against: the rows of the other; several are added up
    :param figures: which figure of the other and which of snapmig
    """

    words: str
    operation: str
    own: str
    against: tuple[str, ...]
    least: float
    figures: tuple[str, str] = ("wall_s", "wall_s")

    @property
    def limited(self) -> bool:
        """True if it is compared with a limit that leaves out the start of processes."""
        return self.against[0].startswith("bare")


SIZE = ("output_bytes", "disk_bytes")
TARGETS = (
    Target("save / bare save", "save", SNAPMIG, (ISAL.whole_limits["save"],), 0.95),
    Target("save / igzip -1", "save", SNAPMIG, ("igzip -1",), 1.4),
    Target("save / pigz -1", "save", SNAPMIG, ("pigz -1",), 6.0),
    Target("save / zstd -1", "save", SNAPMIG, ("zstd -1",), 1.0),
    Target("restore / igzip -d", "restore", SNAPMIG, ("igzip -1",), 1.8),
    Target("restore / bare restore", "restore", SNAPMIG, (ISAL.whole_limits["restore"],), 0.95),
    Target("zstd 1: save / zstd -1", "save", ZSTD_ROW, ("zstd -1",), 1.3),
    Target(
        "zstd 1: size of zstd -1's file / on disk", "save", ZSTD_ROW, ("zstd -1",), 1 / LARGER, SIZE
    ),
    Target("zstd 1: restore / zstd -d", "restore", ZSTD_ROW, ("zstd -1",), 1.5),
    Target("lz4 1: save / lz4 -1", "save", LZ4_ROW, ("lz4 -1",), 1.5),
    Target("lz4 1: restore / lz4 -d", "restore", LZ4_ROW, ("lz4 -1",), 2.0),
)


def target_rows(results: Results, context: Context, jobs: int) -> Iterator[list[str]]:
    """Yield the table of those targets whose rows were to be measured."""
    places = list(context.destinations)
    yield ["", "at least", *places, *(f"{place}, own s" for place in places)]
    for target in TARGETS:
        if target.operation not in context.operations:
            continue
        if target.own not in results.rows(target.operation, places[0], jobs, SNAPMIG):
            continue
        cells = [verdict(measured(results, target, place, jobs), target.least) for place in places]
        inner = [measured(results, target, place, jobs, "inner_s") for place in places]
        own = [relative(value) if target.limited else "" for value in inner]
        yield [target.words, f"{target.least:.2f}", *cells, *own]


def measured(
    results: Results, target: Target, place: str, jobs: int, own_figure: str | None = None
) -> float | None:
    """
    Return a target's ratio, None where something of it was not measured.

    :param own_figure: another of snapmig's figures than the target's
    """
    theirs, own = target.figures
    figures = [results.times(target.operation, place, it, jobs, theirs) for it in target.against]
    total = figures[0] if len(figures) == 1 else added(*figures)
    ours = results.times(target.operation, place, target.own, jobs, own_figure or own)
    return ratio(total, ours)
