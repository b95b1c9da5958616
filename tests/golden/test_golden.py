import contextlib
import gzip
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import pytest

import snapmig
from examples import read_snapshot
from snapmig.errors import SnapmigError
from tests.support.golden_keys import in_words, keys_of

HERE = Path(__file__).parent
IMAGES = [line.split("  ")[::-1] for line in (HERE / "good/sha256sums").read_text().splitlines()]
REFUSALS = [line.split("\t") for line in (HERE / "bad/refusals.tsv").read_text().splitlines()[1:]]
GOOD = [name for name, _ in IMAGES]
BAD = [name for name, _, _, _ in REFUSALS]
CODES = [(name, int(code)) for name, code, _, _ in REFUSALS]
WORDS = [(name, word) for name, _, _, word in REFUSALS]
# Whoever restores RAM needs neither an attachment nor the digest of the whole index.
RESTORED = {name for name, _, found_by, _ in REFUSALS if found_by != "verify"}
RESTORE_CODES = [row for row in CODES if row[0] in RESTORED]
RESTORE_WORDS = [row for row in WORDS if row[0] in RESTORED]
RESTORE_BAD = [row[0] for row in RESTORE_CODES]
# The example reader needs a newer Python for packets that are zstd frames.
ZSTD = {name for name in GOOD if "all-encodings" in name or "zstd" in name}
EXAMPLE_IMAGES = [row for row in IMAGES if read_snapshot.zstd or row[0] not in ZSTD]
FRAMES = {name for name, _, _, word in REFUSALS if word == "zstd frame"} | {
    "zstd-digest-wrong",
    "zstd-of-other-contents",
}
EXAMPLE_CODES = [row for row in CODES if read_snapshot.zstd or row[0] not in FRAMES]
EXAMPLE_WORDS = [row for row in WORDS if read_snapshot.zstd or row[0] not in FRAMES]


@pytest.fixture
def folder(tmp_path_factory):
    """Make an empty folder whose path has no word of a message in it."""
    return tmp_path_factory.mktemp("golden")


@pytest.fixture
def unpack(folder):
    """Return a function that unpacks a golden file into the folder."""

    def unpacked(kind, name):
        path = folder / "file"
        path.write_bytes(gzip.decompress((HERE / kind / f"{name}.snap.gz").read_bytes()))
        return path

    return unpacked


def sha256(path):
    """Return the SHA-256 of a file in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("kind", "names"), [("good", GOOD), ("bad", BAD)])
def test_tables_name_the_files(kind, names):
    """The tables name the files that are there, each once."""
    files = [path.name.removesuffix(".snap.gz") for path in (HERE / kind).glob("*.gz")]
    assert sorted(names) == sorted(files)


@pytest.mark.parametrize(("name", "digest"), IMAGES)
def test_snapmig_restores(name, digest, unpack, folder):
    """Restore makes the image that a good snapshot holds."""
    snapmig.restore(unpack("good", name), folder / "image", jobs=1, **keys_of(name))
    assert digest == sha256(folder / "image")


@pytest.mark.parametrize(("name", "digest"), IMAGES)
def test_snapmig_reads_at_random(name, digest, unpack):
    """An open snapshot reads as the image that it holds."""
    with snapmig.open(unpack("good", name), **keys_of(name)) as snapshot:
        image = snapshot.read(0, len(snapshot))
    assert digest == hashlib.sha256(image).hexdigest()


@pytest.mark.parametrize("name", GOOD)
def test_snapmig_verifies(name, unpack):
    """Verify finds nothing wrong in a good snapshot."""
    assert snapmig.verify(unpack("good", name), jobs=1, **keys_of(name)).problems == ()


@pytest.mark.parametrize("name", GOOD)
def test_snapmig_verifies_quickly(name, unpack):
    """A quick verification finds nothing wrong in a good snapshot."""
    found = snapmig.verify(unpack("good", name), jobs=1, quick=True, **keys_of(name))
    assert found.problems == ()


@pytest.mark.parametrize(("name", "digest"), EXAMPLE_IMAGES)
def test_example_restores(name, digest, unpack, folder):
    """The example reader makes the image that a good snapshot holds."""
    path, image = str(unpack("good", name)), str(folder / "image")
    read_snapshot.main([path, "--output", image, *in_words(name)])
    assert digest == sha256(folder / "image")


@pytest.mark.parametrize("name", [name for name, _ in EXAMPLE_IMAGES])
def test_example_verifies(name, unpack):
    """The example reader finds nothing wrong in a good snapshot."""
    assert read_snapshot.main([str(unpack("good", name)), *in_words(name)]) == 0


@dataclass(frozen=True)
class Refused:
    """The end of a restore of a bad snapshot, and of its verification."""

    error: SnapmigError | None
    left: list[str]
    found: SnapmigError | snapmig.VerifyResult

    @property
    def first(self) -> str:
        """What a verification says first; without the right key it is an error."""
        return self.found.problems[0] if hasattr(self.found, "problems") else str(self.found)


def refusal(verb, *arguments, **options):
    """Return the error of a verb, or what it returns."""
    try:
        return verb(*arguments, **options)
    except SnapmigError as error:
        return error


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """Give a function that restores and verifies a bad snapshot, once."""
    done = {}

    def refuse(name):
        if name not in done:
            folder = tmp_path_factory.mktemp("bad")
            path = folder / "file"
            path.write_bytes(gzip.decompress((HERE / "bad" / f"{name}.snap.gz").read_bytes()))
            error = refusal(snapmig.restore, path, folder / "image", jobs=1, **keys_of(name))
            left = [item.name for item in folder.iterdir()]
            found = refusal(snapmig.verify, path, jobs=1, **keys_of(name))
            done[name] = Refused(error, left, found)
        return done[name]

    return refuse


@pytest.mark.parametrize(("name", "code"), RESTORE_CODES)
def test_restore_refuses(name, code, refused):
    """Restore refuses a bad snapshot with the exit code for its fault."""
    assert code == refused(name).error.exit_code


@pytest.mark.parametrize(("name", "word"), RESTORE_WORDS)
def test_restore_names_the_fault(name, word, refused):
    """Restore says what is wrong with a bad snapshot."""
    assert word.lower() in str(refused(name).error).lower()


@pytest.mark.parametrize("name", RESTORE_BAD)
def test_restore_leaves_no_file(name, refused):
    """Restore leaves no file behind when it refuses a bad snapshot."""
    assert refused(name).left == ["file"]


@pytest.mark.parametrize(("name", "code"), CODES)
def test_verify_refuses(name, code, refused):
    """Verify refuses a bad snapshot with the exit code for its fault."""
    assert code == refused(name).found.exit_code


@pytest.mark.parametrize(("name", "word"), WORDS)
def test_verify_names_the_fault(name, word, refused):
    """Verify says first what is wrong with a bad snapshot."""
    assert word.lower() in refused(name).first.lower()


@pytest.mark.parametrize("name", sorted(ZSTD))
def test_example_says_what_it_lacks(name, unpack, folder, monkeypatch, capsys):
    """Without a zstd decoder the example reader says which encoding it can't decode."""
    monkeypatch.setattr(read_snapshot, "zstd", None)
    path, image = str(unpack("good", name)), str(folder / "image")
    code = read_snapshot.main([path, "--output", image, *in_words(name)])
    assert (code, (folder / "image").exists()) == (4, False)
    assert "4, zstd, for which this reader needs Python 3.14" in capsys.readouterr().err


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """Give a function that has the example reader verify a bad snapshot, once."""
    folder, done = tmp_path_factory.mktemp("golden"), {}

    def read(name):
        if name not in done:
            path, said = folder / "file", io.StringIO()
            path.write_bytes(gzip.decompress((HERE / "bad" / f"{name}.snap.gz").read_bytes()))
            with contextlib.redirect_stderr(said):
                done[name] = (read_snapshot.main([str(path), *in_words(name)]), said.getvalue())
        return done[name]

    return read


@pytest.mark.parametrize(("name", "code"), EXAMPLE_CODES)
def test_example_refuses(name, code, example):
    """The example reader refuses a bad snapshot with the exit code for its fault."""
    assert code == example(name)[0]


@pytest.mark.parametrize(("name", "word"), EXAMPLE_WORDS)
def test_example_names_the_fault(name, word, example):
    """The example reader says what is wrong with a bad snapshot."""
    assert word.lower() in example(name)[1].lower()


@pytest.mark.parametrize("name", RESTORE_BAD)
def test_example_leaves_no_file(name, unpack, folder):
    """The example reader leaves no file behind when it refuses a bad snapshot."""
    path = unpack("bad", name)
    read_snapshot.main([str(path), "--output", str(folder / "image"), *in_words(name)])
    assert [path] == list(folder.iterdir())
