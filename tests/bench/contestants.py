"""The commands that are measured against each other, in one table."""

import shutil
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from tests.bench.codecs import ISAL, LZ4_1, ZSTD_1, Codec

SNAPMIG = "snapmig"
PYTHON = (sys.executable, "-m", "snapmig")
KIB = 1024
LZ4_WITH_THREADS = (1, 10)


@dataclass(frozen=True)
class Contestant:
    """
    A program that saves an image and restores it.

    In the commands `{source}`, `{output}` and `{jobs}` are replaced; a command without `{output}`
    writes to its standard output, which is then the output file.

    :param compression: its format, by snapmig's name
    :param codec: what does the work in it, where its bare calls are measured too
    :param package: a Python package that it needs besides its program
    """

    name: str
    save: tuple[str, ...]
    restore: tuple[str, ...]
    compression: str = "zlib"
    level: int = 1
    codec: Codec | None = None
    package: str = ""
    save_threads: bool = True
    restore_threads: bool = False
    note: str = ""
    parameters: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def program(self) -> str:
        """The program that must be installed."""
        return self.save[0]

    def command(self, operation: str, source: str, output: str, jobs: int) -> list[str]:
        """Return the arguments of a run."""
        words = self.save if operation == "save" else self.restore
        values = {"source": source, "output": output, "jobs": jobs}
        return [word.format(**values) for word in words]

    def writes_stdout(self, operation: str) -> bool:
        """Return True if the output file is the command's standard output."""
        words = self.save if operation == "save" else self.restore
        return not any("{output}" in word for word in words)

    def threads(self, operation: str) -> bool:
        """Return True if the number of jobs changes anything."""
        return self.save_threads if operation == "save" else self.restore_threads


def snapmig(
    name: str = SNAPMIG,
    *,
    compression: str = "zlib",
    level: int = 1,
    window: str = "32k",
    packet_kib: int = 512,
    layout: str = "fixed",
    codec: Codec | None = None,
) -> Contestant:
    """
    Snapmig with its settings spelled out, so that a changed default changes no row.

    Deflate is done by ISA-L even where the machine has an accelerator: its bare calls are what a
    row is measured against, and one row is to mean the same on each machine.
    """
    encoding: tuple[str, ...] = ("--compression", compression, "--level", str(level))
    engine: tuple[str, ...] = ()
    known: dict[str, Any] = {"packet_size": packet_kib * KIB, "layout": layout}
    if compression == "zlib":
        encoding += ("--window", window)
        engine = ("--accelerator", "isal")
        known["window"] = window
    places = ("--packet-size", f"{packet_kib}K", "--layout", layout)
    common = (*engine, "-j", "{jobs}", "--progress", "none", "--json", "{source}", "{output}")
    return Contestant(
        name,
        save=(*PYTHON, "save", "--format", "raw", *encoding, *places, *common),
        restore=(*PYTHON, "restore", *common),
        compression=compression,
        level=level,
        codec=codec,
        package={"zstd": "zstandard", "lz4": "lz4"}.get(compression, ""),
        restore_threads=True,
        note="syncs by itself; its snapshot and its restored image keep holes",
        parameters=known,
    )


def zstd(level: int) -> Contestant:
    """Program zstd at a level, with as many threads as there are jobs."""
    return Contestant(
        f"zstd -{level}",
        save=("zstd", "-q", f"-{level}", "-T{jobs}", "-f", "{source}", "-o", "{output}"),
        restore=("zstd", "-q", "-d", "-T{jobs}", "-f", "{source}", "-o", "{output}"),
        compression="zstd",
        level=level,
        note="-d uses one thread; leaves holes (--sparse is its default for files)",
    )


def lz4(*, threads: bool) -> Contestant:
    """
    Program lz4 at its fastest level.

    :param threads: it is new enough to compress with several threads (1.10)
    """
    note = "-d writes in a second thread" if threads else "one thread (before 1.10)"
    return Contestant(
        "lz4 -1",
        save=("lz4", "-q", "-1", *(("-T{jobs}",) if threads else ()), "-f", "{source}", "{output}"),
        restore=("lz4", "-q", "-d", "-f", "{source}", "{output}"),
        compression="lz4",
        save_threads=threads,
        note=f"{note}; -d leaves holes",
    )


IGZIP = Contestant(
    "igzip -1",
    save=("igzip", "-1", "-T", "{jobs}", "-q", "-k", "-f", "-o", "{output}", "{source}"),
    restore=("igzip", "-d", "-T", "{jobs}", "-q", "-k", "-f", "-o", "{output}", "{source}"),
    note="-T does nothing where it was built without threads, as Debian's 2.30; -d: no holes",
)
PIGZ = Contestant(
    "pigz -1",
    save=("pigz", "-1", "-p", "{jobs}", "-k", "-c", "{source}"),
    restore=("pigz", "-d", "-p", "{jobs}", "-k", "-c", "{source}"),
    restore_threads=True,
    note="-d inflates in one thread, reads, writes and checks in others; no holes",
)

MAIN = snapmig(codec=ISAL)
OWN = (
    MAIN,
    snapmig("snapmig zstd 1", compression="zstd", level=1, codec=ZSTD_1),
    snapmig("snapmig zstd 3", compression="zstd", level=3),
    snapmig("snapmig lz4 1", compression="lz4", level=1, codec=LZ4_1),
    snapmig("snapmig none", compression="none", level=0),
)
COMPRESSIONS = tuple(dict.fromkeys(one.compression for one in OWN))
OWN_NAMES = tuple(one.name for one in OWN)

VARIANTS = (
    snapmig("snapmig --level 0", level=0),
    snapmig("snapmig --level 2", level=2),
    snapmig("snapmig --level 3", level=3),
    snapmig("snapmig --window 4k", window="4k"),
    snapmig("snapmig --layout packed", layout="packed"),
    snapmig("snapmig --packet-size 64K", packet_kib=64),
    snapmig("snapmig --packet-size 4M", packet_kib=4096),
)

STARTUP = {
    "python -c pass": (sys.executable, "-c", "pass"),
    "snapmig --version": (*PYTHON, "--version"),
}


def contestants(*, lz4_version: str | None = None) -> tuple[Contestant, ...]:
    """Return all, those of one format and level beside each other, snapmig before the others."""
    numbers = tuple(int(word) for word in (lz4_version or "0").split("."))
    peers = (IGZIP, PIGZ, zstd(1), zstd(3), lz4(threads=numbers >= LZ4_WITH_THREADS))
    return tuple(
        one for own in OWN for one in (own, *(peer for peer in peers if _alike(peer, own)))
    )


def rival(name: str) -> str:
    """Return which of snapmig's rows one is compared with: that of its own format and level."""
    return _RIVALS.get(name, SNAPMIG)


def chosen(
    all_of_them: Sequence[Contestant], compressions: Collection[str]
) -> tuple[list[Contestant], list[str]]:
    """Return those of some formats that can run here, and what the others lack."""
    wanted = [one for one in all_of_them if one.compression in compressions]
    lacks = {one.name: lack(one.program, one.package) for one in wanted}
    missing = dict.fromkeys(name for name in lacks.values() if name)
    return [one for one in wanted if not lacks[one.name]], list(missing)


def lack(program: str, package: str) -> str:
    """Return which of a program and a Python package, if any, is not installed."""
    if not shutil.which(program):
        return program
    if package and find_spec(package) is None:
        return f"Python package {package}"
    return ""


def _alike(one: Contestant, other: Contestant) -> bool:
    return (one.compression, one.level) == (other.compression, other.level)


_RIVALS = {one.name: own.name for one in contestants() for own in OWN if _alike(one, own)}
