"""Facts about restores that go past damage: what they restore, and what they say of the rest."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import snapmig
from tests.support import filesystems, kinds, ram
from tests.support.outcome import Outcome

Cli = Callable[..., Outcome]

PACKET = 64 << 10
PAGES = PACKET // ram.PAGE
COUNT = 12
OLD = np.concatenate([ram.text(COUNT * PAGES - PAGES), ram.zeros(4), ram.text(PAGES - 4, 2)])
NEW = OLD.copy()
NEW[3 * PAGES + 1] = ram.noise(1)[0]
NEW[7 * PAGES] = ram.noise(1, 2)[0]
RAW = 2
RECORD = 104
INDEX = 8192
GPA = "ram=4G"
FORMS: dict[str, dict[str, Any]] = {
    "zlib": {},
    "zstd": {"compression": "zstd", "layout": "packed"},
    "lz4": {"compression": "lz4", "page_digests": True},
    "none": {"compression": "none"},
}


@pytest.fixture(autouse=True)
def place(shm: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a directory of its own."""
    monkeypatch.chdir(shm)
    return shm


def save(name: str = "s", content: np.ndarray = OLD, **options: Any) -> Path:
    """Save contents, and return the snapshot."""
    ram.write(Path("a"), content)
    given = {"packet_size": PACKET, "address": [GPA], "jobs": 1} | options
    snapmig.save("a", name, **given)
    return Path(name)


def flip(path: Path, offset: int) -> None:
    """Change a byte."""
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 0xFF
    path.write_bytes(raw)


def damage(path: Path, *packets: int) -> None:
    """Change a byte of each packet's stored bytes."""
    found = kinds.read(path)
    for packet in packets:
        raw = found[packet].encoding == RAW  # its pages are at their places in the slot
        first = found[packet].kinds.index(kinds.DATA) if raw else 0
        flip(path, found[packet].offset + first * ram.PAGE + 20)


def without(content: np.ndarray, *packets: int) -> bytes:
    """Return contents with zeros in place of packets."""
    left = content.copy().reshape(-1, PACKET)
    left[list(packets)] = 0
    return left.tobytes()


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("form", FORMS)
def test_all_but_the_lost_packets_is_restored(form: str, jobs: int) -> None:
    """Zeros stand in place of damaged packets, and all other pages are right."""
    damage(save(**FORMS[form]), 2, 3, 11)
    snapmig.restore("s", "r", keep_going=True, jobs=jobs)
    assert Path("r").read_bytes() == without(OLD, 2, 3, 11)


def test_lost_pages_are_listed_with_their_addresses(cli: Cli) -> None:
    """Ranges that touch are one, zero pages are not lost, and the exit code is 3."""
    damage(save(), 2, 3, 11)
    outcome = cli("restore", "--keep-going", "s", "r")

    outcome.fails(3, "s: packet 2: offset", "s: packet 3: offset", "s: packet 11: offset", lines=3)
    assert outcome.lines[-3:] == [
        "lost      176.0 KiB, zeros in their place:",
        "  ram at 0x20000, 128.0 KiB, guest physical address 0x100020000",
        "  ram at 0xb4000, 48.0 KiB, guest physical address 0x1000b4000",
    ]


def test_json_has_the_same_list(cli: Cli) -> None:
    """The result is a line of JSON as always, with the ranges and the code."""
    damage(save(), 11)
    result = cli("restore", "--keep-going", "--json", "s", "r").fails(3).json

    assert result["lost"] == [
        {"block": "ram", "offset": 0xB4000, "gpa": 0x1000B4000, "size": 48 << 10}
    ]
    counted = [result[name] for name in ("data_pages", "zero_pages", "lost_pages", "exit_code")]
    assert counted == [11 * PAGES, 4, 12, 3]


def test_a_sound_snapshot_has_no_losses(cli: Cli) -> None:
    """Without damage the option changes nothing."""
    save()
    cli("restore", "--keep-going", "s", "r").ok()
    assert Path("r").read_bytes() == OLD.tobytes()


def test_a_range_ends_where_its_addresses_do() -> None:
    """A lost packet in two pieces of guest memory is two ranges."""
    damage(save(address=["ram=0", f"ram@{5 * PACKET + 8192}=4G"]), 5)
    lost = snapmig.restore("s", "r", keep_going=True).lost

    assert [(each.offset, each.gpa, each.size) for each in lost] == [
        (5 * PACKET, 5 * PACKET, 8192),
        (5 * PACKET + 8192, 4 << 30, PACKET - 8192),
    ]


@pytest.mark.parametrize("format_name", ["raw", "elf"])
def test_a_damaged_record_loses_its_packet_only(format_name: Any) -> None:
    """A packet whose record is damaged is lost whole, and the others are restored."""
    flip(save(arch="x86_64"), INDEX + 11 * RECORD + 40)
    result = snapmig.restore("s", "r", format=format_name, keep_going=True)

    assert [(each.offset, each.size) for each in result.lost] == [(11 * PACKET, PACKET)]
    assert Path("r").read_bytes()[-COUNT * PACKET :] == without(OLD, 11)


def test_an_index_of_another_state_is_said() -> None:
    """After a damaged record no other can be proven to be the one that was committed."""
    flip(save(), INDEX + 11 * RECORD + 40)
    result = snapmig.restore("s", "r", keep_going=True)

    assert "others may be of an older state" in result.warnings[0]


@pytest.mark.parametrize("damaged", ["old", "young"])
def test_a_damaged_member_of_a_chain_loses_what_is_in_it(damaged: str) -> None:
    """Of a chain a packet is lost that any file with pages of it has damaged."""
    save("old")
    save("young", NEW, parent="old")
    damage(Path(damaged), 3)
    result = snapmig.restore("young", "r", keep_going=True)

    assert [(each.offset, each.size) for each in result.lost] == [(3 * PACKET, PACKET)]
    assert Path("r").read_bytes() == without(NEW, 3)


def test_an_image_filled_in_place_has_zeros(cli: Cli) -> None:
    """Nothing of the older contents stays where a packet is lost."""
    damage(save(), 2)
    flip(Path("s"), INDEX + 4 * RECORD + 40)
    ram.write(Path("r"), ram.noise(COUNT * PAGES))
    cli("restore", "--keep-going", "--in-place", "s", "r").fails(3)

    assert Path("r").read_bytes() == without(OLD, 2, 4)


def test_ranges_are_bounded_in_number() -> None:
    """Of more than a thousand ranges the first are listed, and all are counted."""
    pages = ram.text(2304).copy()
    pages[::2] = 0
    path = save(content=pages)
    for packet in range(2304 // PAGES):
        damage(path, packet)
    result = snapmig.restore("s", "r", keep_going=True)

    assert (len(result.lost), result.lost_ranges, result.lost_pages) == (1000, 1152, 1152)


def test_a_damaged_attachment_is_named(cli: Cli) -> None:
    """An attachment nobody needs for the image is read, and named if it is lost."""
    path = save(attach={"state": ram.noise(1).tobytes()})
    flip(path, path.stat().st_size - 2000)
    outcome = cli("restore", "--keep-going", "s", "r")

    outcome.fails(3, "s: attachment 'state': ")
    assert outcome.lines[-1] == "lost      attachment state"
    assert Path("r").read_bytes() == OLD.tobytes()


REFUSED = {
    "superblock": (100, "s: superblock checksum is"),
    "block table": (4100, "s: block table's checksum is"),
    "attachment table": (-100, "s: attachment table's checksum is"),
}


@pytest.mark.parametrize(("offset", "words"), REFUSED.values(), ids=REFUSED)
def test_damaged_tables_are_refused(cli: Cli, offset: int, words: str) -> None:
    """Nothing can be restored without them, and one sentence says so."""
    path = save(attach={"state": b"x"}, address=[])
    flip(path, offset)
    cli("restore", "--keep-going", "s", "r").fails(3, words, lines=1, out="")
    assert not Path("r").exists()


def test_a_missing_parent_is_refused(cli: Cli) -> None:
    """It is no damage, and can be found."""
    save("old")
    save("young", NEW, parent="old")
    Path("old").unlink()
    cli("restore", "--keep-going", "young", "r").fails(1, "young", lines=1)


@pytest.mark.parametrize("arguments", [("s", "qmp:/nowhere"), ("--for-qemu", "s", "r")])
def test_a_guest_does_not_run_with_losses(cli: Cli, arguments: tuple[str, ...]) -> None:
    """It would run on with zeros in its memory, so it is refused before anything is read."""
    words = "a guest can't run on with zeros in place of lost memory"
    cli("restore", "--keep-going", *arguments).fails(2, words, lines=1)


def test_a_batch_says_what_was_lost(cli: Cli) -> None:
    """The job has failed with code 3, and its image is there with all the rest."""
    damage(save(), 2)
    keys = '[[restore]]\nsnapshot = "s"\nimage = "r"\nkeep_going = true\n'
    Path("jobs.toml").write_text(keys)

    place = "s: ram at 0x20000, 64.0 KiB, guest physical address 0x100020000\n"
    cli("batch", "jobs.toml").fails(3, "s: restored without 64.0 KiB: s: packet 2: offset", place)
    assert Path("r").read_bytes() == without(OLD, 2)


def test_a_backup_is_restored_as_far_as_it_is_there(cli: Cli) -> None:
    """The option of a backup's restore does the same."""
    Path("repo").mkdir()
    ram.write(Path("web.ram"), OLD)
    config = 'repository = "repo"\n[save]\npacket_size = "64K"\n[guests.web]\nsource = "web.ram"\n'
    Path("b.toml").write_text(config)
    cli("backup", "run", "b.toml").ok()
    damage(next(Path("repo/web").glob("*.snap")), 2)

    outcome = cli("backup", "restore", "--keep-going", "b.toml", "web", "r")
    outcome.fails(3, "web: ram at 0x20000, 64.0 KiB\n", "web: restored without 64.0 KiB: ")
    assert Path("r").read_bytes() == without(OLD, 2)


@pytest.mark.root
def test_sectors_that_a_disk_can_not_read_are_lost(cli: Cli, tmp_path: Path) -> None:
    """An error of the disk loses its packet; without the option it ends a restore, and verify."""
    start = kinds.read(save())[9].offset
    words = "s: packet 9: offset 0xa0000: can't be read: Input/output error"
    with filesystems.failing(tmp_path / "disk", tmp_path / "place") as lose:
        path = Path(shutil.copy("s", tmp_path / "place"))
        lose(path, range(start, start + PACKET))
        cli("restore", path, "r").fails(1, words, lines=1)
        cli("verify", path).fails(1, words, lines=1)
        cli("restore", "--keep-going", path, "r").fails(3, words, lines=1)

    assert Path("r").read_bytes() == without(OLD, 9)


def test_in_place_refuses_an_index_of_another_state(cli: Cli) -> None:
    """Without the option an index that was not committed ends a restore before its first page."""
    path = save()
    shutil.copy(path, "older")
    damaged = OLD.copy()
    damaged[5 * PAGES] ^= 1
    save("s", damaged, force=True)
    raw, older = bytearray(path.read_bytes()), Path("older").read_bytes()
    at = kinds.read(path)[5].offset
    raw[INDEX + 5 * RECORD : INDEX + 6 * RECORD] = older[INDEX + 5 * RECORD : INDEX + 6 * RECORD]
    raw[at : at + PACKET] = older[at : at + PACKET]
    path.write_bytes(raw)
    ram.write(Path("r"), ram.noise(COUNT * PAGES))

    cli("restore", "--in-place", "s", "r").fails(3, "s: index digest is", lines=1)
    assert Path("r").read_bytes() == ram.noise(COUNT * PAGES).tobytes()
