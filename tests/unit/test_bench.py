"""Facts about the benchmark: its figures, its tables, and that a short run goes through."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.contestants import MAIN, PEERS, VARIANTS
from tests.bench.limits import Packets
from tests.bench.measure import CommandError, run_command
from tests.bench.parallel import in_processes
from tests.bench.plan import Config, Item, items, present, rotated
from tests.bench.report import text_table, verdict
from tests.bench.runner import copy_image
from tests.bench.summary import Results, Spread, added, ratio, spread

ROOT = Path(__file__).resolve().parents[2]
PAGE = 4096
MIB = 1 << 20


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
    """Of an even number of values the median is the mean of the two in the middle."""
    assert spread([3, 1, 2]) == Spread(2, 1, 3)
    assert spread([4, 1, 2, 3]) == Spread(2.5, 1, 4)
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


def test_commands_are_complete():
    """Every placeholder is filled; only what writes to its standard output names no output."""
    for contestant in (MAIN, *PEERS, *VARIANTS):
        for operation in ("save", "restore"):
            command = contestant.command(operation, "from", "to", 3)
            assert "from" in command
            assert not any("{" in word for word in command)
            assert contestant.writes_stdout(operation) == ("to" not in command)


def test_rounds_begin_elsewhere_and_variants_end_early(tmp_path):
    """Each round has every item once."""
    config = Config(tmp_path, tmp_path, {"shm": tmp_path, "disk": tmp_path}, (2,), 4, 2, False)
    planned = items(config, PEERS, ())
    orders = [list(rotated(planned, number, config)) for number in range(4)]
    assert len({order[0] for order in orders}) == 4
    assert set(orders[1]) == set(planned)
    assert {item.role for item in orders[2]} == {"snapmig", "peer", "startup"}


def test_scaling_measures_what_has_threads(tmp_path):
    """lz4 has one thread, and igzip inflates in one: their times do not depend on the jobs."""
    config = Config(tmp_path, tmp_path, {"shm": tmp_path}, (1, 2), 1, 0, True)
    planned = items(config, PEERS, ())
    names = {(item.operation, item.name) for item in planned}
    assert ("save", "lz4 -1") not in names
    assert ("restore", "igzip -1") not in names
    assert {item.jobs for item in planned} == {1, 2}


def test_items_of_other_jobs_differ():
    """An item is identified by all that changes its figures."""
    one, other = (Item("snapmig", "save", "snapmig", jobs, "shm", MAIN) for jobs in (1, 2))
    assert one != other
    assert one.parameters["packet_size"] == 512 * 1024


def test_missing_programs_are_named(monkeypatch):
    """They are not measured, but not forgotten."""
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "zstd" else name)
    found, missing = present(PEERS)
    assert missing == ["zstd"]
    assert len(found) == len(PEERS) - 1


def test_a_command_that_fails_is_no_figure(tmp_path):
    """Its own words are in the error."""
    program = "import sys; print('no luck', file=sys.stderr); sys.exit(3)"
    with pytest.raises(CommandError, match="exit status 3: no luck"):
        run_command([sys.executable, "-c", program], cwd=tmp_path)


def test_processes_that_fail_end_the_run():
    """No hang, and no figure."""

    def fail(_number):
        os._exit(1)

    with pytest.raises(RuntimeError, match="failed"):
        in_processes(2, lambda _ready: None, fail)


def test_limits_leave_holes_alone(image, tmp_path):
    """The copy of the image keeps its holes while the bare calls read it."""
    copy = tmp_path / "copy"
    copy_image(image, copy, PAGE)
    blocks = copy.stat().st_blocks
    packets = Packets(copy, 2)
    content = image.read_bytes()
    data = sum(any(content[at : at + PAGE]) for at in range(0, len(content), PAGE))
    assert packets.data_pages == data
    assert packets.raw_packets == 1
    for limit in (packets.compress, packets.decompress, packets.write_restored):
        assert limit(2, tmp_path).slowest > 0
    assert copy.stat().st_blocks == blocks
    assert copy.read_bytes() == content


def test_a_quick_run(image, tmp_path):
    """All parameters stand in each line; a missing program is named; nothing is left behind."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("git", "igzip", "pigz", "lz4"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    output = tmp_path / "out"
    command = [sys.executable, "-m", "tests.bench", "--image", str(image), "--quick"]
    done = subprocess.run(
        [*command, "--output-dir", str(output)],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tools), "MPLCONFIGDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines if line["type"] == "missing" and line["name"] == "zstd"]
    figures = [line for line in lines if line["type"] == "measurement" and not line["warm_up"]]
    places = {(line["operation"], line["destination"]) for line in figures}
    assert {("save", "shm"), ("save", "disk"), ("restore", "shm"), ("restore", "disk")} <= places
    wanted = {"wall_s", "cpu_s", "jobs", "level", "image_bytes", "machine_cpu", "version_isal"}
    assert all(wanted <= line.keys() for line in figures)
    assert "not installed: zstd" in done.stdout
    assert (output / "results.png").stat().st_size > 10_000
    assert sorted(path.name for path in output.iterdir()) == ["results.jsonl", "results.png"]
