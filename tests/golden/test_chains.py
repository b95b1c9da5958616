"""Facts about chains made by an independent writer: read right, or refused with a sentence."""

import contextlib
import gzip
import hashlib

import pytest

import snapmig
from snapmig.errors import SnapmigError
from tests.support.golden_chains import BAD, GOOD, HERE, ROWS
from tests.support.golden_keys import keys_of

# A sealed chain is merged and continued by those who say how the new snapshot is sealed.
PLAIN = [row for row in GOOD if not row[0].startswith("sealed-")]
PLAIN_BAD = [row[0] for row in BAD if not row[0].startswith("sealed-")]
REFUSED = [("restore", name) for name, _, _ in BAD] + [("merge", name) for name in PLAIN_BAD]


@pytest.fixture
def unpack(tmp_path_factory):
    """Return a function that unpacks a golden folder, and gives the youngest snapshot in it."""

    def unpacked(name):
        folder = tmp_path_factory.mktemp("golden")
        for path in (HERE / name).iterdir():
            (folder / path.name.removesuffix(".gz")).write_bytes(gzip.decompress(path.read_bytes()))
        return folder / "child.snap"

    return unpacked


def sha256(content):
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def test_the_table_names_the_folders():
    """The table names the folders that are there, each once."""
    assert sorted(row[0] for row in ROWS) == sorted(p.name for p in HERE.iterdir() if p.is_dir())


@pytest.mark.parametrize(("name", "digest"), GOOD)
def test_snapmig_restores(name, digest, unpack):
    """Restore makes the image that a good chain holds."""
    path = unpack(name)
    snapmig.restore(path, path.with_name("image"), jobs=1, **keys_of(name))

    assert digest == sha256(path.with_name("image").read_bytes())


@pytest.mark.parametrize(("name", "digest"), GOOD)
def test_snapmig_reads_at_random(name, digest, unpack):
    """An open snapshot reads as the image that its chain holds."""
    with snapmig.open(unpack(name), **keys_of(name)) as snapshot:
        assert digest == sha256(snapshot.read(0, len(snapshot)))


@pytest.mark.parametrize("name", [name for name, _ in GOOD if name != "hint-damaged"])
def test_snapmig_verifies(name, unpack):
    """Verify finds nothing wrong in a good chain."""
    assert snapmig.verify(unpack(name), jobs=1, **keys_of(name)).problems == ()


def test_a_damaged_hint_is_found(unpack):
    """Nobody needs the name of the parent's file to restore, but verify tells of its damage."""
    (problem,) = snapmig.verify(unpack("hint-damaged"), jobs=1).problems

    assert "attachment 'source/parent'" in problem


@pytest.mark.parametrize(("name", "digest"), PLAIN)
def test_snapmig_merges(name, digest, unpack):
    """Merge makes a snapshot of the same contents that stands alone."""
    path = unpack(name)
    snapmig.merge(path, path.with_name("merged"), jobs=1)
    for other in path.parent.glob("*.snap"):
        other.unlink()
    with snapmig.open(path.with_name("merged")) as snapshot:
        assert digest == sha256(snapshot.read(0, len(snapshot)))


@pytest.mark.parametrize("deltas", [None, True])
@pytest.mark.parametrize("name", [name for name, _ in PLAIN])
def test_a_save_on_a_good_chain_is_what_was_saved(name, deltas, unpack):
    """Pages that are taken from a good chain, by whichever comparison, are the right ones."""
    parent = unpack(name)
    with snapmig.open(parent) as snapshot:
        blocks = snapshot.blocks
        content = bytearray(snapshot.read(0, len(snapshot)))
    content[50::9001] = bytes(len(content[50::9001]))
    start, files = 0, []
    for block in blocks:
        files.append((block, parent.with_name(f"image-{block.name}")))
        files[-1][1].write_bytes(content[start : start + block.size])
        start += block.size
    snapmig.save(files, parent.with_name("new"), parent=parent, deltas=deltas, jobs=1)
    with snapmig.open(parent.with_name("new")) as snapshot:
        assert snapshot.read(0, len(snapshot)) == bytes(content)


@pytest.mark.parametrize(("name", "code", "word"), BAD)
def test_restore_refuses(name, code, word, unpack):
    """Restore refuses a bad chain with the exit code for its fault, and says what it is."""
    path = unpack(name)
    with pytest.raises(SnapmigError, match=word) as caught:
        snapmig.restore(path, path.with_name("image"), jobs=1, **keys_of(name))

    assert code == caught.value.exit_code


@pytest.mark.parametrize(("verb", "name"), REFUSED)
def test_a_refusal_leaves_no_file(verb, name, unpack):
    """Neither restore nor merge leaves a file behind when it refuses a bad chain."""
    path = unpack(name)
    before = sorted(path.parent.iterdir())
    with contextlib.suppress(SnapmigError):
        getattr(snapmig, verb)(path, path.with_name("new"), jobs=1, **keys_of(name))

    assert before == sorted(path.parent.iterdir())


@pytest.mark.parametrize(("name", "code", "word"), BAD)
def test_verify_refuses(name, code, word, unpack):
    """Verify says what is wrong with a bad chain, with the exit code for its fault."""
    try:
        found = snapmig.verify(unpack(name), jobs=1, **keys_of(name))
    except SnapmigError as error:  # what is missing can't be damaged
        assert (code, True) == (error.exit_code, word in str(error))  # noqa: PT017
    else:
        assert (code, any(word in problem for problem in found.problems)) == (found.exit_code, True)


@pytest.mark.parametrize("name", PLAIN_BAD)
def test_a_save_on_a_bad_chain_is_refused_or_right(name, unpack):
    """A save never makes a snapshot with other contents out of a bad chain."""
    parent = unpack(name)
    image = parent.with_name("image")
    image.write_bytes(b"".join(b"%d" % n for n in range(50_000)).ljust(200_604)[:200_604])
    with contextlib.suppress(SnapmigError):
        snapmig.save(image, parent.with_name("new"), parent=parent, jobs=1)
        with snapmig.open(parent.with_name("new")) as snapshot:
            assert snapshot.read(0, len(snapshot)) == image.read_bytes()
