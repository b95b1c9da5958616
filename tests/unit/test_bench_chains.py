"""Facts about the benchmark of incremental snapshots: its images, its plan, its targets, a run."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.chain_images import Change, Series, compare, made_series
from tests.bench.chain_load import BATCH_STEPS, Load
from tests.bench.chain_report import chain_report
from tests.bench.chain_runs import (
    BORG,
    CHAIN_OF_2,
    DELTAS,
    DIGESTS,
    DIGESTS_DELTAS,
    FULL,
    FULL_DIGESTS,
    ON_CHAIN,
    PACKED,
    PLAIN,
    WHOLE_CHAIN,
    ZSTD,
    Borg,
    Place,
    chain_runs,
    run_quietly,
)
from tests.bench.chains import nearest, parse_arguments
from tests.bench.measure import CommandError
from tests.bench.rounds import in_turn
from tests.bench.summary import Context, Results
from tests.support import program
from tests.support.guests.qemu import PROGRAM
from tests.support.requirements import requires

ROOT = Path(__file__).resolve().parents[2]
PAGE = 4096
PACKET = 512 * 1024
MIB = 1 << 20


def change(share):
    """Return what is different in an image of a thousand pages."""
    return Change(5.0, 1000, 10, round(1000 * share), 4)


def record(name, **fields):
    """One record of a save of the second image."""
    known = {
        "operation": "save",
        "destination": "image 2",
        "role": "snapmig",
        "jobs": 2,
        "order": 0,
        "round": 0,
        "warm_up": False,
        "wall_s": 1.0,
        "cpu_s": 1.0,
        "others_cpu_s": 0.0,
        "stolen_cpu_s": 0.0,
        "disk_bytes": MIB,
        "peak_bytes": MIB,
    }
    return {**known, "name": name, **fields}


def report(*records):
    """Return the words about records, each line's by its first words."""
    facts = {"image": "made images", "machine_cpu": "a", "machine_processors": 2}
    facts |= {"machine_memory_bytes": 1 << 30, "machine_kernel": "6", "git_commit": "1"}
    versions = ("snapmig", "python", "isal", "zstandard", "lz4_package", "numpy", "zstd", "borg")
    facts |= {f"version_{name}": "1" for name in versions}
    context = Context(facts, {"shm": "tmpfs"}, (2,), 1)
    text = chain_report(Results(records), context, [change(0.01), change(0.05)], 2)
    return {line.partition("  ")[0]: line.partition("  ")[2].strip() for line in text.splitlines()}


def test_changed_pages_and_packets_are_counted(tmp_path):
    """A page that became zero changed too; zero pages of both are no pages of the newer one."""
    older, newer = tmp_path / "older", tmp_path / "newer"
    older.write_bytes(b"x" * 3 * PAGE + bytes(PACKET - 3 * PAGE) + b"y" * PAGE + bytes(PACKET))
    older.write_bytes(older.read_bytes()[: 2 * PACKET])
    content = bytearray(older.read_bytes())
    content[5] ^= 1
    content[PAGE : 2 * PAGE] = bytes(PAGE)
    newer.write_bytes(content)
    assert compare(older, newer) == {
        "data_pages": 3,
        "data_packets": 2,
        "changed_pages": 2,
        "changed_packets": 1,
    }


def test_made_images_differ_in_a_twentieth(tmp_path):
    """Each from the one before it, in pages that lie together."""
    series = made_series(4 * MIB, tmp_path)
    assert len(series.images) == 3
    assert [round(each.share, 2) for each in series.changes] == [0.05, 0.05]
    assert all(path.stat().st_size == 4 * MIB for path in series.images)
    assert all(each.changed_packets <= 2 for each in series.changes)


def test_the_image_nearest_to_the_target_is_compared():
    """Images are counted from the first, which has none before it."""
    changes = tuple(map(change, (0.01, 0.06, 0.03)))
    assert nearest(Series("made images", (), changes, {})) == 2


@pytest.fixture
def images(tmp_path):
    """Give four images of a guest, all of them holes."""
    paths = [tmp_path / f"{number}.ram" for number in range(4)]
    for path in paths:
        path.touch()
        os.truncate(path, MIB)
    return paths


@pytest.fixture
def planned(images, tmp_path, monkeypatch):
    """Give what a round measures of four images, with all programs there."""
    monkeypatch.setattr("tests.bench.contestants.shutil.which", lambda name: name)
    return chain_runs(Place(images, 2, tmp_path, 3), Borg(tmp_path / "borg", tmp_path))


def test_all_ways_are_compared_with_one_image(planned):
    """The others of one image; full and incremental of each, since shares differ."""
    saves = {(run.name, run.image) for run in planned if run.operation == "save"}
    names = (FULL, PLAIN, DELTAS, FULL_DIGESTS, DIGESTS, DIGESTS_DELTAS)
    every = {(name, image) for name in names for image in (1, 2, 3)}
    assert saves == every | {(PACKED, 2), (ZSTD, 2), (BORG, 2), (ON_CHAIN, 3)}
    restores = {(run.name, run.image) for run in planned if run.operation == "restore"}
    assert restores == {
        *((name, 2) for name in (FULL, CHAIN_OF_2, ZSTD, BORG)),
        *((name, 3) for name in (FULL, WHOLE_CHAIN)),
    }


def test_differences_are_switched_off_by_one_word(planned):
    """The two incremental saves are the same but for that."""
    plain, deltas = (
        next(run.command for run in planned if (run.name, run.image) == (name, 2))
        for name in (PLAIN, DELTAS)
    )
    assert [word for word in plain if word not in deltas] == ["--no-deltas"]
    assert "--parent" in deltas


def test_what_is_missing_is_left_out(images, tmp_path, monkeypatch):
    """Snapmig's own runs stay."""
    monkeypatch.setattr("tests.bench.contestants.shutil.which", lambda _name: None)
    found = chain_runs(Place(images, 2, tmp_path, 3), None)
    assert {run.role for run in found} == {"snapmig"}


def test_zstd_is_left_out_where_its_window_is_too_small(images, tmp_path, monkeypatch):
    """Its figures would be those of a full save."""
    monkeypatch.setattr("tests.bench.contestants.shutil.which", lambda name: name)
    os.truncate(images[2], 2 << 30)
    found = chain_runs(Place(images, 2, tmp_path, 3), None)
    assert ZSTD not in {run.name for run in found}


def test_rounds_begin_elsewhere(planned):
    """Each round has every run once."""
    orders = [in_turn(planned, number, 4) for number in range(4)]
    assert len({order[0].command for order in orders}) == 4
    assert all(set(order) == set(planned) for order in orders)


def test_targets_are_a_third_of_the_time_and_a_tenth_of_the_size():
    """Figures of the full save are divided by those of the incremental one."""
    words = report(
        record(FULL, wall_s=4.0, disk_bytes=10 * MIB), record(DIGESTS, wall_s=2.0, disk_bytes=MIB)
    )
    assert words["time of a full save / incremental"].endswith("2.00 short by 33 %")
    assert words["size of a full save / incremental"].endswith("10.00 met")


@pytest.mark.parametrize(("wall", "verdict"), [(1.25, "0.80 met"), (1.4, "0.71 short by 11 %")])
def test_a_chain_may_take_longer_by_what_it_reads(wall, verdict):
    """A quarter more bytes may take a quarter more time."""
    words = report(
        record(FULL, disk_bytes=4 * MIB),
        record(DELTAS),
        record(FULL, operation="restore"),
        record(CHAIN_OF_2, operation="restore", wall_s=wall),
    )
    assert words[CHAIN_OF_2].endswith(verdict)


def test_what_was_not_measured_has_no_ratio():
    """A run without records is told, not left out."""
    words = report(record(FULL))
    assert words["time of a full save / incremental"].endswith("not measured")
    assert words[WHOLE_CHAIN].endswith("not measured")


def test_memory_is_that_of_the_command(tmp_path):
    """A process that fills 64 MiB had about those; what started it does not count."""
    fill = "x = bytearray(b'x') * (64 << 20)"
    small, large = (
        run_quietly([sys.executable, "-I", "-S", "-c", words], tmp_path) for words in ("pass", fill)
    )
    assert 60 * MIB < large - small < 80 * MIB


def test_a_command_that_fails_ends_the_run(tmp_path):
    """Its own words are in the error."""
    program = "import sys; sys.exit('no luck')"
    with pytest.raises(CommandError, match="no luck"):
        run_quietly([sys.executable, "-c", program], tmp_path)


@pytest.fixture
def load(tmp_path):
    """Give the load of a small guest, with its records."""
    (tmp_path / "copies").mkdir()
    for number in range(8):
        (tmp_path / "copies" / str(number)).write_bytes(bytes([number]) * 8 * PAGE)
    with sqlite3.connect(tmp_path / "messages.sqlite") as database:
        database.execute("create table messages (id integer primary key, text)")
        rows = ((f"line {number} of a log",) for number in range(4000))
        database.executemany("insert into messages (text) values (?)", rows)
    database.close()
    records = [{"key": 0, "tags": ["", "", 0.0]} for _ in range(4000)]
    return Load(tmp_path, records, 100, iter(lambda: "a line of a log\n", "")), records


def test_a_batch_job_changes_what_lies_together(load):
    """Step after step; random access changes as much all over, and less of each page."""
    job, records = load
    job.step(1)
    first = [number for number, each in enumerate(records) if each["key"]]
    assert first == list(range(len(first)))
    assert len(first) == 240
    job.step(BATCH_STEPS + 1)
    after = [number for number, each in enumerate(records) if each["key"]][len(first) :]
    assert len(after) > 30
    assert max(after) - min(after) > 2000


def test_the_load_does_not_grow(load, tmp_path):
    """Logs start again, rows and files keep their sizes."""
    job, _ = load
    sizes = []
    for step in range(1, 30):
        job.step(step)
        sizes.append(sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()))
    assert max(sizes[8:]) == max(sizes[:16])


def test_a_quick_run_is_small():
    """Other settings win over it."""
    options = parse_arguments(["--quick"])
    assert (options.ram, options.rounds) == (16 * MIB, 1)
    assert parse_arguments(["--quick", "--rounds", "2"]).rounds == 2


def quick_run(output, *words, **environment):
    """Run the benchmark; return its end and its lines."""
    command = [sys.executable, "-m", "tests.bench", "--chains", *words]
    with subprocess.Popen(
        [*command, "--output-dir", str(output)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        outcome = program.end(process)
    outcome.ok(err=None)
    assert not list(Path("/dev/shm").glob(f"snapmig-bench-{process.pid}-*"))
    lines = (output / "chains.jsonl").read_text().splitlines()
    return outcome.out, [json.loads(line) for line in lines]


@pytest.mark.sweep
def test_a_quick_run(tmp_path):
    """All ways are measured, and differences make the difference; nothing is left behind."""
    for tool in ("zstd", "borg"):
        requires(tool)
    out, lines = quick_run(tmp_path, "--quick")
    figures = {(line["operation"], line["name"]) for line in lines}
    names = (FULL, ZSTD, BORG)
    assert {(what, name) for name in names for what in ("save", "restore")} <= figures
    assert {("restore", CHAIN_OF_2), ("restore", WHOLE_CHAIN), ("save", PACKED)} <= figures
    wanted = {"wall_s", "cpu_s", "peak_bytes", "jobs", "changed_share", "machine_cpu", "git_commit"}
    assert all(wanted <= line.keys() for line in lines)
    saves = [line for line in lines if line["operation"] == "save"]
    whole = (FULL, PLAIN, FULL_DIGESTS, DIGESTS)
    assert all(line["delta_pages"] == 0 for line in saves if line["name"] in whole)
    mixed = (DELTAS, PACKED, DIGESTS_DELTAS)
    assert all(line["delta_pages"] > 0 for line in saves if line["name"] in mixed)
    sizes = {line["name"]: line["disk_bytes"] for line in saves}
    assert sizes[DELTAS] < sizes[PLAIN] < sizes[FULL]
    assert sizes[DIGESTS_DELTAS] < sizes[DIGESTS] < sizes[FULL_DIGESTS]
    assert sizes[BORG] > 0
    assert "targets, image 1" in out
    assert [path.name for path in tmp_path.iterdir()] == ["chains.jsonl"]


def test_without_qemu_nothing_is_measured(tmp_path):
    """That is said, and no failure."""
    tools = tmp_path / "tools"
    tools.mkdir()
    git = shutil.which("git")
    if git:
        (tools / "git").symlink_to(git)
    out, lines = quick_run(tmp_path / "out", PATH=str(tools))
    assert f"{PROGRAM} is not installed" in out
    assert lines[0]["type"] == "missing"
