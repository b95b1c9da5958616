"""Facts about the example reader and snapshots that build on others."""

import gzip
import hashlib

import pytest

import snapmig
from examples import read_snapshot
from tests.support import kinds, ram
from tests.support.golden_chains import BAD, GOOD, HERE
from tests.support.golden_keys import in_words

OLD = ram.text(20).tobytes() + ram.mixed(600_000, 3)
NEW = (
    OLD[:5000]
    + b"changed"
    + OLD[5007:9000]
    + b"again"
    + OLD[9005:300_000]
    + ram.noise(10).tobytes()
    + OLD[340_960:]
)
NEWEST = NEW[:200_000] + bytes(100_000) + NEW[300_000:]


def run(*arguments):
    """Run the example in this process."""
    return read_snapshot.main([str(argument) for argument in arguments])


@pytest.fixture
def unpack(tmp_path):
    """Return a function that unpacks a golden folder, and gives the youngest snapshot in it."""

    def unpacked(name):
        for path in (HERE / name).iterdir():
            (tmp_path / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        return tmp_path / "child.snap"

    return unpacked


def save(folder, layout):
    """Save a chain of three, as 1, 2 and 3."""
    for number, content in enumerate((OLD, NEW, NEWEST), 1):
        ram.write(folder / "image", content)
        parent = folder / f"{number - 1}" if number > 1 else None
        way = {"packet_size": "64K", "layout": layout, "jobs": 1}
        way |= {"parent": parent, "deltas": True}
        snapmig.save(folder / "image", folder / f"{number}", format="raw", **way)


@pytest.mark.parametrize("layout", ["fixed", "packed"])
def test_reads_what_save_writes(layout, tmp_path):
    """The example restores a chain of what snapmig saves."""
    save(tmp_path, layout)
    code = run(tmp_path / "3", "--output", tmp_path / "restored")

    assert kinds.DELTA in {kind for each in kinds.read(tmp_path / "2") for kind in each.kinds}
    assert (code, (tmp_path / "restored").read_bytes()) == (0, NEWEST)


def test_verifies_a_chain(tmp_path):
    """The example finds nothing wrong with a chain."""
    save(tmp_path, "packed")

    assert run(tmp_path / "3") == 0


def test_parents_may_be_named(tmp_path):
    """Parents that are in other folders are given on the command line."""
    save(tmp_path, "packed")
    (tmp_path / "old").mkdir()
    for name in "12":
        (tmp_path / name).rename(tmp_path / "old" / name)
    missing = run(tmp_path / "3", "--output", tmp_path / "restored")
    named = [word for name in "12" for word in ("--parent", tmp_path / "old" / name)]
    code = run(tmp_path / "3", *named, "--output", tmp_path / "restored")

    assert (missing, code, (tmp_path / "restored").read_bytes()) == (1, 0, NEWEST)


@pytest.mark.parametrize(("name", "digest"), GOOD)
def test_example_restores(name, digest, unpack, tmp_path):
    """The example makes the image that a good chain holds."""
    run(unpack(name), "--output", tmp_path / "image", *in_words(name))

    assert digest == hashlib.sha256((tmp_path / "image").read_bytes()).hexdigest()


@pytest.mark.parametrize(("name", "code"), [(name, code) for name, code, _ in BAD])
def test_example_refuses(name, code, unpack, tmp_path):
    """The example refuses a bad chain with the exit code for its fault, and leaves no file."""
    path = unpack(name)
    before = sorted(tmp_path.iterdir())

    assert code == run(path, "--output", tmp_path / "image", *in_words(name))
    assert before == sorted(tmp_path.iterdir())
