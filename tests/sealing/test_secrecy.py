"""Facts about the bytes of encrypted snapshots: nothing of the guest is among them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import xxhash

import snapmig
from snapmig.container.reader import SnapshotFile
from tests.support import ram
from tests.support.sweep import sweep

pytestmark = pytest.mark.usefixtures("place")

KEY = ("--key-file", "key")
PAGE = 4096
CODECS = ("zlib", "zstd", "lz4", "none")
FORMS = list(itertools.product(CODECS, ("fixed", "packed"), (True, False)))
ESSENTIAL = [("zlib", "fixed", True), ("none", "fixed", True), ("none", "packed", False)]
NAME, CONTENTS = "name-of-an-attachment", b"contents of an attachment, to be found nowhere"


def digests(contents):
    """Return both orders of a digest's bytes."""
    found = xxhash.xxh3_128_digest(contents)
    return [found, found[::-1]]


def plain_parts(image, plain):
    """Yield what an encrypted snapshot must not have: pages, packets, digests and attachments."""
    pages = np.fromfile(image, np.uint8).reshape(-1, PAGE)
    for page in pages[pages.any(axis=1)]:
        yield page[:64].tobytes()
        yield page[-64:].tobytes()
        yield from digests(page.tobytes())
    with SnapshotFile(str(plain)) as file:
        for number in range(file.geometry.packet_count):
            packet = file.packet(file.geometry.place(number))
            if packet.stored_size:
                stored = file.stored(packet)
                yield stored[:32]
                yield stored[-32:]
                yield packet.digest
        if file.page_digests is not None:
            raw = file.superblock
            size = raw.packet_count * raw.packet_size // PAGE * 16
            found = file.read(raw.page_digests_offset, size)
            yield from {found[at : at + 16] for at in range(0, size, 16)} - {bytes(16)}
    yield from (NAME.encode(), CONTENTS, b"source/format")


def words(codec, layout, with_digests):
    """Return the options of a form of snapshots."""
    found = ["--compression", codec, "--layout", layout, "--attach", f"{NAME}=attached"]
    return [*found, *(["--page-digests"] if with_digests else [])]


@pytest.mark.parametrize(
    ("codec", "layout", "with_digests"), sweep(FORMS, lambda form: form in ESSENTIAL)
)
def test_nothing_of_the_guest(cli, codec, layout, with_digests):
    """No page, stored byte, digest, attachment or its name is in an encrypted file."""
    Path("attached").write_bytes(CONTENTS)
    form = words(codec, layout, with_digests)
    cli("save", "guest0.ram", "plain.snap", *form).ok()
    cli("save", "guest0.ram", "s.snap", "--encrypt", *KEY, *form).ok()
    parts = set(plain_parts(Path("guest0.ram"), Path("plain.snap")))
    raw, plain = Path("s.snap").read_bytes(), Path("plain.snap").read_bytes()

    assert not [part for part in parts if part in raw]
    assert sum(part in plain for part in parts) > len(parts) / 10  # they would be found


def test_nothing_of_an_increment(cli):
    """Neither are the differences of an increment, nor the name of its parent."""
    cli("save", "guest0.ram", "name-of-parent.snap", "--encrypt", *KEY).ok()
    command = ("--deltas", "--parent", "name-of-parent.snap", "--encrypt", *KEY)
    cli("save", "guest1.ram", "s.snap", *command, "--compression", "none").ok()
    states = [np.fromfile(f"guest{number}.ram", np.uint8) for number in (0, 1)]
    changed = [page for page in (states[0] ^ states[1]).reshape(-1, PAGE) if page.any()]
    raw = Path("s.snap").read_bytes()

    assert len(changed) == 3
    assert not [page for page in changed if page.tobytes()[:64].strip(b"\0") in raw]
    assert b"name-of-parent" not in raw


def blocks(path):
    """Return all aligned runs of 16 bytes of a snapshot's packets and index but zeros."""
    with SnapshotFile(path, locked=True) as file:
        start = file.superblock.data_offset
        raw = file.read(start, file.superblock.data_size)
    return {raw[at : at + 16] for at in range(0, len(raw) - 15, 16)} - {bytes(16)}


@pytest.mark.parametrize("codec", sweep(["zlib", "none"], lambda codec: codec == "none"))
def test_two_saves_have_nothing_in_common(cli, codec):
    """Two snapshots of the same image with the same key have no stored bytes in common."""
    for name in ("a.snap", "b.snap"):
        cli("save", "guest0.ram", name, "--encrypt", *KEY, "--compression", codec).ok()
    one, other = blocks("a.snap"), blocks("b.snap")

    assert len(one) > 1000
    assert not one & other


def test_no_nonce_twice(cli):
    """All nonces of a snapshot are different, also those of packets with the same contents."""
    ram.write(Path("same.ram"), np.tile(ram.text(128), (8, 1)))
    cli("save", "same.ram", "s.snap", "--encrypt", *KEY, "--page-digests").ok()
    keys = snapmig.Keys(key_file=["key"])
    with SnapshotFile("s.snap", locked=True) as file:
        records = file.index.records(0, 8)
    assert len({bytes(nonce) for nonce in records["nonce"].tolist()}) == 8
    assert len({bytes(digest) for digest in records["digest"].tolist()}) == 8
    assert snapmig.verify("s.snap", keys=keys).proved


def test_an_older_file_is_noticed(cli):
    """An older snapshot in the place of a newer one is noticed by who kept its root."""
    cli("save", "guest0.ram", "s.snap", "--encrypt", *KEY).ok()
    older = Path("s.snap").read_bytes()
    root = cli("save", "guest1.ram", "s.snap", "-f", "--encrypt", *KEY, "--json").json["root"]
    cli("verify", "s.snap", "--expect", root, *KEY).ok("proved by its key")
    Path("s.snap").write_bytes(older)
    cli("verify", "s.snap", *KEY).ok("proved by its key")
    cli("verify", "s.snap", "--expect", root, *KEY).fails(
        3, f"expected {root}: it is another snapshot, or an older one", lines=1
    )


def test_who_signs_does_not_hide(cli):
    """A signed snapshot can be read by everybody."""
    cli("save", "guest0.ram", "s.snap", "--sign", *KEY).ok()
    cli("restore", "s.snap", "out.ram").ok()
    assert Path("out.ram").read_bytes() == Path("guest0.ram").read_bytes()
