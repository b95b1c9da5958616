"""What a type checker tells people who write programs with the package."""

import importlib.util
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import snapmig
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
NAMES = [{names}]
"""
BAD = """
import snapmig

snapmig.svae("a.ram", "a.snap")
snapmig.save("a.ram", "a.snap", job=4)
number: int = snapmig.info("a.snap").snapshot_id
snapmig.save(b"a.ram", "a.snap")
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
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, folder / "good.py", folder / "bad.py"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.stderr == ""
    # Of what it knows already mypy prints the paths of an earlier run.
    return [re.sub(r"^\S*/(?=\w+\.py:)", "", line) for line in done.stdout.splitlines()]


def test_the_packages_names_have_types(told):
    """A script that uses each public name as documented passes, strictly."""
    assert {line.split(":")[0] for line in told} == {"bad.py"}


@pytest.mark.parametrize(
    ("line", "kind"), [(4, "attr-defined"), (5, "call-arg"), (6, "assignment"), (7, "arg-type")]
)
def test_mistakes_are_found(told, line, kind):
    """A name that is none, a wrong word, and values of other types are errors."""
    found = [text for text in told if text.startswith(f"bad.py:{line}: error")]

    assert any(f"[{kind}]" in text for text in found)


def _classes(hint):
    for argument in typing.get_args(hint):
        for each in argument if isinstance(argument, list) else [argument]:
            yield from _classes(each)
    if isinstance(hint, type) and hint.__module__.startswith("snapmig."):
        yield hint.__name__


@pytest.mark.parametrize("name", [n for n in snapmig.__all__ if n != "__version__"])
def test_what_signatures_name_is_public(name):
    """Types of parameters, results and fields can be imported from the package itself."""
    thing = getattr(snapmig, name)
    if not callable(thing) or typing.get_origin(thing) is not None:
        return
    hints = typing.get_type_hints(thing)
    hints.pop("workers", None)  # made and given by the package alone
    named = {each for hint in hints.values() for each in _classes(hint)}

    assert named <= set(snapmig.__all__)
