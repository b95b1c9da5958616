"""Measures snapmig beside igzip, pigz, zstd and lz4, and beside the limits of the machine."""

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from tests.bench import facts
from tests.bench.contestants import PEERS
from tests.bench.limits import Packets, limits
from tests.bench.measure import CommandError
from tests.bench.plan import Config, items, present
from tests.bench.plot import draw, draw_scaling
from tests.bench.report import Context, report, scaling_report
from tests.bench.runner import Record, Runner, Workplace, copy_image, say
from tests.bench.summary import Results

SHARED_MEMORY = Path("/dev/shm")
PLACES = ("shm", "disk")
ROOM = 6
"""Image sizes that must be free in shared memory: image, gathered pages, and what is written."""


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--guests", action="store_true", help="guests under QEMU instead; --guests --help"
    )
    parser.add_argument("--image", type=Path, required=True, help="a guest's RAM, whole pages")
    parser.add_argument("--jobs", type=int, default=facts.processors(), help="(%(default)s)")
    parser.add_argument("--rounds", type=int, help="(5; 1 with --quick)")
    parser.add_argument("--scaling", action="store_true", help="1, 2, 4 ... jobs")
    parser.add_argument("--destinations", type=_places, help="shm, disk (both; shm with --scaling)")
    parser.add_argument(
        "--output-dir", type=Path, default=Path("build/bench"), help="(%(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="one round, no other settings")
    parser.add_argument("--full", action="store_true", help="other settings in every round")
    options = parser.parse_args(arguments)
    if options.rounds is None:
        options.rounds = 1 if options.quick else 5
    if options.rounds < 1 or options.jobs < 1:
        parser.error("--rounds and --jobs are at least 1")
    if options.destinations is None:
        options.destinations = ("shm",) if options.scaling else PLACES
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if "--guests" in words:
        from tests.bench import guests  # needs QEMU's client library, which this does not

        return guests.main([word for word in words if word != "--guests"])
    options = parse_arguments(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        print(_bench(options))
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except (CommandError, OSError, ValueError, RuntimeError) as error:
        say(str(error))
        return 1
    return 0


def _bench(options: argparse.Namespace) -> str:
    options.output_dir.mkdir(parents=True, exist_ok=True)
    peers, missing = present(PEERS)
    with ExitStack() as stack:
        workplace, config = _prepare(options, stack)
        packets = Packets(workplace.image, facts.processors())
        known = facts.collect(options.image)
        known |= {"data_pages": packets.data_pages, "raw_packets": packets.raw_packets}
        planned = items(config, peers, limits(packets))
        kinds = {name: facts.filesystem(path) for name, path in config.destinations.items()}
        lines = stack.enter_context((options.output_dir / "results.jsonl").open("w"))
        records: list[Record] = []
        order = {(item.operation, item.name): number for number, item in enumerate(planned)}

        def keep(record: Record) -> None:
            place = kinds.get(record["destination"])
            key = (record["operation"], record["name"])
            record = {**record, "filesystem": place, "order": order[key], **known}
            records.append(record)
            _write_line(lines, {"type": "measurement", **record})

        for name in missing:
            _write_line(lines, {"type": "missing", "name": name, **known})
        runner = Runner(config, workplace, keep)
        runner.warm_up(planned)
        runner.run(planned)
    context = Context(known, kinds, config.job_counts, config.rounds)
    return _present(Results(records), context, options, missing)


def _present(
    results: Results, context: Context, options: argparse.Namespace, missing: list[str]
) -> str:
    plot = options.output_dir / "results.png"
    words = (scaling_report if options.scaling else report)(results, context)
    (draw_scaling if options.scaling else draw)(results, context, plot)
    lines = [f"not measured, because it is not installed: {name}" for name in missing]
    return "\n".join([words, *lines, f"written: {options.output_dir}/results.jsonl, {plot}"])


def _prepare(options: argparse.Namespace, stack: ExitStack) -> tuple[Workplace, Config]:
    size = options.image.stat().st_size
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free < size * ROOM:
        raise ValueError(f"{SHARED_MEMORY} has {free} bytes free, expected {size * ROOM}")
    shared = stack.enter_context(_folder(SHARED_MEMORY))
    folders = {"shm": shared}
    if "disk" in options.destinations:
        folders["disk"] = stack.enter_context(_folder(options.output_dir))
    image = shared / "image"
    say(f"copying {options.image} to {SHARED_MEMORY}")
    copy_image(options.image, image)
    counts = _job_counts(options.jobs) if options.scaling else (options.jobs,)
    config = Config(
        image=options.image,
        output_folder=options.output_dir,
        destinations={name: folders[name] for name in options.destinations},
        job_counts=counts,
        rounds=options.rounds,
        variant_rounds=_variant_rounds(options),
        scaling=options.scaling,
    )
    return Workplace(image, shared), config


def _variant_rounds(options: argparse.Namespace) -> int:
    if options.full:
        return int(options.rounds)
    return 0 if options.quick else max(1, options.rounds // 2)


def _job_counts(most: int) -> tuple[int, ...]:
    counts = [1, 2]
    while counts[-1] * 2 <= most:
        counts.append(counts[-1] * 2)
    if most > counts[-1]:
        counts.append(most)
    return tuple(counts)


@contextmanager
def _folder(parent: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="snapmig-bench-", dir=parent) as name:
        yield Path(name).resolve()


def _places(words: str) -> tuple[str, ...]:
    places = tuple(word for word in words.split(",") if word)
    if not places or set(places) - set(PLACES):
        raise argparse.ArgumentTypeError(f"{words!r}: expected some of {', '.join(PLACES)}")
    return places


def _write_line(lines: TextIO, record: dict[str, Any]) -> None:
    lines.write(json.dumps(record) + "\n")
    lines.flush()


if __name__ == "__main__":
    sys.exit(main())
