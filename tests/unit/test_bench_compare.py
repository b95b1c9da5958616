"""Facts about results: lines that can be read again, and the comparison of two files of them."""

import json

import pytest

from tests.bench.compare import changes, comparison, main
from tests.bench.records import Records, described, read_records


def runs(walls, name="snapmig", **fields):
    """Return a record for each round, of a save by two jobs."""
    return [
        described("save", name, number, jobs=2, wall_s=wall, **fields)
        for number, wall in enumerate(walls)
    ]


def verdicts(old, new):
    """Return what is said of the only figure."""
    (change,) = changes(runs(old), runs(new))
    return change.ratio, change.verdict


def test_records_come_back_with_their_facts(tmp_path):
    """Lines of other types are left out, and a new run replaces the file."""
    for wall in (1.0, 2.0):
        with Records(tmp_path / "out" / "results.jsonl", {"version_zstd": "1.5"}) as records:
            records.write("missing", {"name": "pigz"})
            records.keep(described("save", "snapmig", 0, jobs=2, wall_s=wall))
    (record,) = read_records([records.path])
    assert (record["wall_s"], record["version_zstd"]) == (2.0, "1.5")


def test_a_line_of_another_file_is_named(tmp_path):
    """With its place."""
    path = tmp_path / "results.jsonl"
    path.write_text('{"type": "missing"}\nsave 1.0 s\n')
    with pytest.raises(ValueError, match=r"results.jsonl: line 2: expected a record"):
        read_records([path])


@pytest.mark.parametrize(
    ("new", "ratio", "verdict"),
    [
        ([2.0, 2.1, 2.2], 2.1, "more"),
        ([0.5, 0.5, 9.0], 0.5, "within the spread"),
        ([0.5, 0.5, 0.6], 0.5, "less"),
        ([2.0, 2.2], 2.1, "too few rounds"),
    ],
)
def test_a_change_is_one_beyond_the_quartiles(new, ratio, verdict):
    """One slow round moves neither the median nor the lower quartile."""
    assert verdicts([0.9, 1.0, 1.1], new) == (pytest.approx(ratio), verdict)


def test_warm_ups_and_facts_of_the_machine_are_no_figures():
    """Also what others used of it."""
    old = [described("save", "snapmig", -1, jobs=2, wall_s=9.0), *runs([1.0], image_bytes=5)]
    assert [change.figure for change in changes(old, runs([1.0], others_cpu_s=1.0))] == ["wall_s"]


def test_what_only_one_run_has_is_named():
    """As are facts that differ."""
    old = runs([1.0], git_commit="a") + runs([1.0], "pigz -1")
    lines = comparison(old, runs([1.0], git_commit="b"))
    assert lines[0] == "git_commit: a before, b now"
    assert lines[-1] == "only in one of the files: save, pigz -1, 2 jobs"


def test_two_files_are_compared(tmp_path, capsys):
    """By their names."""
    for name, wall in (("old", 2.0), ("new", 1.0)):
        with Records(tmp_path / name, {}) as records:
            for record in runs([wall] * 3):
                records.keep(record)
    assert main([str(tmp_path / "old"), str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-2:] == ["0.500", "less"]
    (tmp_path / "new").write_text(json.dumps([]))
    assert main([str(tmp_path / "old"), str(tmp_path / "new")]) == 1
