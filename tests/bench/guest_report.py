"""The tables about guests."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.bench.contestants import SNAPMIG
from tests.bench.guest_limits import BARE_CODEC, THROWN_AWAY
from tests.bench.guest_pauses import (
    BACKGROUND,
    LIVE,
    LIVE_MULTIFD,
    NAMES,
    OWN_BACKGROUND,
    OWN_LIVE,
)
from tests.bench.guest_runs import LZ4, MAPPED, OVER_MULTIFD, PRIVATE, ZSTD
from tests.bench.report import machine_lines
from tests.bench.summary import Context, Results, ratio, ratio_of_medians
from tests.bench.tables import (
    CPU,
    DISK,
    LENGTH,
    MIB,
    Column,
    figure_rows,
    middle,
    relative,
    seconds,
    text_table,
    verdict,
    verdict_at_most,
)

CACHES = (("shm", "warm"), ("disk", "warm"), ("disk", "cold"))
BESIDE = "time / snapmig's (quartiles)", lambda _name: SNAPMIG
RESTORES = ("shm", "disk, warm", "disk, cold")
NOTES = (
    "save: of the same paused guest, until the file is complete and synced. snapmig counts from "
    "the start of its process; QEMU's settings are made before the clock starts.",
    "restore: until QEMU says that the guest runs. QEMU waits with -incoming defer already, so "
    "that its own start counts for nobody; that of snapmig's process counts.",
    "snapmig multifd: with --via multifd, as a guest is saved whose memory is no shared file. Its "
    "snapshot is restored as any other, so it stands in no table of restores.",
    "private memory: QEMU's own, no shared file. snapmig sends the guest over multifd; QEMU loads "
    "its files as before.",
    "bare codec: zero pages and ISA-L level 1 in as many processes, all in memory. Thrown away: "
    "the same migration over as many channels to processes that read and forget, until the last "
    "connection ends. QEMU live and background: such migrations of the running guest.",
    "grown: what the file of the guest's memory takes more afterwards. Holes that a save filled "
    "are punched again before the next, so that each finds the same memory. Over multifd it is "
    "QEMU that reads them.",
    "cold: the file's pages are dropped by posix_fadvise, not those of directories or programs; "
    "what the host of a virtual machine keeps is not known.",
    "pause: by the clock of snapmig; thrown away: QEMU's downtime, to a millisecond, in the "
    "background from its event STOP to RESUME. downtime: by QEMU, where it migrates the guest. "
    "Scan: zero pages, and the digest of the others, by as many processes, page tables complete: "
    "what a live save of shared memory has to do at least.",
)


@dataclass(frozen=True)
class GuestTarget:
    """A ratio that snapmig should reach: another's figure divided by its own."""

    words: str
    operation: str
    place: str
    against: str
    least: float
    field: str = "wall_s"
    own: str = SNAPMIG


TARGETS = (
    GuestTarget("save to disk, time / mapped-ram", "save", "disk", MAPPED, 1.0),
    GuestTarget("save to disk, size / mapped-ram", "save", "disk", MAPPED, 3.0, "disk_bytes"),
    GuestTarget("save to shm, time / exec zstd", "save", "shm", ZSTD, 2.0),
    GuestTarget("save to disk, time / exec zstd", "save", "disk", ZSTD, 2.0),
    GuestTarget("restore from shm / mapped-ram", "restore", "shm", MAPPED, 1 / 1.5),
    GuestTarget("restore from disk, warm / mapped-ram", "restore", "disk, warm", MAPPED, 1 / 1.5),
    GuestTarget("restore from disk, cold / mapped-ram", "restore", "disk, cold", MAPPED, 1.0),
    GuestTarget("lz4: save to disk, time / mapped-ram", "save", "disk", MAPPED, 1.0, own=LZ4),
    GuestTarget("lz4: restore from shm / mapped-ram", "restore", "shm", MAPPED, 1 / 1.5, own=LZ4),
    GuestTarget(
        "lz4: restore from disk, warm / mapped-ram",
        "restore",
        "disk, warm",
        MAPPED,
        1 / 1.5,
        own=LZ4,
    ),
    GuestTarget(
        "lz4: restore from disk, cold / mapped-ram",
        "restore",
        "disk, cold",
        MAPPED,
        1.0,
        own=LZ4,
    ),
)


@dataclass(frozen=True)
class GuestCeiling:
    """A ratio that snapmig should not exceed: its figure divided by the sum of others'."""

    words: str
    operation: str
    place: str
    own: str
    against: tuple[str, ...]
    most: float
    field: str = "wall_s"


OVER_LIMITS = GuestCeiling(
    "multifd: save to shm, time / (bare codec + thrown away)",
    "save",
    "shm",
    OVER_MULTIFD,
    (BARE_CODEC, THROWN_AWAY),
    1.15,
)

OF_MAPPED = tuple(
    GuestCeiling(
        f"{words}, private memory: restore from shm / mapped-ram",
        "restore",
        "shm",
        own + PRIVATE,
        (MAPPED + PRIVATE,),
        most,
    )
    for words, own, most in (("lz4", LZ4, 1.1), ("zlib", SNAPMIG, 1.6))
)


def ceilings(loads: Iterable[str]) -> Iterator[GuestCeiling]:
    """Yield those of saves, of restores, and of pauses under each load."""
    yield OVER_LIMITS
    yield from OF_MAPPED
    for load in loads:
        for own, other in ((LIVE_MULTIFD, OWN_LIVE), (BACKGROUND, OWN_BACKGROUND)):
            words = f"{load}: pause, {own.removeprefix('snapmig ')} / {other}"
            yield GuestCeiling(words, "pause", load, own, (other,), 1.0, "pause_s")


def guest_report(results: Results, context: Context) -> str:
    """Return everything."""
    jobs, known = context.job_counts[0], context.facts
    lines = [f"guest     {known['image']}, {known['image_bytes'] / MIB:.0f} MiB"]
    lines += [f"QEMU      {known['version_qemu']}, {jobs} channels as {jobs} jobs"]
    lines += machine_lines(results, context, ("zstd",))
    for place, kind in context.destinations.items():
        lines += ["", f"save to {place} ({kind}), {jobs} jobs"]
        lines += text_table(list(_saves(results, place, jobs)))
    for place in RESTORES:
        lines += ["", f"restore from {place}, {jobs} jobs"]
        lines += text_table(list(_restores(results, place, jobs)))
    lines += ["", f"how long a running guest stands still, {jobs} jobs, tmpfs"]
    lines += text_table(list(_pauses(results, jobs)))
    lines += ["", "targets (figure of the other / figure of snapmig)"]
    lines += text_table(list(_targets(results, jobs)))
    lines += ["", "targets (figure of snapmig / figure of QEMU or the limits, of medians)"]
    lines += text_table(list(_ceilings(results, jobs)))
    return "\n".join([*lines, "", *NOTES])


def _saves(results: Results, place: str, jobs: int) -> Iterator[list[str]]:
    names = results.rows("save", place, jobs, SNAPMIG, "peer", "limit")
    columns = (CPU, LENGTH, DISK, Column("grown MiB", "grown_bytes", "{:.1f}", MIB))
    return figure_rows(results, ("save", place, jobs), names, columns, BESIDE)


def _restores(results: Results, place: str, jobs: int) -> Iterator[list[str]]:
    names = results.rows("restore", place, jobs, SNAPMIG, "peer")
    memory = Column("memory MiB", "memory_disk_bytes", "{:.1f}", MIB)
    columns = (CPU, memory, Column("cached %", "cached_share", "{:.0f}", 0.01))
    return figure_rows(results, ("restore", place, jobs), names, columns, BESIDE)


def _pauses(results: Results, jobs: int) -> Iterator[list[str]]:
    yield ["", "median s", "min", "max", "downtime", "whole s", "changed packets", "time / live"]
    for load in _loads(results):
        found = results.rows("pause", load, jobs, SNAPMIG, "limit")
        live = results.times("pause", load, LIVE, jobs, "pause_s")
        yield [f"{load}:", *[""] * 7]
        for name in (name for name in NAMES if name in found):
            pauses = results.times("pause", load, name, jobs, "pause_s")
            whole = results.times("pause", load, name, jobs)
            downtime = results.times("pause", load, name, jobs, "downtime_s")
            changed = results.times("pause", load, name, jobs, "changed_packets")
            yield [
                f"  {name}",
                *seconds(pauses),
                middle(downtime, "{:.3f}"),
                middle(whole),
                middle(changed, "{:.0f}"),
                relative(ratio(pauses, live)),
            ]


def _loads(results: Results) -> list[str]:
    found = [record for record in results.records if record["operation"] == "pause"]
    return list(dict.fromkeys(record["destination"] for record in found))


def _ceilings(results: Results, jobs: int) -> Iterator[list[str]]:
    yield ["", "at most", "measured"]
    for one in ceilings(_loads(results)):
        own, *others = (
            results.times(one.operation, one.place, name, jobs, one.field)
            for name in (one.own, *one.against)
        )
        found = ratio_of_medians(own, others)
        yield [one.words, f"{one.most:.2f}", verdict_at_most(found, one.most)]


def _targets(results: Results, jobs: int) -> Iterator[list[str]]:
    yield ["", "at least", "measured"]
    for target in TARGETS:
        what = (target.operation, target.place)
        other = results.times(*what, target.against, jobs, target.field)
        own = results.times(*what, target.own, jobs, target.field)
        yield [target.words, f"{target.least:.2f}", verdict(ratio(other, own), target.least)]
    grown = [
        record["grown_bytes"]
        for record in results.records
        if record["operation"] == "save"
        and record["role"] == SNAPMIG
        and record["name"] != OVER_MULTIFD
    ]
    most = max(grown, default=0)
    words = "met" if most <= 0 else "short"
    yield ["growth of the guest's memory, MiB (at most)", "0.00", f"{most / MIB:.2f} {words}"]
