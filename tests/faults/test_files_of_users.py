"""Facts about files given by a user in place of batches and configurations."""

import os

import pytest

from tests.support.outcome import Outcome

KINDS = {
    "fifo": (lambda path: os.mkfifo(path), "not a regular file but a FIFO"),
    "folder": (lambda path: path.mkdir(), "not a regular file but a directory"),
    "device": (
        lambda path: path.symlink_to("/dev/zero"),
        "not a regular file but a character device",
    ),
    "large": (lambda path: (path.touch(), os.truncate(path, 1 << 40)), "larger than 4.0 MiB"),
    "deep": (lambda path: path.write_text("a = " + "[" * 100_000), "nested too deep"),
    "number": (lambda path: path.write_text("a = " + "9" * 10_000), "not TOML"),
    "bytes": (lambda path: path.write_bytes(b"a = '\xff'"), "byte 5 is not UTF-8"),
}
VERBS = ["batch", "backup run", "backup list", "backup check", "backup prune"]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_text_of_a_user_is_one_sentence(tmp_path, cli, verb, kind):
    """Exit code 2 with the path, at once: nothing is waited for, and nothing large is read."""
    make, words = KINDS[kind]
    path = tmp_path / "file.toml"
    make(path)
    outcome: Outcome = cli(*verb.split(), path)

    outcome.fails(2, words, start=f"snapmig: {path}: ", lines=1)
