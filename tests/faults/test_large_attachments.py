"""Facts about snapshots of a MB with attachments of a GB: memory use stays small."""

import hashlib
import json
import resource
import zlib

import pytest

import snapmig
from tests.support import builders, program

SIZE = 1000 << 20
CHUNK = 8 << 20
LIMIT = 640 << 20
"""Bytes of address space for a process, of which Python and numpy take 250 MiB."""

LARGE = ["source/format", "source/parent", "source/guest.json", "source/vmstate.json", "note"]


def large_stream():
    """Return a deflate stream of zeros, made from one repeated piece, and their SHA-256."""
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    piece = encoder.compress(bytes(CHUNK)) + encoder.flush(zlib.Z_FULL_FLUSH)
    digest = hashlib.sha256()
    for _ in range(SIZE // CHUNK):
        digest.update(bytes(CHUNK))
    return piece * (SIZE // CHUNK) + b"\x03\0", digest.digest()


@pytest.fixture(scope="module")
def stream():
    """Make that stream once."""
    return large_stream()


@pytest.fixture
def make(shm, stream):
    """Give a function to make a snapshot with a large attachment, and small ones."""

    def make_snapshot(large, **small):
        attachments = [builders.Attachment(large, b"", builders.DEFLATE)]
        for name, content in small.items():
            attachments.append(builders.Attachment(f"source/{name}", content))
        stored, digest = stream
        made = builders.Snapshot(
            [builders.Block("ram", b"x" * builders.PACKET)],
            attachments=attachments,
            attachments_stored={0: stored},
            attachment_table={0: {"size": SIZE, "sha256": digest}},
        )
        (shm / "s").write_bytes(made.build())
        return shm / "s"

    return make_snapshot


def limited(*arguments):
    """Run the program with little memory."""

    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))

    return program.run(*arguments, preexec_fn=limit)


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        *(("info", name) for name in LARGE),
        ("info --json", "source/format"),
        ("chain", "source/parent"),
        ("verify --quick", "note"),
    ],
)
def test_what_looks_at_a_snapshot_takes_little_memory(make, verb, name):
    """Contents are not decoded unless needed, and a name of a GB is refused."""
    result = limited(*verb.split(), make(name))
    names_itself = name == "source/format" and verb.startswith("info")

    if names_itself:
        result.fails(3, "expected at most 64", lines=1)
    else:
        result.ok()


def test_verify_reads_it_in_pieces(make):
    """All of it is decoded and compared, and memory use does not grow with it."""
    result = limited("verify", "-j1", make("note"))

    result.ok()


def test_a_wrong_sum_of_a_large_one_is_found(make):
    """The SHA-256 is compared at the end of the last piece."""
    path = make("note")
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"note")
    raw[at + 288] ^= 1
    table = raw[at : at + 384]
    block = bytearray(raw[:4096])
    block[228:232] = zlib.crc32(table).to_bytes(4, "little")
    block[272:304] = hashlib.sha256(raw[4096 : 4096 + 320] + table).digest()  # there are no pieces
    block[12:16] = bytes(4)
    block[12:16] = zlib.crc32(block).to_bytes(4, "little")
    raw[:4096] = block
    path.write_bytes(raw)
    result = limited("verify", "-j1", path)

    result.fails(3, "attachment 'note': SHA-256 is ")


def test_it_is_copied_in_pieces(make, shm):
    """A new snapshot has it, too, and memory use does not grow with it."""
    result = limited("merge", "-j1", make("note"), shm / "new")

    result.ok()
    assert [item.size for item in snapmig.info(shm / "new").attachments] == [SIZE]


RESTORES = [
    ("source/format", {}, [], "'source/format' has 1048576000 bytes, expected at most 64"),
    ("source/vmstate.json", {"format": b"mapped-ram"}, [], "expected at most 16777216"),
    ("source/elf.json", {"format": b"elf"}, [], "expected at most 33554432"),
    ("source/libvirt.head", {"format": b"libvirt"}, [], "expected at most 134217728"),
    ("source/vmstate", {"format": b"firecracker"}, [], "expected at most 10000000"),
    ("source/config.json", {"format": b"cloud-hypervisor", "state.json": b"{}"}, [],
     "expected at most 134217728"),
    ("source/guest.json", {"format": b"qemu-guest", "state": b""}, ["--for-qemu"],
     "expected at most 8388608"),
]  # fmt: skip


@pytest.mark.parametrize(("large", "small", "options", "words"), RESTORES, ids=range(7))
def test_a_restore_refuses_what_must_be_small(make, shm, large, small, options, words):
    """Exit code 3 with name, size and limit, and nothing is left."""
    result = limited("restore", "-j1", *options, make(large, **small), shm / "new")

    result.fails(3, words, lines=1)
    assert [path.name for path in shm.iterdir()] == ["s"]


def test_a_device_state_is_written_in_pieces(make, shm):
    """A device state of any size goes to its file."""
    facts = {
        "machine": "q35", "qemu_version": "10.0.2", "command_line": ["qemu"],
        "memory": [{"name": "ram", "size": builders.PACKET}],
    }  # fmt: skip
    small = {"format": b"qemu-guest", "guest.json": json.dumps(facts).encode()}
    result = limited("restore", "-j1", "--for-qemu", make("source/state", **small), shm / "new")

    result.ok()
    assert (shm / "new" / "state").stat().st_size == SIZE


def test_its_name_is_looked_up_without_its_contents(make, monkeypatch):
    """The presence of an attachment is known from the snapshot's table."""
    monkeypatch.setattr("snapmig.attachments.load_attachment", None)
    with snapmig.open(make("note")) as snapshot:
        assert ("note" in snapshot.attachments, "nota" in snapshot.attachments) == (True, False)
