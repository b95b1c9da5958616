"""Facts about indexes truncated while a snapshot is open, or made of holes."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

import snapmig
from snapmig.container.format import Superblock
from tests.support import program, ram
from tests.support.outcome import Outcome

PACKET = 64 << 10
RECORD = 104
BLOCK_ENTRY = 320
CUTS = {
    "read": "snapmig.open(path)\ncut()\nfound.read(190 << 16, 4096)",
    "kinds": "SnapshotFile(path)\ncut()\nfound.index.counts()",
    "digest": "SnapshotFile(path)\ncut()\nfound.index.check_digest()",
    "records": "SnapshotFile(path)\ncut()\nfound.checked_records(190, 4)",
}


@pytest.fixture(scope="module")
def sound(shared_shm: Path) -> Path:
    """Give a snapshot of 197 packets: the last 8 bytes of the index are in a block of their own."""
    ram.write_sparse(shared_shm / "a", 197 * PACKET, {0: b"x"})
    snapmig.save(shared_shm / "a", shared_shm / "s", packet_size="64K", page_digests=False)
    return shared_shm / "s"


@pytest.fixture
def own(sound: Path, shm: Path) -> Path:
    """Give a writable copy of the snapshot."""
    (shm / "s").write_bytes(sound.read_bytes())
    return shm / "s"


@pytest.fixture
def hole(sound: Path, shm: Path) -> Path:
    """Give a file that claims to be of 25 TiB, with a never written index of 40 GiB."""
    raw = sound.read_bytes()
    block = Superblock.unpack(raw[:4096])
    packets = (40 << 30) // RECORD
    entry = bytearray(raw[block.block_table_offset :][:BLOCK_ENTRY])
    struct.pack_into("<Q", entry, 256, packets * PACKET)
    end = block.index_offset + packets * RECORD
    made = block._replace(
        layout=2,
        packet_count=packets,
        data_offset=end,
        data_size=0,
        attachment_table_offset=end,
        piece_table_offset=end,
        piece_count=0,
        piece_table_checksum=0,
        attachment_count=0,
        attachment_table_checksum=0,
        block_table_checksum=zlib.crc32(entry),
        tables_digest=hashlib.sha256(entry).digest(),
        file_size=end,
    )
    with (shm / "hole").open("wb") as file:
        file.write(made.pack())
        file.seek(block.block_table_offset)
        file.write(entry)
        file.truncate(end)
    return shm / "hole"


@pytest.mark.parametrize("work", CUTS.values(), ids=CUTS)
def test_a_snapshot_that_is_cut_is_corrupt(own, work):
    """Reads of an open snapshot after a truncation report damage, and the process lives on."""
    lines = [
        "import os, sys, snapmig",
        "from snapmig.container.reader import SnapshotFile",
        "path = sys.argv[1]",
        "cut = lambda: os.truncate(path, 4096)",
        "try:",
        *(f"    {line}" for line in f"found = {work}".split("\n")),
        "except snapmig.CorruptSnapshotError as error: print(error)",
    ]
    done = program.call([sys.executable, "-c", "\n".join(lines), own])

    done.ok()
    assert re.search("file ends inside the index|index record is in a hole|truncated", done.out)


@pytest.mark.parametrize(
    "arguments",
    [
        ("info", "hole"),
        ("verify", "hole"),
        ("verify", "--quick", "hole"),
        ("chain", "hole"),
        ("restore", "hole", "r"),
        ("diff", "hole", "hole"),
        ("merge", "hole", "r"),
        ("repack", "hole", "r"),
    ],
    ids=" ".join,
)
def test_an_index_that_is_a_hole_is_corrupt(
    hole: Path, cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str]
) -> None:
    """A hole is refused without reading its 40 GiB, and none of them is allocated."""
    monkeypatch.chdir(hole.parent)
    before, began = os.stat(hole).st_blocks, time.process_time()
    outcome = cli(*arguments)

    outcome.fails(3, "packet 0: offset 0x2000: index record is in a hole of the file")
    assert os.stat(hole).st_blocks == before
    assert time.process_time() - began < 10


def test_a_hole_where_no_record_starts_is_sound(own):
    """A copy may leave out the zeros at a record's end, and those after the last record."""
    block = Superblock.unpack(own.read_bytes()[:4096])
    end = block.index_offset + block.packet_count * RECORD
    copy = own.with_name("copy")
    subprocess.run(["cp", "--sparse=always", own, copy], check=True)

    assert (end % 4096, _next_data(copy, end - 8) >= end) == (8, True)
    assert snapmig.verify(copy).ok


def _next_data(path, offset):
    with path.open("rb") as file:
        return os.lseek(file.fileno(), offset, os.SEEK_DATA)
