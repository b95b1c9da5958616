"""Facts about guest.json, whatever somebody wrote there."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapmig.errors import CorruptSnapshotError
from snapmig.guests.guest import GuestFacts
from snapmig.operations.runs.guest_facts import describe, parse_facts
from tests.support import builders

GOOD = {
    "machine": "pc-q35-10.0",
    "qemu_version": "10.0.2",
    "command_line": ["qemu-system-x86_64", "-m", "64K"],
    "memory": [{"name": "ram", "size": builders.PACKET, "shared": True, "path": None}],
}
DEEP = "[" * 100_000

BAD = {
    "not JSON": b"junk",
    "not text": b"\xff\xfe\x00",
    "nothing": b"",
    "cut short": json.dumps(GOOD)[:-5],
    "a list": "[]",
    "null": "null",
    "a number": "1e999",
    "a number without end": "9" * 100_000,
    "deep": DEEP,
    "deep and closed": DEEP + "]" * 100_000,
    **{f"no {key}": {name: GOOD[name] for name in GOOD if name != key} for key in GOOD},
    **{f"{key} is null": GOOD | {key: None} for key in GOOD},
    **{f"{key} is a number": GOOD | {key: 5} for key in GOOD},
    **{f"{key} is an object": GOOD | {key: {}} for key in GOOD},
    "no machine": GOOD | {"machine": ""},
    "machine with an option": GOOD | {"machine": "q35,dumpdtb=/etc/x"},
    "machine with a line": GOOD | {"machine": "q35\n"},
    "machine with an escape": GOOD | {"machine": "\x1b[2J"},
    "machine without end": GOOD | {"machine": "q" * 1000},
    "machine is a list": GOOD | {"machine": ["q35"]},
    "version with a space": GOOD | {"qemu_version": "1 0"},
    "command is text": GOOD | {"command_line": "qemu"},
    "argument is a number": GOOD | {"command_line": ["qemu", 5]},
    "argument is a list": GOOD | {"command_line": [["qemu"]]},
    "argument has a zero byte": GOOD | {"command_line": ["qemu", "a\0b"]},
    "argument of 2 MiB": GOOD | {"command_line": ["q" * (2 << 20)]},
    "100,000 arguments": GOOD | {"command_line": ["q"] * 100_000},
    "memory is a number": GOOD | {"memory": [5]},
    "memory without name": GOOD | {"memory": [{"size": 1}]},
    "memory without size": GOOD | {"memory": [{"name": "ram"}]},
    "size is text": GOOD | {"memory": [{"name": "ram", "size": "1"}]},
    "size is negative": GOOD | {"memory": [{"name": "ram", "size": -builders.PACKET}]},
    "size is a fraction": GOOD | {"memory": [{"name": "ram", "size": 0.5}]},
    "size is true": GOOD | {"memory": [{"name": "ram", "size": True}]},
    "size is huge": GOOD | {"memory": [{"name": "ram", "size": 1 << 80}]},
    "another size": GOOD | {"memory": [{"name": "ram", "size": 4096}]},
    "another name": GOOD | {"memory": [{"name": "rom", "size": builders.PACKET}]},
    "no memory": GOOD | {"memory": []},
    "twice": GOOD | {"memory": GOOD["memory"] * 2},
}


def raw_of(value):
    """Return an attachment's contents."""
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value)).encode()


@pytest.mark.parametrize("name", BAD)
def test_facts_that_are_none_are_corrupt(tmp_path, cli, name):
    """Exit code 3 and one line with file and attachment; nothing is made."""
    attachments = [("format", b"qemu-guest"), ("guest.json", raw_of(BAD[name])), ("state", b"")]
    made = builders.Snapshot(
        [builders.Block("ram", b"x" * builders.PACKET)],
        attachments=[builders.Attachment(f"source/{name}", raw) for name, raw in attachments],
    )
    path = tmp_path / "s"
    path.write_bytes(made.build())
    outcome = cli("restore", "-j1", "--for-qemu", path, tmp_path / "new")

    outcome.fails(
        3, start=f"snapmig: {path}: attachment guest.json was not written by snapmig", lines=1
    )
    assert not (tmp_path / "new").exists()
    assert outcome.err[:-1].isprintable()


@pytest.mark.parametrize("missing", ["guest.json", "state"])
def test_what_a_guest_needs_is_there(tmp_path, cli, missing):
    """A snapshot of a running guest has facts and state."""
    kept = {"format": b"qemu-guest", "guest.json": raw_of(GOOD), "state": b""}
    del kept[missing]
    made = builders.Snapshot(
        [builders.Block("ram", b"x" * builders.PACKET)],
        attachments=[builders.Attachment(f"source/{name}", raw) for name, raw in kept.items()],
    )
    (tmp_path / "s").write_bytes(made.build())
    outcome = cli("restore", "-j1", "--for-qemu", tmp_path / "s", tmp_path / "new")

    outcome.fails(3, f"has no attachment {missing}")


def test_what_is_written_is_read():
    """A command line of any bytes comes back, also one that is not UTF-8."""
    facts = GuestFacts("q35", "10.0.2", ("qemu", "\udcff", "ä", "a\nb"), ())
    found = parse_facts(describe(facts), (), complete=True)

    assert (found.machine, found.command_line) == (facts.machine, facts.command_line)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*GOOD, "x"]), anything), st.booleans())
def test_any_json_is_facts_or_corrupt(changes, complete):
    """No value of any type ends in anything but facts or a refusal."""
    try:
        facts = parse_facts(json.dumps(GOOD | changes).encode(), (), complete=complete)
    except CorruptSnapshotError:
        return
    assert all(isinstance(word, str) for word in facts.command_line)


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_bytes_are_corrupt(raw):
    """A text that is no JSON is refused."""
    with pytest.raises(CorruptSnapshotError):
        parse_facts(raw, (), complete=False)
