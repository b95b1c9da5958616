"""Facts about keys of every kind, as the command line takes them."""

import os
import threading
from pathlib import Path

import pytest

from tests.support.secrets import LOCK, PHRASE, UNLOCK, words
from tests.support.sweep import sweep

KEY = ("--key-file", "key")
SAVE = ("save", "guest0.ram", "s.snap", "--encrypt")


def whole(path):
    """Return whether a restored image is the guest's first state."""
    return Path(path).read_bytes() == Path("guest0.ram").read_bytes()


def names():
    """Return the names of all files."""
    return sorted(path.name for path in Path().iterdir())


BOTH = [(kind, how) for kind in LOCK for how in ("--encrypt", "--sign")]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("kind", "how"),
    sweep(BOTH, lambda each: each[1] == "--encrypt" or each[0] == "passphrase file"),
)
def test_each_opens_what_it_locked(cli, kind, how):
    """What a key locked is verified and restored by the same key, or by its private half."""
    cli("save", "guest0.ram", "s.snap", how, *words(LOCK[kind])).ok()
    cli("verify", "s.snap", *UNLOCK[kind]).ok("proved by its key")
    cli("restore", "s.snap", "out.ram", *UNLOCK[kind]).ok()

    assert whole("out.ram")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("kind", ["key file", "age", "own age", "ssh"])
def test_another_key_is_refused(cli, kind):
    """Another key is a failure that names the slots, and nothing is written."""
    cli(*SAVE, *words(LOCK[kind])).ok()
    before = names()
    cli("restore", "s.snap", "out.ram", "--key-file", "other").fails(
        1, "s.snap: none of the given keys fits; its slots are: ", lines=1
    )

    assert names() == before


@pytest.mark.usefixtures("place")
def test_another_passphrase_is_refused(cli):
    """Another passphrase is a failure in one sentence, which does not show it."""
    cli(*SAVE, *LOCK["passphrase file"]).ok()
    Path("wrong").write_text("offenes Wort")
    cli("verify", "s.snap", "--passphrase-file", "wrong").fails(
        1, err="snapmig: s.snap: none of the given keys fits; its slots are: passphrase\n"
    )


@pytest.mark.usefixtures("place")
def test_any_of_several_keys_opens(cli):
    """A snapshot with several slots opens with any of the keys."""
    several = [word for kind in ("key file", "age", "ssh") for word in words(LOCK[kind])]
    cli(*SAVE, *several).ok()
    for kind in ("key file", "age", "ssh"):
        cli("verify", "s.snap", *UNLOCK[kind]).ok("proved by its key")


@pytest.mark.usefixtures("place")
def test_a_passphrase_from_a_pipe(cli):
    """A passphrase comes from a pipe, as shells make one, and is read once."""
    source, sink = os.pipe()
    os.write(sink, PHRASE.encode() + b"\n")
    os.close(sink)
    cli(*SAVE, "--passphrase-file", f"/dev/fd/{source}").ok()
    os.close(source)
    cli("verify", "s.snap", *UNLOCK["passphrase file"]).ok("proved by its key")


@pytest.mark.usefixtures("place")
def test_a_key_from_a_fifo_for_two_snapshots(cli):
    """A key file that can be read once is enough for a chain."""
    cli(*SAVE, *KEY).ok()
    os.mkfifo("once")
    giver = threading.Thread(target=lambda: Path("once").write_bytes(Path("key").read_bytes()))
    giver.start()
    more = ("--encrypt", "--parent", "s.snap", "--key-file", "once")
    cli("save", "guest1.ram", "t.snap", *more).ok()
    giver.join(10)
    cli("verify", "t.snap", *KEY).ok("proved by its key")


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        ((), 2, "needs a key to lock with: a passphrase, a key file or a recipient"),
        (("--key-file", "short"), 2, "short: has 31 bytes, expected a key file of at least 32"),
        (("--key-file", "huge"), 2, "huge: has more than 1 MiB, which is no key"),
        (("--key-file", "missing"), 1, "missing: No such file or directory"),
        (("--key-file", "."), 1, ".: Is a directory"),
        (("--passphrase-file", "missing"), 1, "missing: No such file or directory"),
        (("--passphrase-file", "empty"), 2, "the passphrase is empty"),
        (("--passphrase-file", "huge"), 2, "huge: has more than 1 MiB, which is no key"),
        (("--passphrase-command", "exit 3"), 1,
         "the passphrase command failed: sh failed: exit status 3"),
        (("--passphrase-command", "true"), 2, "the passphrase is empty"),
        (("--passphrase-command", "cat huge"), 2,
         "the passphrase command printed more than 1 MiB"),
        (("--recipient", "age1nobody"), 2,
         "'age1nobody' is no recipient of age: expected age1... or ssh-..."),
        (("--identity", "key"), 2,
         "key: has no age identity (AGE-SECRET-KEY-...) and no unencrypted ssh private key"),
        (("--key-file", "key", "--sign"), 2,
         "an encrypted snapshot is signed, too: give encrypt or sign, not both"),
    ],
)  # fmt: skip
def test_what_is_no_key_is_refused(cli, given, code, message):
    """What is no key is refused in one sentence, and nothing is written."""
    Path("short").write_bytes(bytes(31))
    Path("empty").write_bytes(b"\n")
    Path("huge").write_bytes(bytes((1 << 20) + 1))
    before = names()
    cli(*SAVE, *given).fails(code, err=f"snapmig: {message}\n")

    assert names() == before


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("verb", [("verify",), ("verify", "--quick"), ("restore", "-f", "out")])
def test_a_key_for_what_is_not_sealed(cli, verb):
    """Who gives a key is told that it proves nothing of a snapshot that is not sealed."""
    cli("save", "guest0.ram", "plain.snap").ok()
    name, *more = verb
    cli(name, "plain.snap", *more, *KEY).ok(
        err="snapmig: warning: plain.snap is not sealed: a key proves nothing of it\n"
    )


@pytest.mark.usefixtures("place")
def test_a_key_without_a_use(cli):
    """A key without --encrypt or --sign, and without a parent to open, is refused."""
    cli("save", "guest0.ram", "s.snap", *KEY).fails(
        2,
        err="snapmig: keys are given, but neither --encrypt nor --sign, and no parent to open\n",
    )
    assert not Path("s.snap").exists()
