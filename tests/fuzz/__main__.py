"""Run the fuzzer: ``python -m tests.fuzz READER SECONDS [FOLDER]``, or ``all`` for each in turn."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import atheris

ROOT = Path(__file__).parents[2]
PLACE = "SNAPMIG_FUZZ_PLACE"
"""Set for the process of one reader: it ends without a chance to clean up."""
LONGEST = 1 << 20
INPUT_S = 20
MEMORY_MB = 2048
LARGEST_MB = 1100
"""A single allocation: an attachment may have 1 GiB."""


def fuzz(name: str, seconds: int, kept: Path, place: Path) -> None:
    """Fuzz one reader, and end the process; it prints what it found."""
    # Only what is imported here is looked at; some modules are imported by their first use.
    with atheris.instrument_imports(include=["snapmig"]):
        from tests.fuzz.harness import made_harness

        harness = made_harness(name, place)
        seeds = harness.reader.seeds()
        for seed in seeds[:20]:
            harness.try_one(harness.repair(seed))
    corpus = kept / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        f"-timeout={INPUT_S}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-malloc_limit_mb={LARGEST_MB}",
        f"-artifact_prefix={kept}/found-{name}-",
        "-print_final_stats=1",
    ]

    def mutate(data: bytes, size: int, seed: int) -> bytes:
        found = atheris.Mutate(data, min(size, LONGEST))
        return harness.repair(found) if Random(seed).random() < 0.9 else found

    atheris.Setup([sys.argv[0], *options, str(corpus)], harness.try_one, custom_mutator=mutate)
    atheris.Fuzz()


def start(arguments: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Run the fuzzer of one reader in a process and a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="snapmig-fuzz-", dir="/dev/shm") as place:
        command = [sys.executable, "-m", "tests.fuzz", *arguments]
        environment = {**os.environ, PLACE: place}
        return subprocess.run(command, check=False, text=True, env=environment, **options)


def fuzz_all(seconds: int, rest: list[str]) -> int:
    """Fuzz each reader for its part of the time."""
    from tests.fuzz.harness import reader_names

    names = reader_names()
    each = str(max(1, seconds // len(names)))
    failed = []
    for name in names:
        started = time.monotonic()
        done = start([name, each, *rest], capture_output=True)
        stats = [line for line in done.stderr.splitlines() if "number_of_executed" in line]
        executed = stats[-1].split()[-1] if stats else "?"
        print(f"fuzz: {name}: {executed} inputs in {time.monotonic() - started:.0f} s", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stderr[-6000:], file=sys.stderr)
    if failed:
        print(f"fuzz: found something in {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def main(arguments: list[str]) -> int:
    """Run the fuzzer."""
    name, seconds, *rest = arguments
    if name == "all":
        return fuzz_all(int(seconds), rest)
    if PLACE not in os.environ:
        return start(arguments).returncode
    kept = Path(rest[0]) if rest else ROOT / ".cache" / "fuzz"
    fuzz(name, int(seconds), kept, Path(os.environ[PLACE]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
