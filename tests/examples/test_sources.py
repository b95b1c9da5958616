"""The source distribution: all that its own files speak of."""

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Give the unpacked source distribution."""
    folder = tmp_path_factory.mktemp("sdist")
    (archive,) = _build(ROOT, folder, "sdist")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def _build(root, folder, *kinds, **options):
    kinds = [word for kind in kinds for word in ("-t", kind)]
    command = [sys.executable, "-m", "hatchling", "build", *kinds, "-d", folder]
    subprocess.run(command, cwd=root, check=True, capture_output=True, **options)
    return sorted(folder.glob("snapmig-*.*"))


def test_archives_of_a_release_can_be_built_again(sources, tmp_path):
    """From its own sources, in another folder on another day, come the same bytes."""
    first, second = tmp_path / "first", tmp_path / "second"
    _build(ROOT, first, "sdist", "wheel")
    for path in sources.rglob("*"):
        os.utime(path, (1e9, 1e9))
    _build(sources, second, "sdist", "wheel", umask=0o077)
    digests = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        for folder in (first, second)
    ]

    assert len(digests[0]) == 2
    assert digests[0] == digests[1]


def test_links_of_its_documents_lead_to_files(sources):
    """Each relative link of README and the other documents is to a file that is there."""
    documents = [*sources.glob("*.md"), *(sources / "docs").rglob("*.md")]
    links = [
        (path.name, link, path.parent / link)
        for path in documents
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
    ]

    assert {"README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"} <= {path.name for path in documents}
    assert len(links) > 10
    assert [(name, link) for name, link, target in links if not target.exists()] == []


def test_what_its_makefile_calls_is_there(sources):
    """Programs, folders and modules that make starts are in it."""
    text = (sources / "Makefile").read_text()
    paths = set(re.findall(r"(?<![\w/.$(])(?:\.ci|tests|examples|docs)/[\w./-]+", text))
    modules = set(re.findall(r"-m (tests(?:\.\w+)+)", text))
    found = {path.rstrip("*") for path in paths}
    missing = [path for path in found if not list(sources.glob(f"{path}*"))]
    missing += [name for name in modules if not _module(sources, name)]

    assert {".ci/install-tools", ".ci/root", "examples/demo.sh"} <= found
    assert (len(modules) >= 3, missing) == (True, [])


def _module(sources, name):
    path = sources.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__main__.py").exists()


def test_programs_of_the_sources_can_be_run(sources):
    """A program started by make is executable."""
    programs = [*(sources / ".ci").iterdir(), sources / "examples" / "demo.sh"]

    assert [path.name for path in programs if not path.stat().st_mode & 0o100] == []


def test_one_extra_has_all_others():
    """snapmig[all] installs what any part of the package may need."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (everything,) = extras.pop("all")

    assert everything == f"snapmig[{','.join(sorted(extras))}]"
