"""The Debian package: its files agree with the program's."""

import re
import tomllib
from pathlib import Path

import snapmig
from tests.support import program

ROOT = Path(__file__).parents[2]
DEBIAN = ROOT / ".ci" / "debian"


def test_its_version_is_the_programs():
    """The newest entry of its changelog is about this version."""
    first = (DEBIAN / "changelog").read_text().splitlines()[0]

    assert re.match(rf"snapmig \({re.escape(snapmig.__version__)}-\d+\) ", first)


def test_it_asks_for_the_oldest_python_that_the_program_accepts():
    """The package can't be built where the program would refuse to be installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (oldest,) = re.findall(r"python3 \(>= ([\d.]+)\)", (DEBIAN / "control").read_text())

    assert project["requires-python"] == f">={oldest}"


def test_a_build_without_sources_says_how_to_make_them(tmp_path):
    """Where the source distribution is missing, its target of make is named."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "build-deb").write_bytes((ROOT / ".ci" / "build-deb").read_bytes())

    program.call(["bash", tmp_path / ".ci" / "build-deb"]).fails(1, "make dist")
