"""Measures snapmig beside igzip, pigz, zstd and lz4, and beside the limits of the machine."""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.bench import facts
from tests.bench.bare_runs import bare_runs
from tests.bench.choices import choices
from tests.bench.contestants import COMPRESSIONS, Contestant, chosen, contestants
from tests.bench.limits import Packets, Streams, limits
from tests.bench.measure import sizes
from tests.bench.plan import OPERATIONS, Config, Item, items
from tests.bench.records import Records
from tests.bench.report import drawn, report, scaling_report
from tests.bench.rounds import main_with, say
from tests.bench.runner import (
    SHARED_MEMORY,
    Record,
    Runner,
    Workplace,
    copy_image,
    require_room,
    work_folder,
)
from tests.bench.summary import Context, Results

PLACES = ("shm", "disk")
FILE_SHARE = {"none": 1.0}
"""What a saved file takes of the data in an image, at most, where that is not half."""


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--guests", action="store_true", help="guests under QEMU instead; --guests --help"
    )
    parser.add_argument(
        "--chains", action="store_true", help="incremental snapshots instead; --chains --help"
    )
    parser.add_argument("--image", type=Path, required=True, help="a guest's RAM, whole pages")
    parser.add_argument("--jobs", type=int, default=facts.processors(), help="(%(default)s)")
    parser.add_argument("--rounds", type=int, help="(5; 1 with --quick)")
    parser.add_argument("--scaling", action="store_true", help="1, 2, 4 ... jobs")
    parser.add_argument(
        "--destinations", type=_some_of(PLACES), help="shm, disk (both; shm with --scaling)"
    )
    parser.add_argument(
        "--only", type=_some_of(OPERATIONS), default=OPERATIONS, help="save, restore (both)"
    )
    parser.add_argument(
        "--compressions",
        type=_some_of(COMPRESSIONS),
        default=COMPRESSIONS,
        help=f"{', '.join(COMPRESSIONS)} (all)",
    )
    parser.add_argument(
        "--output-dir", type=Path, default=Path("build/bench"), help="(%(default)s)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one round, no other settings, less warm-up"
    )
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
    if "--chains" in words:
        from tests.bench import chains

        return chains.main([word for word in words if word != "--chains"])
    options = parse_arguments(arguments)
    return main_with(lambda: _bench(options))


def _bench(options: argparse.Namespace) -> str:
    options.output_dir.mkdir(parents=True, exist_ok=True)
    everyone = contestants(lz4_version=facts.program_version("lz4"))
    contenders, missing = chosen(everyone, options.compressions)
    with ExitStack() as stack:
        workplace, config = _prepare(options, contenders, stack)
        packets = Packets(workplace.image, facts.processors())
        codecs = [one.codec for one in contenders if one.codec]
        streams = [Streams(packets, codec, facts.processors()) for codec in codecs]
        known = facts.collect(options.image) | {"data_pages": packets.data_pages}
        known |= {f"raw_packets_{one.codec.compression}": one.raw_packets for one in streams}
        all_limits = [*limits(packets, streams), *bare_runs(packets, streams)]
        planned = items(config, contenders, all_limits)
        kinds = {name: facts.filesystem(path) for name, path in config.destinations.items()}
        path = options.output_dir / "results.jsonl"
        records = stack.enter_context(Records(path, known))
        for name in missing:
            records.write("missing", {"name": name})
        _measure(config, workplace, planned, kinds, records)
        results = records.results
        context = Context(known, kinds, config.job_counts, config.rounds, config.operations)
        where = {"destination": config.first_destination, "jobs": config.job_counts[0]}
        for choice in choices(results, context):
            records.write("choice", {**choice.record(), **where})
    return _present(results, context, options, missing)


def _measure(
    config: Config,
    workplace: Workplace,
    planned: list[Item],
    kinds: dict[str, str],
    records: Records,
) -> None:
    order = {(item.operation, item.name): number for number, item in enumerate(planned)}

    def keep(record: Record) -> None:
        place = kinds.get(record["destination"])
        at = order.get((record["operation"], record["name"]))  # None: only its warm-up is needed
        records.keep({**record, "filesystem": place, "order": at})

    runner = Runner(config, workplace, keep)
    runner.warm_up(planned)
    runner.run(planned)


def _present(
    results: Results, context: Context, options: argparse.Namespace, missing: list[str]
) -> str:
    text = options.output_dir / "results.txt"
    words = (scaling_report if options.scaling else report)(results, context)
    lines = [words, *(f"not measured, because it is not installed: {name}" for name in missing)]
    text.write_text("\n".join(lines) + "\n")
    written = f"{options.output_dir}/results.jsonl, {text}"
    if not options.scaling:
        plot = options.output_dir / "results.svg"
        plot.write_text(drawn(results, context))
        written += f", {plot}"
    return "\n".join([*lines, f"written: {written}"])


def _prepare(
    options: argparse.Namespace, contenders: Sequence[Contestant], stack: ExitStack
) -> tuple[Workplace, Config]:
    size = options.image.stat().st_size
    require_room(size)
    shared = stack.enter_context(work_folder(SHARED_MEMORY))
    folders = {"shm": shared}
    if "disk" in options.destinations:
        folders["disk"] = stack.enter_context(work_folder(options.output_dir))
    image = shared / "image"
    say(f"copying {options.image} to {SHARED_MEMORY}")
    copy_image(options.image, image)
    require_room(room(size, sizes(image).disk, contenders))
    counts = _job_counts(options.jobs) if options.scaling else (options.jobs,)
    config = Config(
        image=options.image,
        output_folder=options.output_dir,
        destinations={name: folders[name] for name in options.destinations},
        job_counts=counts,
        rounds=options.rounds,
        variant_rounds=_variant_rounds(options),
        scaling=options.scaling,
        operations=options.only,
        warm_restores=not options.quick,
    )
    return Workplace(image, shared), config


def room(size: int, data: int, contenders: Sequence[Contestant]) -> int:
    """
    Return the bytes of shared memory that the runs need beside the image.

    That is one output, which may have no holes, the gathered pages, the streams of each codec, and
    the file that each contestant restores.

    :param data: of the image's size, what is no hole
    """
    streams = sum(one.codec is not None for one in contenders) / 2
    files = sum(FILE_SHARE.get(one.compression, 0.5) for one in contenders)
    return int(size + data * (1 + streams + files))


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


def _some_of(names: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(words: str) -> tuple[str, ...]:
        found = set(filter(None, words.split(",")))
        if not found or found - set(names):
            raise argparse.ArgumentTypeError(f"{words!r}: expected some of {', '.join(names)}")
        return tuple(name for name in names if name in found)

    return parse


if __name__ == "__main__":
    sys.exit(main())
