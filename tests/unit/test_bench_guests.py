"""Facts about the benchmark of guests: its targets, its holes, and a short run of it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.guest_limits import BARE_CODEC, GUEST_LIMITS, THROWN_AWAY
from tests.bench.guest_pauses import (
    BACKGROUND,
    LIVE,
    LIVE_MULTIFD,
    OWN_BACKGROUND,
    OWN_LIVE,
    WAYS,
    takes,
)
from tests.bench.guest_report import OVER_LIMITS, guest_report
from tests.bench.guest_runs import (
    CONTESTANTS,
    LZ4,
    MAPPED,
    OVER_MULTIFD,
    PRIVATE,
    ZSTD,
    scan,
    still_cached,
)
from tests.bench.guests import ORDER, parse_arguments
from tests.bench.machines import give_back, holes
from tests.bench.summary import Context, Results
from tests.support import program
from tests.support.guests.qemu import PROGRAM, find_qemu
from tests.support.guests.tiny import guest as tiny
from tests.support.requirements import requires

ROOT = Path(__file__).resolve().parents[2]
PAGE = 4096
MIB = 1 << 20


@pytest.fixture
def memory(shm):
    """Give a MiB of data, a hole of two, a MiB of data."""
    path = shm / "ram"
    path.write_bytes(b"x" * MIB + bytes(2 * MIB) + b"y" * MIB)
    with path.open("r+b") as file:
        os.truncate(file.fileno(), 4 * MIB)
    give_back(path, [(MIB, 3 * MIB)])
    return path


def record(name, **fields):
    """One record of a save to disk."""
    known = {
        "operation": "save",
        "destination": "disk",
        "role": "peer",
        "jobs": 2,
        "order": 0,
        "round": 0,
        "warm_up": False,
        "wall_s": 1.0,
        "cpu_s": 1.0,
        "others_cpu_s": 0.0,
        "stolen_cpu_s": 0.0,
        "output_bytes": MIB,
        "disk_bytes": MIB,
        "grown_bytes": 0,
    }
    return {**known, "name": name, **fields}


def report(*records):
    """Return the words about records."""
    facts = {"image": "tiny guest", "image_bytes": MIB, "version_qemu": "10"}
    facts |= {"machine_cpu": "a", "machine_processors": 2, "machine_memory_bytes": 1 << 30}
    facts |= {"machine_kernel": "6", "git_commit": "1"}
    versions = ("snapmig", "python", "isal", "zstandard", "lz4_package", "numpy", "zstd")
    facts |= {f"version_{name}": "1" for name in versions}
    return guest_report(Results(records), Context(facts, {"disk": "ext4"}, (2,), 1))


def test_targets_are_met_or_short():
    """Time and size of the others are divided by snapmig's."""
    words = report(
        record("snapmig", wall_s=2.0),
        record(MAPPED, wall_s=1.0, disk_bytes=4 * MIB),
        record(ZSTD, wall_s=5.0),
    )
    lines = {line[:33].strip(): line[33:].strip() for line in words.splitlines()}
    assert "0.50 short by 50 %" in lines["save to disk, time / mapped-ram"]
    assert "4.00 met" in lines["save to disk, size / mapped-ram"]
    assert "2.50 met" in lines["save to disk, time / exec zstd"]
    assert "not measured" in lines["restore from shm / mapped-ram"]


def test_growth_is_told():
    """One save that grows the guest's memory is enough."""
    for name in ("snapmig", LZ4):
        ours = {"role": "snapmig", "round": 1, "grown_bytes": MIB}
        assert "1.00 short" in report(record("snapmig", role="snapmig"), record(name, **ours))
    for name, role in ((MAPPED, "peer"), (OVER_MULTIFD, "snapmig")):  # QEMU reads it there
        assert "0.00 met" in report(record(name, role=role, grown_bytes=MIB))


def over_limits(own, codec, thrown):
    """Return the verdict on saves over multifd, of times by round."""
    roles = {OVER_MULTIFD: (own, "shm"), BARE_CODEC: (codec, None), THROWN_AWAY: (thrown, None)}
    words = report(
        *(
            record(name, destination=place, round=number, wall_s=wall)
            for name, (walls, place) in roles.items()
            for number, wall in enumerate(walls)
        )
    )
    (line,) = [line for line in words.splitlines() if line.startswith(OVER_LIMITS.words)]
    return line.removeprefix(OVER_LIMITS.words).split(maxsplit=1)


def test_a_save_over_multifd_has_the_sum_of_two_limits():
    """It may take 15 % more than the bare codec and the migration thrown away."""
    assert over_limits([2.2], [1.5], [0.5]) == ["1.15", "1.10 met"]
    assert over_limits([2.76], [1.5], [0.5]) == ["1.15", "1.38 over by 20 %"]
    assert over_limits([2.2], [1.5], []) == ["1.15", "not measured"]


def test_limits_are_compared_by_medians():
    """One slow round of a limit excuses nothing; only rounds that have all three count."""
    assert over_limits([2.2, 2.2, 2.2, 9.0], [1.5, 6.0, 1.5], [0.5, 0.5, 0.5])[1] == "1.10 met"


@pytest.mark.parametrize(
    ("own", "words", "verdict"),
    [(LZ4, "lz4, private", "1.20 over by 9 %"), ("snapmig", "zlib, private", "1.20 met")],
)
def test_private_memory_is_compared_with_private_memory(own, words, verdict):
    """A restore over multifd stands beside QEMU's load of its file into memory of its own."""
    walls = {own + PRIVATE: 1.2, MAPPED + PRIVATE: 1.0, own: 9.0, MAPPED: 9.0}
    more = {"operation": "restore", "destination": "shm"}
    more |= {"memory_disk_bytes": None, "cached_share": 1.0}
    lines = report(*(record(name, wall_s=wall, **more) for name, wall in walls.items()))
    (line,) = [line for line in lines.splitlines() if line.startswith(words)]
    assert line.endswith(verdict)


def pause(name, seconds, **fields):
    """One record of a running guest's save."""
    more = {"downtime_s": None, "changed_packets": None, **fields}
    return record(name, operation="pause", destination="some load", pause_s=seconds, **more)


def test_pauses_stand_beside_those_of_qemu():
    """Live over multifd beside its live migration, in the background beside its own snapshot."""
    words = report(
        pause(LIVE, 0.5, role="snapmig"),
        pause(LIVE_MULTIFD, 0.25, role="snapmig", downtime_s=0.123),
        pause(OWN_LIVE, 0.2, role="limit", downtime_s=0.2),
    )
    lines = words.splitlines()
    (live,) = [line for line in lines if line.startswith("some load: pause, --live --via")]
    assert live.endswith("1.25 over by 25 %")
    (background,) = [line for line in lines if line.startswith("some load: pause, --live=")]
    assert background.endswith("not measured")
    (row,) = [line for line in lines if line.startswith(f"  {LIVE_MULTIFD} ")]
    assert "0.123" in row.split()
    assert not any(line.startswith(f"  {BACKGROUND}") for line in lines)


def test_each_row_has_a_place_of_its_own():
    """Contestants, then limits, then ways of running guests."""
    names = {one.name for one in (*CONTESTANTS, *GUEST_LIMITS, *WAYS)}
    assert len(set(ORDER)) == len(ORDER)
    assert set(ORDER) == names


def test_only_a_file_like_anothers_is_not_restored():
    """A snapshot made over multifd holds the same packets."""
    assert [one.name for one in CONTESTANTS if one.restore is None] == [OVER_MULTIFD]


@pytest.mark.parametrize(("word", "known"), [("--live", True), ("--live=never", False)])
def test_options_are_looked_for_before_they_are_measured(word, known, capfd):
    """An option that snapmig does not have is no error."""
    assert takes("save", word) == known
    assert capfd.readouterr() == ("", "")


def test_lz4_has_targets_of_its_own():
    """Beside mapped-ram, by its own time and not by that of deflate."""
    words = report(
        record("snapmig", wall_s=9.0), record(LZ4, wall_s=2.0), record(MAPPED, wall_s=3.0)
    )
    (line,) = [line for line in words.splitlines() if line.startswith("lz4: save to disk")]
    assert line.endswith("1.50 met")
    assert sum(line.startswith("lz4: restore") for line in words.splitlines()) == 3


def test_lz4_needs_its_package(monkeypatch):
    """That is said before a guest is started."""
    (lz4,) = [one for one in CONTESTANTS if one.name == LZ4]
    monkeypatch.setattr("tests.bench.contestants.shutil.which", lambda name: name)
    assert lz4.lacks == ""
    monkeypatch.setattr("tests.bench.contestants.find_spec", lambda _name: None)
    assert lz4.lacks == "Python package lz4"


def test_only_zeros_are_given_back(memory):
    """The present contents of a hole stay."""
    with memory.open("r+b") as file:
        file.seek(MIB)
        file.write(bytes(2 * MIB))
    content = memory.read_bytes()
    assert holes(memory) == []
    give_back(memory, [(0, 3 * MIB)])
    assert memory.read_bytes() == content
    give_back(memory, [(MIB, 3 * MIB)])
    assert holes(memory) == [(MIB, 3 * MIB)]
    assert memory.read_bytes() == content


def test_a_scan_fills_no_hole(memory):
    """The bare scan of memory leaves it as it is."""
    assert scan(memory, 2).slowest > 0
    assert holes(memory) == [(MIB, 3 * MIB)]


def test_what_was_written_is_cached(memory):
    """Memory is always in memory; a file that ends in a hole is no trouble."""
    os.truncate(memory, 5 * MIB)
    assert still_cached(memory) == 1


def test_a_quick_run_is_small():
    """Other settings win over it."""
    assert parse_arguments(["--quick"]).ram == 64 * MIB
    options = parse_arguments(["--quick", "--ram", "128M", "--rounds", "2"])
    assert (options.ram, options.rounds, options.tiny) == (128 * MIB, 2, True)


@pytest.mark.guest
@pytest.mark.sweep
def test_a_quick_run(tmp_path):
    """Each contestant saves and restores; all parameters stand in each line; nothing is left."""
    for tool in (PROGRAM, "zstd", *tiny.TOOLS):
        requires(tool)
    if find_qemu().path is None:
        requires(f"{PROGRAM} that is new enough")  # which is no program's name: never there
    command = [sys.executable, "-m", "tests.bench", "--guests", "--quick"]
    with subprocess.Popen(
        [*command, "--output-dir", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        outcome = program.end(process)
    outcome.ok(err=None)
    lines = [json.loads(line) for line in (tmp_path / "guests.jsonl").read_text().splitlines()]
    figures = {(line["operation"], line["name"], line["destination"]) for line in lines}
    names = ("snapmig", LZ4, MAPPED, ZSTD)
    saved = (*names, OVER_MULTIFD)
    assert {("save", name, place) for name in saved for place in ("shm", "disk")} <= figures
    assert {("save", name, None) for name in (BARE_CODEC, THROWN_AWAY)} <= figures
    places = ("shm", "disk, warm", "disk, cold")
    assert {("restore", name, place) for name in names for place in places} <= figures
    assert {("restore", name + PRIVATE, "shm") for name in names} <= figures
    stopped = {name for what, name, _ in figures if what == "pause"}
    assert {"snapmig", LIVE, LIVE_MULTIFD, OWN_LIVE} <= stopped
    assert (BACKGROUND in stopped) == (OWN_BACKGROUND in stopped)
    wanted = {"wall_s", "cpu_s", "jobs", "ram_bytes", "machine_cpu", "version_qemu", "git_commit"}
    assert all(wanted <= line.keys() for line in lines)
    ours = [line for line in lines if line["operation"] == "save" and line["role"] == "snapmig"]
    assert {line["name"] for line in ours} == {"snapmig", LZ4, OVER_MULTIFD}
    assert all(line["grown_bytes"] <= 0 for line in ours if line["name"] != OVER_MULTIFD)
    assert "growth of the guest's memory" in outcome.out
    assert [path.name for path in tmp_path.iterdir()] == ["guests.jsonl"]
    assert not list(Path("/dev/shm").glob(f"snapmig-bench-{process.pid}-*"))


def test_without_qemu_nothing_is_measured(tmp_path):
    """That is said, and no failure."""
    tools = tmp_path / "tools"
    tools.mkdir()
    git = shutil.which("git")
    if git:
        (tools / "git").symlink_to(git)
    done = program.call(
        [sys.executable, "-m", "tests.bench", "--guests", "--output-dir", str(tmp_path / "out")],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tools)},
    )
    done.ok(f"{PROGRAM} is not installed")
    assert json.loads((tmp_path / "out" / "guests.jsonl").read_text())["type"] == "missing"
