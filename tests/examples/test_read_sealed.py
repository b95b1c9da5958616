"""Facts about the example reader and sealed snapshots: keys, and what is said without them."""

import gzip
import sys
from pathlib import Path

import pytest

from examples import read_snapshot
from tests.support import program
from tests.support.builders import DEFLATE, Attachment, Block, Snapshot, noise, text
from tests.support.golden_keys import IDENTITY, KEY_FILE, PASSPHRASE
from tests.support.sealing import ENCRYPTED, PART, SIGNED, KeySlot, Sealing
from tests.support.sealing import KEY_FILE as BY_KEY_FILE

GOLDEN = Path(__file__).parents[1] / "golden" / "good"
KEY = ("--key-file", KEY_FILE)
LARGE = noise(2 * PART + 1000)


def run(*arguments):
    """Run the example in this process."""
    return read_snapshot.main([str(argument) for argument in arguments])


@pytest.fixture
def unpack(tmp_path):
    """Return a function that unpacks a golden file."""

    def unpacked(name):
        path = tmp_path / name
        path.write_bytes(gzip.decompress((GOLDEN / f"{name}.snap.gz").read_bytes()))
        return path

    return unpacked


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a snapshot sealed for the golden key file."""

    def written(kind=ENCRYPTED, changes=None, **fields):
        slots = {0: KeySlot(BY_KEY_FILE, KEY_FILE.read_bytes())}
        sealing = Sealing(kind, slots, changes=changes or {})
        built = Snapshot([Block("ram", text(5000))], sealing=sealing, **fields)
        path = tmp_path / "snapshot"
        path.write_bytes(built.build())
        return path

    return written


@pytest.mark.parametrize(
    "option", [(), ("--info",), ("--output", "image"), ("--attachment", "raw")]
)
def test_an_encrypted_one_takes_a_key(option, unpack, tmp_path, monkeypatch, capsys):
    """Without a key an encrypted snapshot is a failure of one sentence, and leaves no file."""
    monkeypatch.chdir(tmp_path)
    code = run(unpack("sealed-encrypted-attachments"), *option)

    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (1, 1)
    assert err.endswith("The snapshot is encrypted: it takes a passphrase or another key.\n")
    assert not (tmp_path / "image").exists()


def test_a_signed_one_is_read_without_a_key(unpack, tmp_path, capsys):
    """Without a key a signed snapshot is read, with a note that nothing of it is proved."""
    path = unpack("sealed-signed-mixed")
    sealed = run(path, "--output", tmp_path / "one"), capsys.readouterr().err
    run(unpack("mixed"), "--output", tmp_path / "other")

    assert sealed == (0, f"{path}: Without a key nothing of it is proved.\n")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_a_right_key_is_no_word(unpack, capsys):
    """With its key a signed snapshot is read, and nothing is said."""
    assert run(unpack("sealed-signed-mixed"), *KEY, "--info") == 0
    assert capsys.readouterr().err == ""


def test_a_key_for_one_that_is_not_sealed(unpack, capsys):
    """A key for a snapshot that is not sealed is read with a note: it may have been replaced."""
    path = unpack("mixed")

    assert run(path, *KEY, "--info") == 0
    assert capsys.readouterr().err == f"{path}: It is not sealed, so no key proves anything.\n"


@pytest.mark.parametrize(
    ("option", "content"),
    [
        ("--passphrase-file", b"wrong"),
        ("--key-file", b"wrong"),
        ("--identity", b"# no identity\n"),
        (
            "--identity",
            b"AGE-SECRET-KEY-1JZWRWUFH38VTECDYJ68TV92H792RS6JTEJQ5MUM4WDQHRDP9XN6SH0AXKU\n",
        ),
    ],
)
def test_a_wrong_key(option, content, unpack, tmp_path, capsys):
    """A wrong key of any kind is a failure of one sentence."""
    (tmp_path / "key").write_bytes(content)
    code = run(unpack("sealed-several-slots"), option, tmp_path / "key")

    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (1, 1)
    assert err.endswith("No key slot of the snapshot opens with the keys that were given.\n")


def test_a_damaged_identity(unpack, tmp_path, capsys):
    """An age identity that is none is a failure of one sentence."""
    (tmp_path / "key").write_text("AGE-SECRET-KEY-1AAAA\n")
    code = run(unpack("sealed-by-age"), "--identity", tmp_path / "key")

    assert (code, "An age identity is wrong" in capsys.readouterr().err) == (1, True)


@pytest.mark.parametrize(
    "key",
    [("--passphrase-file", PASSPHRASE), KEY, ("--identity", IDENTITY)],
    ids=lambda key: key[0],
)
def test_any_key_opens(key, unpack):
    """Each of several keys opens a snapshot that has a slot for each."""
    assert run(unpack("sealed-several-slots"), *key) == 0


def test_one_of_several_keys_opens(unpack, tmp_path):
    """Of several keys of a kind, one that is right is enough."""
    (tmp_path / "key").write_bytes(b"wrong")

    assert run(unpack("sealed-several-slots"), "--key-file", tmp_path / "key", *KEY) == 0


def test_a_passphrase_ends_with_its_line(unpack, tmp_path):
    """A passphrase's file may end with a newline, which is not of the passphrase."""
    (tmp_path / "passphrase").write_bytes(PASSPHRASE.read_bytes() + b"\n")

    assert run(unpack("sealed-by-passphrase"), "--passphrase-file", tmp_path / "passphrase") == 0


@pytest.mark.parametrize(
    ("module", "key", "name"),
    [
        ("cryptography", KEY, "sealed-signed-mixed"),
        ("cryptography", ("--passphrase-file", PASSPHRASE), "sealed-by-passphrase"),
        ("pyrage", ("--identity", IDENTITY), "sealed-by-age"),
    ],
)
def test_a_missing_library(module, key, name, unpack):
    """Without the library that a key takes, one sentence says which it is."""
    hidden = f"import sys; sys.modules[{module!r}] = None; sys.argv[0] = 'reader'; "
    start = "from examples.read_snapshot import main; sys.exit(main())"
    result = program.call([sys.executable, "-c", hidden + start, unpack(name), *key])

    result.fails(4, f"The keys take the Python package {module}, which is not installed.\n")


@pytest.mark.parametrize("kind", [SIGNED, ENCRYPTED])
@pytest.mark.parametrize("content", [LARGE, LARGE[:PART], LARGE[: 2 * PART], LARGE[: PART + 1]])
def test_attachments_of_several_parts(kind, content, write, tmp_path):
    """An attachment of more than one part, or of whole parts only, comes out whole."""
    attachments = [Attachment("small", b"text"), Attachment("a", content)]
    run(write(kind, attachments=attachments), *KEY, "--attachment", "a", "--output", tmp_path / "a")

    assert (tmp_path / "a").read_bytes() == content


def test_a_deflate_stream_of_several_parts(write, tmp_path):
    """A compressed attachment may be cut anywhere in its stream."""
    attachments = [Attachment("a", LARGE + text(50_000), DEFLATE)]
    run(write(attachments=attachments), *KEY, "--attachment", "a", "--output", tmp_path / "a")

    assert (tmp_path / "a").read_bytes() == LARGE + text(50_000)


def _exchanged(stored):
    # The first two parts in each other's places, each with its nonce and tag.
    part = PART + 28
    return stored[part : 2 * part] + stored[:part] + stored[2 * part :]


def _repeated(stored):
    # The first part also in the second one's place.
    part = PART + 28
    return stored[:part] + stored[:part] + stored[2 * part :]


@pytest.mark.parametrize("change", [_exchanged, _repeated])
def test_parts_stay_in_their_places(change, write, tmp_path, capsys):
    """Parts of an attachment can't be exchanged or repeated, though each is whole."""
    path = write(attachments=[Attachment("a", LARGE)], changes={"attachment 0": change})
    code = run(path, *KEY, "--attachment", "a", "--output", tmp_path / "a")

    assert (code, (tmp_path / "a").exists()) == (3, False)
    assert "of attachment 'a' is wrong" in capsys.readouterr().err
