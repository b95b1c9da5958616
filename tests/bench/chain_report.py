"""The tables about snapshots that build on older ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.bench.chain_images import Change
from tests.bench.chain_runs import (
    CHAIN_OF_2,
    DELTAS,
    DIGESTS,
    FULL,
    WHOLE_CHAIN,
)
from tests.bench.contestants import SNAPMIG
from tests.bench.report import machine_lines
from tests.bench.summary import Context, Results, ratio
from tests.bench.tables import (
    CPU,
    DISK,
    MIB,
    Column,
    figure_rows,
    relative,
    text_table,
    verdict,
)

NOTES = (
    "All images and files are in shared memory. Shares are of pages, and of packets of 512 KiB, "
    "that are not zero.",
    "full, incremental: snapmig with zlib 1 by ISA-L; the parent of an incremental one is a full "
    "snapshot, but for the one on all older ones.",
    "with page digests: those of a parent that has them, and with them itself; such a parent is "
    "decoded for differences only.",
    "borg: chunks of 64 KiB, lz4, no encryption, one thread; disk MiB is what the repository "
    "grows by.",
    "zstd: the older image must be kept as it is, since the patch is useless without it; it "
    "reads holes as zeros.",
    "peak MiB: of the largest process, pages that it shares with others or with files counted.",
)


@dataclass(frozen=True)
class ChainTarget:
    """
    A figure of one way divided by that of another, of the image that all are compared with.

    :param least: that the ratio should reach
    """

    words: str
    operation: str
    own: str
    against: str
    least: float
    field: str = "wall_s"


TARGETS = (
    ChainTarget("time of a full save / incremental", "save", DIGESTS, FULL, 3.0),
    ChainTarget("size of a full save / incremental", "save", DIGESTS, FULL, 10.0, "disk_bytes"),
)


def chain_report(results: Results, context: Context, changes: Sequence[Change], main: int) -> str:
    """
    Return everything.

    :param main: the number of the image that all ways are compared with
    """
    jobs, known = context.job_counts[0], context.facts
    lines = [f"images    {known['image']}, {len(changes) + 1} of them"]
    lines += machine_lines(results, context, ("zstd", "borg"))
    lines += ["", "what changed", *text_table(list(_changes(changes)))]
    for image, change in enumerate(changes, 1):
        title = f"save of image {image}, {100 * change.share:.1f} % of its pages changed"
        lines += ["", f"{title}, {jobs} jobs"]
        lines += text_table(list(_rows(results, "save", image, jobs)))
    for image in dict.fromkeys((main, len(changes))):
        lines += ["", f"restore of image {image}, {jobs} jobs"]
        lines += text_table(list(_rows(results, "restore", image, jobs)))
    lines += ["", f"targets, image {main}"]
    lines += text_table(list(_targets(results, main, jobs)))
    lines += ["", "restore of a chain beside that of a full snapshot of the same image"]
    lines += text_table(list(_chains(results, main, len(changes), jobs)))
    return "\n".join([*lines, "", *NOTES])


def _changes(changes: Sequence[Change]) -> Iterator[list[str]]:
    yield ["", "after s", "pages", "changed", "%", "packets", "changed", "%"]
    for image, change in enumerate(changes, 1):
        yield [
            f"image {image}",
            f"{change.seconds:.1f}",
            str(change.data_pages),
            str(change.changed_pages),
            f"{100 * change.share:.1f}",
            str(change.data_packets),
            str(change.changed_packets),
            f"{100 * change.packet_share:.1f}",
        ]


def _rows(results: Results, operation: str, image: int, jobs: int) -> Iterator[list[str]]:
    where = (operation, f"image {image}", jobs)
    names = results.rows(*where, SNAPMIG, "peer")
    columns = (CPU, DISK, Column("peak MiB", "peak_bytes", "{:.1f}", MIB))
    beside = "time / full's (quartiles)", lambda _name: FULL
    rows = figure_rows(results, where, names, columns, beside)
    yield [*next(rows), "size / full's"]
    full = results.times(*where[:2], FULL, jobs, "disk_bytes")
    for name, row in zip(names, rows, strict=True):
        share = ratio(results.times(*where[:2], name, jobs, "disk_bytes"), full)
        yield [*row, "-" if share is None else f"{share:.3f}"]


def _targets(results: Results, main: int, jobs: int) -> Iterator[list[str]]:
    yield ["", "at least", "measured"]
    for target in TARGETS:
        what = (target.operation, f"image {main}")
        other = results.times(*what, target.against, jobs, target.field)
        own = results.times(*what, target.own, jobs, target.field)
        yield [target.words, f"{target.least:.2f}", verdict(ratio(other, own), target.least)]


def _chains(results: Results, main: int, last: int, jobs: int) -> Iterator[list[str]]:
    # A chain may take longer by what it reads in addition, and by no more.
    yield ["", "full / chain", "at least", "read in addition, MiB", ""]
    for name, image, newer in ((CHAIN_OF_2, main, [main]), (WHOLE_CHAIN, last, range(1, last + 1))):
        place = f"image {image}"
        full = results.times("restore", place, FULL, jobs)
        found = ratio(full, results.times("restore", place, name, jobs))
        size = results.times("save", place, FULL, jobs, "disk_bytes")
        more = [results.times("save", f"image {n}", DELTAS, jobs, "disk_bytes") for n in newer]
        if not size or not all(more):
            yield [name, relative(found), "-", "-", "not measured"]
            continue
        whole = size[min(size)]
        added = sum(each[min(each)] for each in more)
        least = whole / (whole + added)
        words = [relative(found), f"{least:.2f}", f"{added / MIB:.1f}"]
        yield [name, *words, verdict(found, least)]
