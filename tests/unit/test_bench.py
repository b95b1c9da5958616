"""Facts about the benchmark: its figures, its tables, and that a short run goes through."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.bench.__main__ import parse_arguments, room
from tests.bench.bare_runs import bare_runs
from tests.bench.codecs import ISAL, LZ4_1, PACKET, ZSTD_1
from tests.bench.contestants import (
    COMPRESSIONS,
    MAIN,
    OWN,
    OWN_NAMES,
    VARIANTS,
    chosen,
    contestants,
    rival,
)
from tests.bench.limits import Packets, Streams, limits
from tests.bench.measure import CommandError, run_command
from tests.bench.parallel import in_processes
from tests.bench.plan import Config, Item, items, rotated, warm_ups
from tests.bench.rounds import main_with
from tests.bench.runner import copy_image
from tests.bench.summary import Results, Spread, added, ratio, spread
from tests.bench.tables import text_table, verdict
from tests.support import program

ROOT = Path(__file__).resolve().parents[2]
PAGE = 4096
MIB = 1 << 20
CODECS = (ISAL, ZSTD_1, LZ4_1)


@pytest.fixture
def image(tmp_path):
    """Four MiB: text, bytes that do not compress, zero pages, and a hole at the end."""
    path = tmp_path / "guest.ram"
    words = b" ".join(b"%d" % number for number in range(200_000))
    content = words[:MIB] + os.urandom(MIB // 2) + bytes(MIB // 2) + words[: MIB - 5 * PAGE]
    path.write_bytes(content)
    os.truncate(path, 4 * MIB)
    return path


def record(name="snapmig", number=0, **fields):
    """One record of a save to tmpfs."""
    known = {
        "operation": "save",
        "destination": "shm",
        "role": "peer",
        "jobs": 2,
        "order": 0,
        "warm_up": False,
        "wall_s": 1.0,
    }
    return {**known, "name": name, "round": number, **fields}


def test_a_spread_is_the_median_with_both_ends():
    """And its quartiles; of an even number of values the median is the mean of two."""
    assert spread([3, 1, 2]) == Spread(2, 1, 3, 1.5, 2.5)
    assert spread([4, 1, 2, 3]) == Spread(2.5, 1, 4, 1.75, 3.25)
    assert spread([7]) == Spread(7, 7, 7, 7, 7)
    assert spread([]) is None


def test_a_ratio_is_taken_inside_rounds():
    """A slow round slows both; only rounds that have both count."""
    assert ratio({0: 2.0, 1: 20.0, 2: 200.0}, {0: 1.0, 1: 10.0, 2: 50.0, 3: 1.0}) == 2.0
    assert ratio({0: 1.0}, {1: 1.0}) is None
    assert added({0: 1.0, 1: 2.0}, {1: 3.0}) == {1: 5.0}


def test_results_leave_out_warm_ups_and_share_what_has_no_destination():
    """A limit in memory stands beside each destination."""
    results = Results(
        [
            record(warm_up=True, number=-1, wall_s=9.0),
            record(wall_s=2.0),
            record(wall_s=3.0, destination="disk"),
            record("bare scan and compress", destination=None, role="limit", order=7),
        ]
    )
    assert results.times("save", "shm", "snapmig", 2) == {0: 2.0}
    assert results.times("save", "disk", "bare scan and compress", 2) == {0: 1.0}
    assert results.rows("save", "disk", 2, "peer", "limit") == ["snapmig", "bare scan and compress"]
    assert results.rows("save", "disk", 1, "peer") == []


def test_what_others_used_is_a_share_of_all_processors():
    """Two processors for two seconds are four; others had one of them, the host half of one."""
    ours = record(wall_s=2.0, others_cpu_s=1.0, stolen_cpu_s=0.5)
    limit = record("bare scan and compress", role="limit", others_cpu_s=9.0, stolen_cpu_s=0.0)
    assert Results([ours, limit]).disturbance(2) == 0.375
    assert Results([]).disturbance(2) == 0


def test_a_table_is_aligned():
    """Names to the left, figures to the right."""
    assert text_table([["", "s"], ["igzip", "1.25"]]) == ["          s", "igzip  1.25"]


@pytest.mark.parametrize(
    ("measured", "words"),
    [(1.4, "1.40 met"), (1.12, "1.12 short by 20 %"), (None, "not measured")],
)
def test_a_verdict_names_the_gap(measured, words):
    """The gap is a share of the target."""
    assert verdict(measured, 1.4) == words


def config(folder, *, jobs=(2,), variant_rounds=2, scaling=False, **more):
    """Return four rounds to two places."""
    places = {"shm": folder, "disk": folder}
    return Config(folder, folder, places, jobs, 4, variant_rounds, scaling, **more)


def test_commands_are_complete():
    """Every placeholder is filled; only what writes to its standard output names no output."""
    for contestant in (*contestants(), *contestants(lz4_version="1.10.0"), *VARIANTS):
        for operation in ("save", "restore"):
            command = contestant.command(operation, "from", "to", 3)
            assert "from" in command
            assert not any("{" in word for word in command)
            assert contestant.writes_stdout(operation) == ("to" not in command)


def test_each_format_stands_beside_its_own_tools():
    """A program is compared with the snapmig of its format and level, which stands above it."""
    beside = {one.name: rival(one.name) for one in contestants() if one not in OWN}
    assert beside == {
        "igzip -1": "snapmig",
        "pigz -1": "snapmig",
        "zstd -1": "snapmig zstd 1",
        "zstd -3": "snapmig zstd 3",
        "lz4 -1": "snapmig lz4 1",
    }
    names = [one.name for one in contestants()]
    assert all(names.index(own) < names.index(name) for name, own in beside.items())
    assert all(rival(name) == name for name in OWN_NAMES)


@pytest.mark.parametrize(
    ("version", "threads"), [(None, False), ("1.9.4", False), ("1.10.0", True), ("2.0", True)]
)
def test_lz4_has_threads_from_1_10_on(version, threads):
    """They are used where they are."""
    lz4 = contestants(lz4_version=version)[-2]
    assert (lz4.name, lz4.threads("save")) == ("lz4 -1", threads)
    assert ("-T7" in lz4.command("save", "from", "to", 7)) == threads


def test_only_what_is_asked_for_is_measured():
    """Formats in the order of the table, whatever the order of the words."""
    options = parse_arguments(["--image", "i", "--only", "save", "--compressions", "lz4,zlib"])
    assert (options.only, options.compressions) == (("save",), ("zlib", "lz4"))
    found, _ = chosen([one for one in contestants() if one in OWN], options.compressions)
    assert [one.name for one in found] == ["snapmig", "snapmig lz4 1"]
    with pytest.raises(SystemExit):
        parse_arguments(["--image", "i", "--compressions", "gzip"])


def test_a_restore_alone_is_warmed_up_by_a_save(tmp_path):
    """Its input must have been made; the rounds do not save."""
    alone = config(tmp_path, operations=("restore",))
    planned = items(alone, contestants(), ())
    assert {item.operation for item in planned} == {"restore", "start"}
    pairs = [(item.operation, item.name) for item in warm_ups(planned)]
    assert len(pairs) == len(set(pairs)) == 2 * len(contestants())
    assert all(pairs.index(("save", one.name)) < pairs.index(("restore", one.name)) for one in OWN)


def test_a_quick_run_warms_up_saves_alone(tmp_path):
    """Its restores find what they read, and are measured cold."""
    planned = items(config(tmp_path), contestants(), ())
    found = warm_ups(planned, restores=False)
    assert {item.operation for item in found} == {"save"}
    assert [item.name for item in found] == [one.name for one in contestants()]


def test_other_settings_need_deflate(tmp_path):
    """They are compared with snapmig's first row, and are not run without it."""
    lz4 = [one for one in contestants() if one.compression == "lz4"]
    assert not any(item.role == "variant" for item in items(config(tmp_path), lz4, ()))


def test_rounds_begin_elsewhere_and_variants_end_early(tmp_path):
    """Each round has every item once."""
    planned = items(config(tmp_path), contestants(), ())
    orders = [list(rotated(planned, number, config(tmp_path))) for number in range(4)]
    assert len({order[0] for order in orders}) == 4
    assert set(orders[1]) == set(planned)
    assert {item.role for item in orders[2]} == {"snapmig", "peer", "startup"}


def test_scaling_measures_what_has_threads(tmp_path):
    """lz4 has one thread, and igzip inflates in one: their times do not depend on the jobs."""
    planned = items(config(tmp_path, jobs=(1, 2), scaling=True), contestants(), ())
    names = {(item.operation, item.name) for item in planned}
    assert ("save", "lz4 -1") not in names
    assert ("restore", "igzip -1") not in names
    assert {("save", name) for name in OWN_NAMES} <= names
    assert {item.jobs for item in planned} == {1, 2}


def test_room_is_for_what_is_kept():
    """One output of the image's size, the pages, half of them for a stream or a file, or all."""
    assert room(100, 60, []) == 160
    assert room(100, 60, [OWN[0]]) == 160 + 30 + 30
    assert room(100, 60, [OWN[-1]]) == 160 + 60


def test_items_of_other_jobs_differ():
    """An item is identified by all that changes its figures."""
    one, other = (Item("snapmig", "save", "snapmig", jobs, "shm", MAIN) for jobs in (1, 2))
    assert one != other
    assert one.parameters["packet_size"] == 512 * 1024


def test_missing_programs_are_named(monkeypatch):
    """They are not measured, but not forgotten, and named once."""
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "zstd" else name)
    found, missing = chosen(contestants(), COMPRESSIONS)
    assert missing == ["zstd"]
    assert len(found) == len(contestants()) - 2


def test_missing_packages_are_named(monkeypatch):
    """Snapmig itself needs them for a format."""
    monkeypatch.setattr("tests.bench.contestants.find_spec", lambda _name: None)
    found, missing = chosen(OWN, COMPRESSIONS)
    assert missing == ["Python package zstandard", "Python package lz4"]
    assert [one.compression for one in found] == ["zlib", "none"]


def test_a_command_that_fails_is_no_figure(tmp_path):
    """Its own words are in the error."""
    program = "import sys; print('no luck', file=sys.stderr); sys.exit(3)"
    with pytest.raises(CommandError, match="exit status 3: no luck"):
        run_command([sys.executable, "-c", program], cwd=tmp_path)


def test_a_benchmark_that_fails_ends_with_its_reason(capfd):
    """Also one whose lines come one by one: no half of a table is taken for a whole."""

    def lines():
        yield "save  1.00"
        raise ValueError("no room")

    assert main_with(lines) == 1
    assert capfd.readouterr() == ("", "bench: no room\n")


def test_processes_that_fail_end_the_run():
    """No hang, and no figure."""

    def fail(_number):
        os._exit(1)

    with pytest.raises(RuntimeError, match="failed"):
        in_processes(2, lambda _ready: None, fail)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.compression)
def test_bare_calls_give_back_what_they_took(codec):
    """Streams are smaller than words, and come out as those."""
    words = (b"page after page " * PACKET)[:PACKET]
    stream = codec.compressor()(memoryview(words))
    assert len(stream) < PACKET // 8
    assert codec.decompressor()(memoryview(stream), PACKET) == words


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.compression)
def test_limits_leave_holes_alone(codec, image, shm, tmp_path):
    """The copy in shared memory, where a page that is looked at is there, keeps its holes."""
    copy = shm / "copy"
    copy_image(image, copy, PAGE)
    blocks = copy.stat().st_blocks
    packets = Packets(copy, 2)
    content = image.read_bytes()
    data = sum(any(content[at : at + PAGE]) for at in range(0, len(content), PAGE))
    assert packets.data_pages == data
    streams = Streams(packets, codec, 2)
    assert streams.raw_packets == 1
    for limit in [*limits(packets, [streams]), *bare_runs(packets, [streams])]:
        assert limit.run(2, tmp_path).slowest > 0
    assert copy.stat().st_blocks == blocks
    assert copy.read_bytes() == content


def _what_is_left(limit, folder, monkeypatch):
    with monkeypatch.context() as patches:
        patches.setattr(Path, "unlink", lambda _self: None)
        limit.run(2, folder)
    return (folder / "limit.bin").read_bytes()


def test_a_bare_restore_restores(image, tmp_path, monkeypatch):
    """It writes the image, but for zeros at its end."""
    packets = Packets(image, 2)
    (_, restore) = bare_runs(packets, [Streams(packets, ZSTD_1, 2)])
    found = _what_is_left(restore, tmp_path, monkeypatch)
    assert found == image.read_bytes()[: len(found)].ljust(len(found), b"\0")


def test_a_bare_save_saves(image, tmp_path, monkeypatch):
    """Each packet has a place, where its stream or its pages are."""
    packets = Packets(image, 2)
    streams = Streams(packets, ZSTD_1, 2)
    (save, _) = bare_runs(packets, [streams])
    found = _what_is_left(save, tmp_path, monkeypatch)
    for k in packets.in_use():
        stored = streams.stream(k) or packets.data(k)
        assert found[k * PACKET :].startswith(bytes(stored))


def test_streams_hold_the_pages_that_are_not_zero(image):
    """The input of the limits' decompression is the image, packet by packet."""
    packets = Packets(image, 2)
    content = image.read_bytes()
    streams = Streams(packets, ZSTD_1, 2)
    for k in range(packets.count):
        whole = content[k * PACKET : (k + 1) * PACKET]
        pages = [whole[at : at + PAGE] for at in range(0, len(whole), PAGE)]
        data = b"".join(page for page in pages if any(page))
        assert packets.data(k) == data
        if stream := streams.stream(k):
            assert ZSTD_1.decompressor()(stream, len(data)) == data


def test_limits_have_names_of_their_own(image):
    """Those of a codec say which, but for deflate, whose are the first and the oldest."""
    packets = Packets(image, 1)
    streams = [Streams(packets, codec, 1) for codec in CODECS]
    named = [*limits(packets, streams), *bare_runs(packets, streams)]
    names = [(limit.operation, limit.name) for limit in named]
    assert len(set(names)) == len(names) == 5 * len(CODECS) + 1
    wanted = {
        (what, name) for codec in CODECS for what in codec.limits for name in codec.limits[what]
    }
    wanted |= {pair for codec in CODECS for pair in codec.whole_limits.items()}
    assert set(names) == wanted


def quick_run(image, folder, programs, *words):
    """Run the benchmark with only some programs installed; return its end and its lines."""
    tools, output = folder / "tools", folder / "out"
    tools.mkdir()
    for name in programs:
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    command = [sys.executable, "-m", "tests.bench", "--image", str(image), "--quick", *words]
    done = program.call(
        [*command, "--output-dir", str(output)],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tools)},
    )
    done.ok(err=None)
    lines = (output / "results.jsonl").read_text().splitlines()
    return done, [json.loads(line) for line in lines]


@pytest.mark.sweep
def test_a_quick_run(image, tmp_path):
    """All parameters stand in each line; a missing program is named; nothing is left behind."""
    done, lines = quick_run(image, tmp_path, ("git", "igzip", "pigz", "lz4"))
    output = tmp_path / "out"
    assert [line["name"] for line in lines if line["type"] == "missing" and line["name"] == "zstd"]
    figures = [line for line in lines if line["type"] == "measurement" and not line["warm_up"]]
    places = {(line["operation"], line["destination"]) for line in figures}
    assert {("save", "shm"), ("save", "disk"), ("restore", "shm"), ("restore", "disk")} <= places
    wanted = {"wall_s", "cpu_s", "jobs", "level", "compression", "image_bytes", "machine_cpu"}
    assert all(wanted | {"version_isal"} <= line.keys() for line in figures)
    ours = {
        (line["operation"], line["compression"]) for line in figures if line["role"] == "snapmig"
    }
    assert ours == {(what, name) for what in ("save", "restore") for name in COMPRESSIONS}
    choices = [line for line in lines if line["type"] == "choice"]
    assert [line["name"] for line in choices] == list(OWN_NAMES)
    assert "not installed: zstd" in done.out
    assert "<rect" in (output / "results.svg").read_text()
    names = ["results.jsonl", "results.svg", "results.txt"]
    assert sorted(path.name for path in output.iterdir()) == names
    assert done.out.startswith((output / "results.txt").read_text())


def test_a_run_of_one_comparison(image, tmp_path):
    """Restores of one format, to one place; only their warm-up saves."""
    words = ("--only", "restore", "--compressions", "none", "--destinations", "shm")
    done, lines = quick_run(image, tmp_path, ("git",), *words)
    runs = [line for line in lines if line["type"] == "measurement" and line["role"] == "snapmig"]
    known = [(line["operation"], line["name"], line["warm_up"]) for line in runs]
    name = "snapmig none"
    assert known == [("save", name, True), ("restore", name, False)]
    assert "save, written to" not in done.out
