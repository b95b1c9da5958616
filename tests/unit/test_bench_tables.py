"""Facts about what the benchmark concludes: its targets, and which compression to take when."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.choices import Choice, Cost, Range, choice_rows, choices, fastest
from tests.bench.summary import Context, Results
from tests.bench.targets import LARGER, TARGETS, measured, target_rows

MIB = 1 << 20
CONTEXT = Context({}, {"shm": "tmpfs"}, (2,), 1)
SPEED = st.floats(0.01, 100)


def record(name, operation="save", role="peer", **fields):
    """One record of a run to tmpfs."""
    known = {
        "operation": operation,
        "destination": "shm",
        "role": role,
        "jobs": 2,
        "order": 0,
        "round": 0,
        "warm_up": False,
        "wall_s": 1.0,
        "cpu_s": 2.0,
        "inner_s": None,
        "output_bytes": 100 * MIB,
        "disk_bytes": 100 * MIB,
    }
    return {**known, "name": name, **fields}


def own(name, operation="save", **fields):
    """One record of snapmig."""
    return record(name, operation, "snapmig", **fields)


def cells(*records):
    """Return the table of targets by its words."""
    rows = list(target_rows(Results(records), CONTEXT, 2))
    return {row[0]: row[1:] for row in rows[1:]}


def test_targets_compare_a_format_with_its_tool():
    """Time of the tool over time of snapmig."""
    found = cells(
        own("snapmig zstd 1", wall_s=2.0),
        record("zstd -1", wall_s=3.0),
        own("snapmig lz4 1", "restore", wall_s=1.0),
        record("lz4 -1", "restore", wall_s=1.5),
    )
    assert found["zstd 1: save / zstd -1"][:2] == ["1.30", "1.50 met"]
    assert found["lz4 1: restore / lz4 -d"][:2] == ["2.00", "1.50 short by 25 %"]


@pytest.mark.parametrize(("disk", "met"), [(102, True), (103, False)])
def test_the_size_on_disk_counts_against_the_length_of_the_file(disk, met):
    """A snapshot's holes take nothing; a program's file has none, and its blocks do not matter."""
    found = cells(
        own("snapmig zstd 1", output_bytes=900 * MIB, disk_bytes=disk * MIB),
        record("zstd -1", output_bytes=100 * MIB, disk_bytes=700 * MIB),
    )
    assert ("met" in found["zstd 1: size of zstd -1's file / on disk"][1]) == met


def test_what_was_not_measured_is_no_verdict():
    """A tool that is missing is said; a format that was not asked for has no row."""
    found = cells(own("snapmig lz4 1"))
    assert found == {"lz4 1: save / lz4 -1": ["1.50", "not measured", ""]}


def test_each_target_is_about_rows_that_exist():
    """Made-up figures of all rows that it names give a ratio."""
    for target in TARGETS:
        records = [own(target.own, target.operation, wall_s=2.0)]
        records += [record(name, target.operation) for name in target.against]
        expected = 1.0 if "size" in target.words else len(target.against) / 2
        assert measured(Results(records), target, "shm", 2) == expected


def test_targets_are_those_agreed():
    """By how much snapmig is to be faster than each format's own tool, and how much larger."""
    least = {target.words: target.least for target in TARGETS}
    assert least["zstd 1: save / zstd -1"] == 1.3
    assert least["zstd 1: restore / zstd -d"] == 1.5
    assert least["zstd 1: size of zstd -1's file / on disk"] == 1 / LARGER == 1 / 1.02
    assert least["lz4 1: save / lz4 -1"] == 1.5
    assert least["lz4 1: restore / lz4 -d"] == 2.0
    assert least["save / igzip -1"] == 1.4
    assert least["save / pigz -1"] == 6.0


def test_a_slow_place_favours_what_is_small():
    """The larger and faster takes over at its bytes over the seconds of the smaller."""
    found = fastest({"small": Cost(4, 100), "large": Cost(1, 400), "between": Cost(2, 200)})
    assert found == {
        "small": Range(0, 50),
        "between": Range(50, 200),
        "large": Range(200, math.inf),
    }


def test_what_is_larger_and_slower_is_never_taken():
    """Also where only one of both is worse."""
    found = fastest({"good": Cost(1, 100), "large": Cost(1, 101), "slow": Cost(2, 100)})
    assert found == {"good": Range(0, math.inf), "large": None, "slow": None}
    assert fastest({}) == {}


@given(st.lists(st.tuples(SPEED, SPEED), min_size=1, max_size=6), SPEED)
def test_no_other_is_faster_inside_a_range(pairs, bandwidth):
    """Against the definition: the longer of computing and moving, at any bandwidth."""
    costs = {str(number): Cost(*pair) for number, pair in enumerate(pairs)}
    times = {name: max(cost.seconds, cost.size / bandwidth) for name, cost in costs.items()}
    ranges = fastest(costs)
    inside = [name for name, at in ranges.items() if at and at.low <= bandwidth <= at.high]
    assert inside
    assert all(times[name] == pytest.approx(min(times.values())) for name in inside)


def test_choices_are_medians_of_snapmigs_rows():
    """Runs of others, warm-ups and missing measurements are left out."""
    found = choices(
        Results(
            [
                *(own("snapmig", wall_s=wall, round=n) for n, wall in enumerate((5.0, 3.0, 4.0))),
                own("snapmig", wall_s=90.0, warm_up=True),
                own("snapmig", "restore", wall_s=2.0, disk_bytes=7),
                own("snapmig lz4 1", wall_s=1.0, disk_bytes=200 * MIB),
                record("zstd -1", wall_s=0.1),
            ]
        ),
        CONTEXT,
    )
    assert [one.name for one in found] == ["snapmig", "snapmig lz4 1"]
    zlib, lz4 = found
    assert zlib.seconds == {"save": 4.0, "restore": 2.0}
    assert zlib.disk_bytes == 100 * MIB
    assert zlib.fastest == {"save": Range(0, 50 * MIB), "restore": Range(0, math.inf)}
    assert (lz4.seconds["restore"], lz4.fastest["restore"]) == (None, None)


def test_ranges_are_words():
    """In MiB per second."""
    ends = {"any": (0, math.inf), "below 5": (0, 5), "5 to 9": (5, 9), "above 9": (9, math.inf)}
    for words, (low, high) in ends.items():
        at = {"save": Range(low * MIB, high * MIB), "restore": None}
        both = {"save": 1.0, "restore": 2.0}
        one = Choice("snapmig lz4 1", "lz4", 1, both, both, 10.0 * MIB, at)
        head, row = choice_rows([one])
        assert len(head) == len(row)
        assert row == ["lz4 1", "1.000", "2.000", "10.0", "1.00", "2.00", words, "never"]


def test_a_choice_is_a_line_of_json():
    """An end that is open is null, since JSON has no infinity."""
    both = {"save": 1.0, "restore": None}
    one = Choice(
        "snapmig", "zlib", 1, both, both, 5.0, {"save": Range(3, math.inf), "restore": None}
    )
    line = json.loads(json.dumps(one.record(), allow_nan=False))
    assert (line["type"], line["fastest"]) == ("choice", {"save": [3, None], "restore": None})
