"""The ways to keep an image whose predecessor is kept already, and to get it back: commands."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.contestants import MAIN, SNAPMIG, VARIANTS, Contestant, lack
from tests.bench.facts import ROOT
from tests.bench.measure import CommandError, sizes

FULL = "full"
PLAIN = "incremental"
DELTAS = "incremental with deltas"
FULL_DIGESTS = "full with page digests"
DIGESTS = "incremental with page digests"
DIGESTS_DELTAS = "the same, with deltas"
PACKED = "the same, packed layout"
ON_CHAIN = "the same, on all older ones"
CHAIN_OF_2 = "chain of 2"
WHOLE_CHAIN = "whole chain"
ZSTD = "zstd -1 --patch-from"
BORG = "borg"
PEERS = {ZSTD: "zstd", BORG: "borg"}
"""Names of the others, and their programs."""

UNDIGESTED = "--no-page-digests"

ZSTD_WINDOW = 1 << 31
"""Of two equal images of this size, zstd 1.5.4 found hardly anything equal, in 76 s; with images of
half the size it does."""

# zstd finds nothing that is further away than its window, and wants to be told of a large one again
# where it decompresses. One that is larger than the images costs it nothing.
_ZSTD = ("zstd", "-q", "-f", "--long=31")
# Without encryption. Chunks of 64 KiB, at places that are multiples of it, were the fastest of 4,
# 16 and 64 KiB and of borg's own, of 2 MiB, in one run of each; with its own the repository grew by
# 57 % of the first backup where 7 % of the pages had changed. lz4 is its fastest compression.
_BORG_CREATE = ("create", "--compression", "lz4", "--chunker-params", "fixed,65536")
_BORG_SETTINGS = {
    "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
    "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
}
_PACKED = next(one for one in VARIANTS if one.parameters["layout"] == "packed")

# A new process counts the memory of the one that started it as its own most, so that one is small.
_LAUNCHER = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode != 0)
"""


@dataclass(frozen=True)
class ChainRun:
    """
    One thing that each round measures once.

    :param image: the number of the image that is kept, or got back
    :param output: the file or folder that it makes, or that grows
    :param prepare: what comes before the clock starts
    :param synced: it syncs its output by itself
    """

    name: str
    role: str
    operation: str
    image: int
    command: tuple[str, ...]
    output: Path
    prepare: Callable[[], None]
    synced: bool = False


class Place:
    """
    Where images lie, what is kept of them, and what runs make.

    :param images: the oldest first
    :param main: the number of the image that all ways are compared with
    :param folder: in shared memory
    """

    def __init__(self, images: Sequence[Path], main: int, folder: Path, jobs: int) -> None:
        self.images = images
        self.main = main
        self.folder = folder
        self.jobs = jobs
        self.output = folder / "output"

    @property
    def last(self) -> int:
        """The number of the youngest image."""
        return len(self.images) - 1

    def kept(self, kind: str, image: int) -> Path:
        """Return the file that keeps an image in one of the ways."""
        return self.folder / f"{kind.replace(' ', '-')}.{image}"

    def save(self, image: int, output: Path, parent: Path | None, *more: str) -> tuple[str, ...]:
        """Return snapmig's command, its settings spelled out as in the other benchmarks."""
        return self._save(MAIN, image, output, parent, *more)

    def save_packed(self, image: int, output: Path, parent: Path, *more: str) -> tuple[str, ...]:
        """Return the same for the packed layout."""
        return self._save(_PACKED, image, output, parent, *more)

    def restore(self, snapshot: Path) -> tuple[str, ...]:
        """Return snapmig's command."""
        return tuple(MAIN.command("restore", str(snapshot), str(self.output), self.jobs))

    def _save(
        self, how: Contestant, image: int, output: Path, parent: Path | None, *more: str
    ) -> tuple[str, ...]:
        words = how.command("save", str(self.images[image]), str(output), self.jobs)
        extra = () if parent is None else ("--parent", str(parent))
        return (*words, *extra, *more)

    def no_output(self) -> None:
        """Remove what the run before left."""
        remove(self.output)


class Borg:
    """
    A repository that is brought back to a state of before, at the same place.

    :param folder: holds it, and borg's cache
    :param states: a folder, which may be on a disk, for copies of both
    """

    def __init__(self, folder: Path, states: Path) -> None:
        self._states = states
        self._work = folder / "work"
        self.repository = self._work / "repository"

    def command(self, *words: str, within: Path) -> tuple[str, ...]:
        """Return a command of borg that runs in a folder, with nothing of this Python's."""
        known = {**_BORG_SETTINGS, "BORG_BASE_DIR": str(self._work / "home")}
        settings = [f"{name}={value}" for name, value in known.items()]
        clean = ("-u", "PYTHONPATH", "-u", "PYTHONPYCACHEPREFIX", "-C", str(within))
        return ("env", *clean, *settings, "borg", *words)

    def create(self, image: Path) -> tuple[str, ...]:
        """Return the command that adds an image."""
        archive = f"{self.repository}::{image.name}"
        return self.command(*_BORG_CREATE, archive, image.name, within=image.parent)

    def extract(self, image: Path, into: Path) -> tuple[str, ...]:
        """Return the command that gives an image back, with holes."""
        archive = f"{self.repository}::{image.name}"
        return self.command("extract", "--sparse", archive, within=into)

    def make(self, older: Path, newer: Path) -> None:
        """Make the repository, with one image as state "one" and with both as "both"."""
        self._work.mkdir(parents=True)
        init = self.command("init", "-e", "none", str(self.repository), within=self._work)
        run_quietly(init, self._states)
        for image, state in ((older, "one"), (newer, "both")):
            run_quietly(self.create(image), self._states)
            shutil.copytree(self._work, self._states / state)

    def bring_back(self, state: str) -> None:
        """Have the repository, and borg's cache, as they were."""
        remove(self._work)
        shutil.copytree(self._states / state, self._work)


def make_kept(place: Place, borg: Borg | None) -> None:
    """Make all that the runs build on, or give back."""
    for image in range(len(place.images)):
        full, whole = place.kept(FULL, image), place.kept(WHOLE_CHAIN, image)
        run_quietly(place.save(image, full, None, UNDIGESTED), place.folder)
        digested = place.save(image, place.kept(FULL_DIGESTS, image), None)
        run_quietly(digested, place.folder)
        if image:
            older = place.kept(WHOLE_CHAIN, image - 1) if image > 1 else place.kept(FULL, 0)
            run_quietly(place.save(image, whole, older, UNDIGESTED), place.folder)
    main = place.main
    older = place.kept(FULL, main - 1)
    run_quietly(place.save(main, place.kept(CHAIN_OF_2, main), older, UNDIGESTED), place.folder)
    if zstd_can(place.images[place.main]):
        run_quietly(_patch(place, place.kept(ZSTD, main)), place.folder)
    if borg is not None:
        borg.make(place.images[main - 1], place.images[main])


def chain_runs(place: Place, borg: Borg | None) -> list[ChainRun]:
    """Return everything that a round measures; what is missing on the machine is left out."""
    found = [*_own_saves(place), *_own_restores(place)]
    if zstd_can(place.images[place.main]):
        found += _zstd(place)
    if borg is not None:
        found += _borg(place, borg)
    return found


def zstd_can(image: Path) -> bool:
    """Return whether zstd is there, and finds in its window what an image has from an older one."""
    return not lack(PEERS[ZSTD], "") and image.stat().st_size < ZSTD_WINDOW


def _own_saves(place: Place) -> Iterator[ChainRun]:
    for image in range(1, len(place.images)):
        parent = place.kept(FULL, image - 1)
        ways = {
            FULL: place.save(image, place.output, None, UNDIGESTED),
            PLAIN: place.save(image, place.output, parent, UNDIGESTED, "--no-deltas"),
            DELTAS: place.save(image, place.output, parent, UNDIGESTED),
        }
        digested = place.kept(FULL_DIGESTS, image - 1)
        ways |= {
            FULL_DIGESTS: place.save(image, place.output, None),
            DIGESTS: place.save(image, place.output, digested, "--no-deltas"),
            DIGESTS_DELTAS: place.save(image, place.output, digested, "--deltas"),
        }
        if image == place.main:
            ways[PACKED] = place.save_packed(image, place.output, parent, UNDIGESTED)
        if image == place.last and image > 1:
            whole = place.kept(WHOLE_CHAIN, image - 1)
            ways[ON_CHAIN] = place.save(image, place.output, whole, UNDIGESTED)
        for name, command in ways.items():
            yield _own(place, name, "save", image, command)


def _own_restores(place: Place) -> Iterator[ChainRun]:
    main, last = place.main, place.last
    wanted = [(main, FULL), (main, CHAIN_OF_2), (last, FULL), (last, WHOLE_CHAIN)]
    for image, name in dict.fromkeys(wanted):
        yield _own(place, name, "restore", image, place.restore(place.kept(name, image)))


def _own(place: Place, name: str, operation: str, image: int, command: tuple[str, ...]) -> ChainRun:
    return ChainRun(
        name, SNAPMIG, operation, image, command, place.output, place.no_output, synced=True
    )


def _zstd(place: Place) -> Iterator[ChainRun]:
    older, kept = place.images[place.main - 1], place.kept(ZSTD, place.main)
    restore = (*_ZSTD, "-d", f"--patch-from={older}", str(kept), "-o", str(place.output))
    for operation, words in (("save", _patch(place, place.output)), ("restore", restore)):
        yield ChainRun(ZSTD, "peer", operation, place.main, words, place.output, place.no_output)


def _patch(place: Place, output: Path) -> tuple[str, ...]:
    older, image = place.images[place.main - 1], place.images[place.main]
    more = ("-1", f"-T{place.jobs}", f"--patch-from={older}", str(image), "-o", str(output))
    return (*_ZSTD, *more)


def _borg(place: Place, borg: Borg) -> Iterator[ChainRun]:
    image = place.images[place.main]
    create, extract = borg.create(image), borg.extract(image, place.output)

    def before_save() -> None:
        place.no_output()
        borg.bring_back("one")

    def before_restore() -> None:
        place.no_output()
        place.output.mkdir()
        borg.bring_back("both")

    repository = borg.repository
    yield ChainRun(BORG, "peer", "save", place.main, create, repository, before_save)
    yield ChainRun(BORG, "peer", "restore", place.main, extract, place.output, before_restore)


def disk_bytes(path: Path) -> int:
    """Return what a file, or all files of a folder, take on their filesystem."""
    if path.is_dir():
        return sum(sizes(each).disk for each in path.rglob("*") if each.is_file())
    return sizes(path).disk if path.exists() else 0


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def run_quietly(command: Sequence[str], folder: Path) -> int:
    """
    Run a command; return the most memory that one of its processes had, in bytes.

    :param folder: where it runs, and byte code of Python programs is kept, as in measured runs
    :raises CommandError: it failed
    """
    known = {"PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": str(folder / "byte-code")}
    environment = {**os.environ, **known}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    launched = [sys.executable, "-I", "-S", "-c", _LAUNCHER, *command]
    done = subprocess.run(launched, cwd=folder, env=environment, capture_output=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip()
        raise CommandError(f"{command[0]}: exit status {done.returncode}: {reason}")
    return int(done.stdout) * 1024
