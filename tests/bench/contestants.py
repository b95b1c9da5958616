"""What is measured against each other: one table of commands."""

import sys
from dataclasses import dataclass, field
from typing import Any

SNAPMIG = "snapmig"
PYTHON = (sys.executable, "-m", "snapmig")
KIB = 1024


@dataclass(frozen=True)
class Contestant:
    """
    A program that saves an image and restores it.

    In the commands `{source}`, `{output}` and `{jobs}` are replaced; a command without `{output}`
    writes to its standard output, which is then the output file.
    """

    name: str
    save: tuple[str, ...]
    restore: tuple[str, ...]
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
        """Whether the output file is the command's standard output."""
        words = self.save if operation == "save" else self.restore
        return not any("{output}" in word for word in words)

    def threads(self, operation: str) -> bool:
        """Whether the number of jobs changes anything."""
        return self.save_threads if operation == "save" else self.restore_threads


def snapmig(
    name: str = SNAPMIG,
    *,
    level: int = 1,
    window: str = "32k",
    packet_kib: int = 512,
    layout: str = "fixed",
) -> Contestant:
    """Snapmig with its settings spelled out, so that a changed default changes no row."""
    encoding = ("--level", str(level), "--window", window)
    places = ("--packet-size", f"{packet_kib}K", "--layout", layout)
    common = ("-j", "{jobs}", "--progress", "none", "--json", "{source}", "{output}")
    return Contestant(
        name,
        save=(*PYTHON, "save", *encoding, *places, *common),
        restore=(*PYTHON, "restore", *common),
        restore_threads=True,
        note="syncs by itself; its snapshot and its restored image keep holes",
        parameters={
            "level": level,
            "window": window,
            "packet_size": packet_kib * KIB,
            "layout": layout,
        },
    )


PEERS = (
    Contestant(
        "igzip -1",
        save=("igzip", "-1", "-T", "{jobs}", "-q", "-k", "-f", "-o", "{output}", "{source}"),
        restore=("igzip", "-d", "-T", "{jobs}", "-q", "-k", "-f", "-o", "{output}", "{source}"),
        note="-T does nothing where it was built without threads, as Debian's 2.30; -d: no holes",
        parameters={"level": 1},
    ),
    Contestant(
        "pigz -1",
        save=("pigz", "-1", "-p", "{jobs}", "-k", "-c", "{source}"),
        restore=("pigz", "-d", "-p", "{jobs}", "-k", "-c", "{source}"),
        restore_threads=True,
        note="-d inflates in one thread, reads, writes and checks in others; no holes",
        parameters={"level": 1},
    ),
    Contestant(
        "zstd -1",
        save=("zstd", "-q", "-1", "-T{jobs}", "-f", "{source}", "-o", "{output}"),
        restore=("zstd", "-q", "-d", "-T{jobs}", "-f", "{source}", "-o", "{output}"),
        note="-d uses one thread; leaves holes (--sparse is its default for files)",
        parameters={"level": 1},
    ),
    Contestant(
        "lz4 -1",
        save=("lz4", "-q", "-1", "-f", "{source}", "{output}"),
        restore=("lz4", "-q", "-d", "-f", "{source}", "{output}"),
        save_threads=False,
        note="one thread in Debian's version (1.9); -d leaves holes",
        parameters={"level": 1},
    ),
)

MAIN = snapmig()

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
