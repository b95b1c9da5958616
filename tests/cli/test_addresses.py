"""Facts about guest physical addresses on the command line, and where snapshots keep them."""

from collections.abc import Callable
from pathlib import Path

import pytest

import snapmig
from snapmig import RamBlock, RamPiece
from tests.support import ram
from tests.support.outcome import Outcome

Call = Callable[..., Outcome]

MIB, GIB = 1 << 20, 1 << 30
RAM = ram.mixed(2 * MIB)
PIECES = (RamPiece(0, MIB, 0), RamPiece(MIB, MIB, 4 * GIB))
GIVEN = ("--address", "ram=0", "--address", "ram@1M=4G", "--arch", "aarch64")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder with an image, which is the current one."""
    monkeypatch.chdir(tmp_path)
    ram.write(tmp_path / "guest.ram", RAM)
    ram.write(tmp_path / "later.ram", RAM[:-4096] + bytes(4096))
    return tmp_path


def known(path: str) -> tuple[tuple[RamPiece, ...], str | None]:
    """Return what a snapshot knows of its only RAM block, and of the processors."""
    found = snapmig.info(path)
    return found.blocks[0].pieces, found.architecture


def save(cli: Call, *arguments: str) -> str:
    """Save the image, and return the snapshot."""
    cli("save", *arguments, "guest.ram", "guest.snap").ok()
    return "guest.snap"


def test_given_addresses_are_kept(cli: Call) -> None:
    """The pieces and the architecture that a save is given are in the snapshot."""
    assert known(save(cli, *GIVEN)) == (PIECES, "aarch64")


def test_info_shows_them(cli: Call) -> None:
    """Each piece is shown with its size."""
    lines = cli("info", save(cli, *GIVEN)).lines
    assert "RAM block    ram: 2.0 MiB at 0x0 (1.0 MiB), 0x100000000 (1.0 MiB)" in lines


def test_info_shows_the_processors(cli: Call) -> None:
    """So is the architecture, by its name."""
    assert "processors   aarch64" in cli("info", save(cli, *GIVEN)).lines


def test_info_prints_pieces_as_json(cli: Call) -> None:
    """Programs get each piece as an object."""
    found = cli("info", "--json", save(cli, *GIVEN)).json
    assert found["blocks"][0]["pieces"] == [
        {"offset": 0, "size": MIB, "gpa": 0},
        {"offset": MIB, "size": MIB, "gpa": 4 * GIB},
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--address", "ram"], "'ram', expected BLOCK=GPA"),
        (["--address", "=5"], "'=5', expected BLOCK=GPA"),
        (["--address", "ram=x"], "'x', expected a number"),
        (["--address", "ram=-1"], "'-1', expected a number"),
        (["--address", "ram=0xg"], "'0xg', expected a number"),
        (["--address", "ram="], "'', expected a number"),
        (["--address", "rom=0"], "no RAM block 'rom' to give an address, there are 'ram'"),
        (["--address", "ram@x=0"], "'x', expected a number"),
        (["--address", "ram@2M=0"], "a piece of 0 from 0x200000 on"),
        (["--address", "ram@4097=0"], "from 0x1001 on, expected whole pages"),
        (["--address", "ram=0", "--address", "ram@0=5"], "given two addresses from 0x0 on"),
        (["--address", "ram=0", "--address", "ram@1M=4K"], "have the address 0x1000 in common"),
        (["--address", "ram=0x100000000000000"], "expected all below 0x100000000000000"),
        (["--arch", "vax"], "invalid choice: 'vax'"),
    ],
    ids=range(14),
)
def test_addresses_that_can_not_be_are_refused(cli: Call, arguments: list[str], words: str) -> None:
    """Wrong usage ends with exit code 2 and a sentence, and nothing is made."""
    outcome = cli("save", *arguments, "guest.ram", "guest.snap")
    outcome.fails(2, words)
    assert not Path("guest.snap").exists()


@pytest.mark.parametrize("form", ["elf", "raw-by-address"])
def test_a_restore_without_addresses_names_the_option(cli: Call, form: str) -> None:
    """Exit code 2, and the words that help."""
    outcome = cli("restore", save(cli), "image", "--format", form)
    outcome.fails(2, "--address BLOCK=GPA")


def test_a_restore_takes_addresses(cli: Call) -> None:
    """An older snapshot becomes a core by what the user says then."""
    arguments = ("--format", "elf", "--address", "ram=1G", "--arch", "arm")
    cli("restore", save(cli), "core", *arguments).ok()
    snapmig.save("core", "core.snap")
    assert known("core.snap") == ((RamPiece(0, 2 * MIB, GIB),), "arm")


def test_an_increment_has_the_addresses_of_its_parent(cli: Call) -> None:
    """An image that does not tell them is the same guest's."""
    parent = save(cli, *GIVEN)
    cli("save", "later.ram", "later.snap", "--parent", parent).ok()
    assert known("later.snap") == (PIECES, "aarch64")


def test_an_increment_may_be_given_others(cli: Call) -> None:
    """Addresses given by the user go before those of the parent."""
    parent = save(cli, *GIVEN)
    more = ("--parent", parent, "--address", "ram=1G", "--arch", "arm")
    cli("save", "later.ram", "later.snap", *more).ok()
    assert known("later.snap") == ((RamPiece(0, 2 * MIB, GIB),), "arm")


@pytest.mark.parametrize(
    "command",
    [
        ("merge", "later.snap", "new.snap"),
        ("repack", "later.snap", "new.snap", "--compression", "none"),
        ("rebase", "later.snap", "--parent", "other.snap"),
    ],
    ids=lambda command: command[0],
)
def test_rewritten_snapshots_keep_addresses(cli: Call, command: tuple[str, ...]) -> None:
    """merge, repack and rebase lose nothing of them."""
    parent = save(cli, *GIVEN)
    cli("save", "guest.ram", "other.snap").ok()
    cli("save", "later.ram", "later.snap", "--parent", parent).ok()
    cli(*command).ok()
    assert known("later.snap" if command[0] == "rebase" else "new.snap") == (PIECES, "aarch64")


def test_shares_keep_addresses(cli: Call) -> None:
    """A snapshot of several hosts has what each of them was given."""
    for number in (1, 2):
        save_share = ("save", "guest.ram", "s", *GIVEN, "--share", f"{number}/2")
        cli(*save_share).ok()
    cli("commit", "s").ok()
    assert known("s") == (PIECES, "aarch64")


def test_shares_with_other_addresses_are_refused(cli: Call) -> None:
    """All hosts save the same guest."""
    cli("save", "guest.ram", "s", *GIVEN, "--share", "1/2").ok()
    outcome = cli("save", "guest.ram", "s", "--address", "ram=0", "--share", "2/2")
    outcome.fails(2, "shares have blocks")


def test_a_batch_gives_addresses(cli: Call, folder: Path) -> None:
    """The file of a batch has both as tables and words."""
    (folder / "jobs.toml").write_text(
        '[[save]]\nimage = "guest.ram"\nsnapshot = "{stem}.snap"\narch = "aarch64"\n'
        'address = {ram = 0, "ram@1M" = "4G"}\n'
    )
    cli("batch", "jobs.toml").ok()
    assert known("guest.snap") == (PIECES, "aarch64")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('address = {ram = "x"}', "'x', expected a number"),
        ('arch = "vax"', "architecture is 'vax'"),
        ("address = 5", "address"),
    ],
    ids=range(3),
)
def test_a_batch_refuses_what_can_not_be(cli: Call, folder: Path, line: str, words: str) -> None:
    """Before the first job begins, with the table's name."""
    jobs = f'[[save]]\nimage = "guest.ram"\nsnapshot = "s"\n{line}\n'
    (folder / "jobs.toml").write_text(jobs)
    outcome = cli("batch", "jobs.toml")
    outcome.fails(2, words, "[[save]] 1")


def test_a_diff_tells_ranges_by_address(cli: Call) -> None:
    """Changed pages are told where the guest has them, each range within one piece."""
    first = save(cli, *GIVEN)
    changed = RAM[: MIB - 4096] + bytes(8192) + RAM[MIB + 4096 :]
    ram.write(Path("changed.ram"), changed)
    cli("save", "changed.ram", "second.snap", "--parent", first).ok()
    (block,) = snapmig.diff(first, "second.snap").blocks
    assert [(part.offset, part.gpa, part.pages) for part in block.ranges] == [
        (MIB - 4096, MIB - 4096, 1),
        (MIB, 4 * GIB, 1),
    ]


def several(cli: Call) -> Outcome:
    """Restore a snapshot of two RAM blocks as a raw file."""
    blocks = [
        (RamBlock("pc.ram", 2 * MIB), "guest.ram"),
        (RamBlock("vga\x1b", 2 * MIB), "later.ram"),
    ]
    snapmig.save(blocks, "blocks.snap")
    return cli("restore", "blocks.snap", "image", "--format", "raw")


def test_a_raw_file_of_several_blocks_is_told_of(cli: Call) -> None:
    """A warning has each RAM block and its offset, safe to print, and names --block."""
    assert several(cli).err == (
        "snapmig: warning: a raw file does not tell its RAM blocks apart, and this one has 2: "
        "'pc.ram' at 0x0, 'vga\\x1b' at 0x200000; --block NAME restores one of them\n"
    )


def test_a_raw_file_of_several_blocks_is_made(cli: Call) -> None:
    """It is a warning and no refusal, for it may be what was wanted."""
    several(cli).ok(err=None)
    assert Path("image").read_bytes() == RAM + RAM[:-4096] + bytes(4096)


def test_one_block_is_restored_without_a_word(cli: Call) -> None:
    """The option named by the warning gives the RAM alone."""
    several(cli)
    outcome = cli("restore", "-f", "blocks.snap", "image", "--block", "pc.ram")
    outcome.ok()
    assert Path("image").read_bytes() == RAM
