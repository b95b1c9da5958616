"""Facts about plots: what docs/benchmarks.md shows is drawn from figures that stand beside it."""

import json
import xml.etree.ElementTree as ET

import pytest

from tests.bench.figures import FOLDER, condensed, main
from tests.bench.records import Records, described
from tests.bench.svg import Bar, Line, Panel, bars, lines

NAMES = ("files", "bandwidth", "guests", "scaling", "auto-time", "auto-size")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", NAMES)
def test_a_plot_in_the_repository_is_that_of_its_figures(name, tmp_path):
    """`make bench-plots` changes nothing; and documents show it."""
    for path in FOLDER.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert main(["--folder", str(tmp_path)]) == 0
    drawn = (tmp_path / f"{name}.svg").read_bytes()
    assert drawn == (FOLDER / f"{name}.svg").read_bytes()
    assert len(drawn) < 100 << 10
    assert f"figures/{name}.svg" in (FOLDER.parent / "benchmarks.md").read_text()


def test_a_bar_is_as_long_as_its_figure():
    """Half the seconds, half the width; names are text, whatever is in them."""
    rows = [Bar("<a>", 1.0, 0.9, 1.1, True), Bar("b", 2.0, 2.0, 2.0, False)]
    picture = ET.fromstring(bars("A & B", "note", [Panel("panel", "s", rows)]))
    widths = [float(each.get("width")) for each in picture.iter(f"{SVG}rect")]
    assert widths[0] == pytest.approx(widths[1] / 2, abs=0.1)
    assert {"<a>", "1.00 s", "2.00 s"} <= {each.text for each in picture.iter(f"{SVG}text")}


def test_twice_as_much_is_as_far_everywhere():
    """Axes are logarithmic."""
    line = Line("l", [(1, 1), (2, 2), (4, 4)])
    picture = ET.fromstring(lines("title", "note", ("x", "y"), [line]))
    (points,) = [each.get("points") for each in picture.iter(f"{SVG}polyline")]
    first, second, third = (tuple(map(float, pair.split(","))) for pair in points.split())
    for axis in (0, 1):
        assert second[axis] - first[axis] == pytest.approx(third[axis] - second[axis], abs=0.2)


def test_figures_are_medians_with_quartiles(tmp_path):
    """Of each contestant, with the facts that they depend on."""
    known = {"image": "guest", "git_commit": "c", "machine_cpu": "a", "version_zstd": "1.5"}
    with Records(tmp_path / "results.jsonl", known) as records:
        for number, wall in enumerate((1.0, 2.0, 3.0)):
            fields = {"role": "peer", "destination": "shm", "wall_s": wall}
            records.keep(described("save", "zstd -1", number, jobs=2, **fields))
    found = json.loads(json.dumps(condensed(records.path)))
    (row,) = found["rows"]
    assert (row["label"], row["wall_s"]) == ("zstd -1 (1.5)", [2.0, 1.5, 2.5])
    assert found["facts"] == known
