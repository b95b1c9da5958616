"""Facts about images behind gzip, zstd and others, packed by the programs themselves."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import snapmig
from snapmig.images import unpacking
from tests.support import ram
from tests.support.elf_cores import Core, Segment
from tests.support.outcome import Outcome
from tests.support.qemu_files import Block, Mapped, Stream, data, part
from tests.support.requirements import requires
from tests.support.sweep import sweep

Call = Callable[..., Outcome]

PACKERS = ("gzip", "xz", "zstd", "lz4")
RAM = ram.mixed(1 << 20)


def pack(path: Path, content: bytes, packer: str = "gzip") -> Path:
    """Write a file as a program packs it."""
    requires(packer)
    packed = subprocess.run([packer, "-c"], input=content, stdout=-1, check=True).stdout
    path.write_bytes(packed)
    return path


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the directory that images are unpacked in."""
    (tmp_path / "spool").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "spool"))
    return tmp_path / "spool"


@pytest.mark.parametrize("packer", PACKERS)
def test_ram_is_unpacked(tmp_path: Path, spool: Path, packer: str) -> None:
    """A packed raw image is saved as what is inside, and no file is left."""
    snapmig.save(pack(tmp_path / "p", RAM, packer), tmp_path / "s", jobs=2)
    snapmig.restore(tmp_path / "s", tmp_path / "r", jobs=1)
    assert ((tmp_path / "r").read_bytes(), [*spool.iterdir()]) == (RAM, [])


INSIDE = {
    "raw": b"x" * 4096,
    "qemu-stream": Stream([part(data(0, 1, b"ram"))]).build(),
    "mapped-ram": Mapped([Block(pages={0: 1})]).build(),
    "elf": Core([Segment(0, b"x" * 4096)]).build(),
}


@pytest.mark.parametrize("form", INSIDE)
def test_what_is_inside_is_recognised(tmp_path: Path, form: str) -> None:
    """A packed image of another format is saved as that."""
    result = snapmig.save(pack(tmp_path / "p", INSIDE[form]), tmp_path / "s", jobs=1)
    assert result.format == form


def snapshot(folder: Path) -> bytes:
    """Return the bytes of a snapshot."""
    (folder / "a").write_bytes(b"x" * 4096)
    snapmig.save(folder / "a", folder / "b", jobs=1)
    content = (folder / "b").read_bytes()
    for name in ("a", "b"):
        (folder / name).unlink()
    return content


OTHERS: dict[str, tuple[bytes | None, str]] = {
    "a snapshot": (None, "this is gzip data with a snapmig snapshot inside: restore it first"),
    "a disk": (b"QFI\xfb".ljust(8192, b"\0"), "with a qcow2 disk image inside: save the guest's"),
    "a text": (b"words\n" * 2048, "this is gzip data with a text file inside"),
    "packed again": (b"\x28\xb5\x2f\xfd".ljust(4096), "this is gzip data with zstd data inside"),
    "no whole pages": (b"\1" * 5000, "with 5000 bytes inside, expected whole pages of 4096"),
    "a long text": (b"words\n" * (1 << 19), "this is gzip data with a text file inside"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_no_image_inside_is_refused(tmp_path: Path, cli: Call, kind: str) -> None:
    """It is refused by what is inside, as it would be unpacked."""
    content, words = OTHERS[kind]
    path = pack(tmp_path / "p", snapshot(tmp_path) if content is None else content)
    outcome = cli("save", path, tmp_path / "s", "-j1")
    outcome.fails(4, words)
    assert [*tmp_path.iterdir()] == [path]


TRIED = [(packer, kind) for packer in PACKERS for kind in ("cut", "changed", "garbage after it")]


@pytest.mark.parametrize(
    ("packer", "damage"), sweep(TRIED, lambda tried: tried[0] in ("gzip", "zstd"))
)
def test_damage_is_an_error(tmp_path: Path, cli: Call, packer: str, damage: str) -> None:
    """A file that is cut, changed or followed by something else is never a snapshot."""
    path = pack(tmp_path / "p", RAM, packer)
    packed = bytearray(path.read_bytes())
    if damage == "cut":
        del packed[-20:]
    elif damage == "changed":
        packed[len(packed) // 2] ^= 0xFF
    else:
        packed += b"garbage" * 100
    path.write_bytes(packed)
    outcome = cli("save", path, tmp_path / "s", "-j1")
    outcome.fails(1, f"{path}: {packer} failed: ")
    assert [*tmp_path.iterdir()] == [path]


def test_an_empty_one_is_an_error(tmp_path: Path, cli: Call) -> None:
    """Packed nothing is not a guest."""
    cli("save", pack(tmp_path / "p", b""), tmp_path / "s").fails(1, "image is empty")


def test_zeros_take_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 64 MiB with one page of data, only that page counts against the free space."""
    requires("zstd")
    monkeypatch.setattr(unpacking, "free_bytes", lambda folder: 8192)  # noqa: ARG005
    ram.write_sparse(tmp_path / "a", 64 << 20, {40 << 20: b"x" * 4096})
    subprocess.run(["zstd", "-q", "a", "-o", "p"], cwd=tmp_path, check=True)
    assert snapmig.save(tmp_path / "p", tmp_path / "s", jobs=1).data_pages == 1


def test_a_full_disk_is_told(tmp_path: Path, cli: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would fill the disk is refused with the directory and the way to another."""
    monkeypatch.setattr(unpacking, "free_bytes", lambda folder: 1 << 20)  # noqa: ARG005
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    path = pack(tmp_path / "p", b"x" * (8 << 20))
    outcome = cli("save", path, tmp_path / "s", "-j1")
    outcome.fails(1, f"available in {tmp_path}; set TMPDIR to another directory")
    assert [*tmp_path.iterdir()] == [path]


def test_a_missing_program_is_named(
    tmp_path: Path, cli: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the program that unpacks it the sentence says which."""
    path = pack(tmp_path / "p", RAM)
    monkeypatch.setenv("PATH", str(tmp_path))
    cli("save", path, tmp_path / "s").fails(1, f"{path}: gzip is needed for this and not installed")


def test_as_raw_it_stays_packed(tmp_path: Path) -> None:
    """A user who calls it RAM is believed."""
    path = pack(tmp_path / "p", RAM)
    snapmig.save(path, tmp_path / "s", format="raw", jobs=1)
    snapmig.restore(tmp_path / "s", tmp_path / "r", jobs=1)
    assert (tmp_path / "r").read_bytes() == path.read_bytes()
