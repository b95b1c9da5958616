"""A type checker's view of programs written with the package."""

import dataclasses
import importlib.util
import inspect
import re
import sys
import typing
from pathlib import Path

import pytest

import snapmig
from snapmig import backup
from snapmig.container.format import Layout
from snapmig.encodings.compressions import COMPRESSIONS
from snapmig.encodings.engines import ENGINES, find_engine
from snapmig.images.formats import format_names
from snapmig.operations.options.engine import AUTO
from snapmig.operations.options.parse import WINDOWS
from tests.support import program
from tests.support.requirements import lacks

ROOT = Path(__file__).parents[2]
GOOD = """
import snapmig
from snapmig import MonitorError, SaveResult, Scheduler, open as open_snapshot

def bar(progress: snapmig.Progress) -> None:
    print(progress.done_bytes)

result: SaveResult = snapmig.save("a.ram", "a.snap", jobs=4, progress=bar)
with open_snapshot("a.snap") as snapshot:
    first: bytes = snapshot.read(0, 16)
try:
    snapmig.batch("jobs.toml", scheduler=Scheduler("tcp://127.0.0.1:8786"))
except MonitorError as error:
    code: int = error.exit_code

compression: snapmig.CompressionName = "zstd"
with snapmig.WorkerGroup(4, at_once=2, bwlimit="200M") as group:
    snapmig.save("a.ram", "b.snap", compression=compression, layout="packed", workers=group)
night: snapmig.backup.Outcome[snapmig.backup.BackupResult] = snapmig.backup.run("backup.toml")
failed: list[str] = [each.guest for each in night.results if each.result == "failed"]
NAMES = [{names}]
"""
BAD = """
import snapmig

snapmig.svae("a.ram", "a.snap")
snapmig.save("a.ram", "a.snap", job=4)
number: int = snapmig.info("a.snap").snapshot_id
snapmig.save(b"a.ram", "a.snap")
snapmig.save("a.ram", "a.snap", compression="gzip")
number = snapmig.backup.list("backup.toml").results[0].snapshot
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Give what mypy says of both scripts, by script: the lines and kinds of errors."""
    if importlib.util.find_spec("mypy") is None:
        lacks("mypy")
    folder = tmp_path_factory.mktemp("types")
    names = ", ".join(f"snapmig.{name}" for name in snapmig.__all__)
    (folder / "good.py").write_text(GOOD.format(names=names))
    (folder / "bad.py").write_text(BAD)
    options = ("--strict", "--no-error-summary", "--cache-dir", ROOT / ".mypy_cache")
    done = program.call(
        [sys.executable, "-m", "mypy", *options, folder / "good.py", folder / "bad.py"], cwd=ROOT
    )
    assert done.err == ""
    # Of what it knows already mypy prints the paths of an earlier run.
    return [re.sub(r"^\S*/(?=\w+\.py:)", "", line) for line in done.lines]


def test_the_packages_names_have_types(told):
    """A script that uses each public name as documented passes, strictly."""
    assert {line.split(":")[0] for line in told} == {"bad.py"}


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (4, "attr-defined"),
        (5, "call-arg"),
        (6, "assignment"),
        (7, "arg-type"),
        (8, "arg-type"),
        (9, "assignment"),
    ],
)
def test_mistakes_are_found(told, line, kind):
    """A name that is none, a wrong word, and values of other types are errors."""
    found = [text for text in told if text.startswith(f"bad.py:{line}: error")]

    assert any(f"[{kind}]" in text for text in found)


def _classes(hint):
    for argument in typing.get_args(hint):
        for each in argument if isinstance(argument, list) else [argument]:
            yield from _classes(each)
    origin = typing.get_origin(hint) or hint
    if isinstance(origin, type) and origin.__module__.startswith("snapmig."):
        yield origin


def _signatures(thing):
    # A function, or a class with its fields, its constructor, and its public methods.
    yield typing.get_type_hints(thing)
    if inspect.isclass(thing):
        for name, member in vars(thing).items():
            method = getattr(member, "fget", member)
            made = name == "__init__" and not dataclasses.is_dataclass(thing)  # else: its fields
            if inspect.isfunction(method) and (made or not name.startswith("_")):
                yield typing.get_type_hints(method)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (module, name)
        for module in (snapmig, backup)
        for name in module.__all__
        if inspect.isfunction(getattr(module, name)) or inspect.isclass(getattr(module, name))
    ],
)
def test_what_signatures_name_is_public(module, name):
    """Types of parameters, results, fields and methods can be imported from the package itself."""
    public = [getattr(home, each) for home in (snapmig, backup) for each in home.__all__]
    named = {
        each
        for hints in _signatures(getattr(module, name))
        for hint in hints.values()
        for each in _classes(hint)
    }

    assert [each.__name__ for each in named if each not in public] == []


@pytest.mark.parametrize(
    ("names", "known"),
    [
        (snapmig.AcceleratorName, {AUTO, *ENGINES}),
        (snapmig.CompressionName, {AUTO, *COMPRESSIONS}),
        (snapmig.FormatName, set(format_names())),
        (
            snapmig.HuffmanName,
            {each for name in ENGINES for each in find_engine(name).facts().huffman},
        ),
        (snapmig.LayoutName, {layout.name.lower() for layout in Layout}),
        (snapmig.WindowName, set(WINDOWS)),
    ],
)
def test_types_of_words_have_all_words(names, known):
    """A word that the verbs take passes the type checker, and no other one does."""
    assert set(typing.get_args(names)) == known


@pytest.mark.parametrize("module", [snapmig, backup])
def test_public_things_have_docstrings(module):
    """Every public function and class says what it does."""
    things = [getattr(module, name) for name in module.__all__]

    assert [
        thing
        for thing in things
        if (inspect.isfunction(thing) or inspect.isclass(thing)) and not thing.__doc__
    ] == []
