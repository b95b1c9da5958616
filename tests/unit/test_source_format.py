"""Facts about the name of a format that a snapshot keeps."""

import pytest

from tests.support import builders

NAMES = {
    "nothing": b"", "capitals": b"RAW", "a line": b"raw\n", "an escape": b"\x1b[2Jraw",
    "not text": b"\xff\xfe", "a zero": b"raw\0", "a path": b"../raw", "long": b"x" * 65,
    "a space": b"a b", "spaces": b" raw ",
}  # fmt: skip


def write(path, name):
    """Write a snapshot that says so."""
    made = builders.Snapshot(
        [builders.Block("ram", b"x" * builders.PACKET)],
        attachments=[builders.Attachment("source/format", name)],
    )
    path.write_bytes(made.build())
    return path


@pytest.mark.parametrize(
    "verb", ["info {}", "info --json {}", "restore {} {}.new", "merge {} {}.new"]
)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_name_of_a_format_is_corrupt(tmp_path, cli, name, verb):
    """Exit code 3, in one line that shows it harmlessly."""
    path = write(tmp_path / "s", NAMES[name])
    outcome = cli(*verb.replace("{}", str(path)).split())

    outcome.fails(3, out="", lines=1)
    assert "attachment 'source/format'" in outcome.err or "source/format" in outcome.err
    assert outcome.err[:-1].isprintable()
    assert [each.name for each in tmp_path.iterdir()] == ["s"]


def test_a_format_of_a_later_version_is_shown(tmp_path, cli):
    """Info names it; a restore says which there are."""
    path = write(tmp_path / "s", b"later-2")

    assert ", from later-2\n" in cli("info", path).out
    cli("restore", path, tmp_path / "new").fails(2)
