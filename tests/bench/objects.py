"""
Measures saves to object storage, and restores from it, behind a link with delay and a limit.

A real server is at the other end of two network namespaces, so root is needed. The image is noise,
saved as it is: the link is to be the limit. Beside it `aws s3 cp`, where there is one, in turn.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.bench import facts
from tests.bench.contestants import PYTHON
from tests.bench.machines import MIB
from tests.bench.measure import run_command
from tests.bench.runner import say
from tests.support.network import Link, far_link, inside
from tests.support.objects.server import BUCKET, serving, settings

SAMPLE_S = 0.1


@dataclass(frozen=True)
class Took:
    """
    One command.

    :param peak: bytes of memory of all its processes together, without the files that they map
    """

    wall: float
    cpu: float
    peak: int


@dataclass(frozen=True)
class Bench:
    """Everything that runs share."""

    folder: Path
    image: Path
    jobs: int
    link: Link

    def commands(self) -> dict[str, list[str]]:
        """Return what is measured, in its order."""
        url, plain = f"s3://{BUCKET}/bench.snap", f"s3://{BUCKET}/plain"
        words = ["-f", "-j", str(self.jobs), "--progress", "none"]
        save = [*PYTHON, "save", *words, "--format", "raw", "--compression", "none"]
        restore = [*PYTHON, "restore", *words, "--format", "raw"]
        commands = {"save": [*save, str(self.image), url]}
        aws = shutil.which("aws")
        copy = [str(aws), "s3", "cp", "--only-show-errors"]
        if aws:
            commands["aws s3 cp, up"] = [*copy, str(self.image), plain]
        commands["restore"] = [*restore, url, str(self.folder / "out")]
        if aws:
            commands["aws s3 cp, down"] = [*copy, plain, str(self.folder / "out.aws")]
        return commands

    def run(self, command: Sequence[str]) -> Took:
        """Run one of them at the near end."""
        with _peak() as peak:
            timing = run_command([*self.link.command(0), *command], cwd=self.folder)
        return Took(timing.wall, timing.cpu, max(peak, default=0))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.objects", description=__doc__)
    add = parser.add_argument
    add("--size", type=int, default=1024, help="of the image in MiB (%(default)s)")
    add("--rate", type=float, default=1.0, help="of the link in Gbit/s (%(default)s)")
    add("--delays", default="0,20,80", help="round trips in ms (%(default)s)")
    add("--jobs", type=int, default=facts.processors(), help="(%(default)s)")
    add("--rounds", type=int, default=3, help="(%(default)s)")
    options = parser.parse_args()
    print("| round trip | command | s | of the link | processor s | peak memory, MiB |")
    print("|---|---|---|---|---|---|")
    for delay in map(float, options.delays.split(",")):
        for name, took in _measure(options, delay / 1000).items():
            print(_line(f"{delay:g} ms | {name}", took, options), flush=True)


def _line(name: str, took: Sequence[Took], options: argparse.Namespace) -> str:
    wall = statistics.median(one.wall for one in took)
    cpu = statistics.median(one.cpu for one in took)
    share = options.size * MIB / wall / (options.rate * 125e6)
    peak = max(one.peak for one in took) / MIB
    return f"| {name} | {wall:.2f} | {share:.0%} | {cpu:.1f} | {peak:.0f} |"


def _measure(options: argparse.Namespace, round_trip_s: float) -> dict[str, list[Took]]:
    with (
        tempfile.TemporaryDirectory(prefix="snapmig-bench-") as name,
        far_link(round_trip_s, options.rate * 125e6) as link,
        inside(link.names[1]),
        serving("0.0.0.0", volume_mib=1024) as server,
    ):
        folder = Path(name)
        image = folder / "image"
        with image.open("wb") as file:
            for _ in range(options.size):
                file.write(os.urandom(MIB))
        known = settings(f"http://{link.addresses[1]}:{server.port}", folder)
        os.environ.update(known, AWS_ALLOW_HTTP="true", AWS_REGION="us-east-1")
        small = folder / "small"
        small.write_bytes(os.urandom(MIB))
        for command in Bench(folder, small, options.jobs, link).commands().values():
            run_command([*link.command(0), *command], cwd=folder)  # byte code, once for all
        bench = Bench(folder, image, options.jobs, link)
        took: dict[str, list[Took]] = {name: [] for name in bench.commands()}
        for _ in range(options.rounds):
            for name, command in bench.commands().items():
                took[name].append(bench.run(command))
                say(f"{1000 * round_trip_s:g} ms, {name}: {took[name][-1]}")
        return took


@contextmanager
def _peak() -> Iterator[list[int]]:
    # Memory of our children and theirs, again and again.
    seen: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(SAMPLE_S):
            seen.append(_memory(_children(os.getpid())))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def _children(process: int) -> list[int]:
    found = []
    with suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                if "weed" not in Path(f"/proc/{child}/comm").read_text():
                    found += [child, *_children(child)]
    return found


def _memory(processes: Sequence[int]) -> int:
    total = 0
    for process in processes:
        with suppress(OSError):
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
            parts = dict(line.split(":") for line in lines)
            own = ("Pss_Anon", "Pss_Shmem")
            total += sum(int(parts[name].split()[0]) << 10 for name in own)
    return total


if __name__ == "__main__":
    main()
