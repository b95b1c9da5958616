"""Facts about migration files without shared RAM, made with QEMU's x-ignore-shared."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.outcome import Outcome
from tests.support.qemu_files import PAGE, Block, Mapped, Stream, data

RAM = Block(b"pc.ram", gpa=0, left_out=True)
ROM = Block(b"pc.rom", pages={1: 7}, gpa=0)
FILES = {
    "mapped-ram": Mapped([RAM, ROM], capabilities=(b"x-ignore-shared", b"mapped-ram")).build(),
    "qemu-stream": Stream(
        [b"\x02" + (2).to_bytes(4) + data(1, 7, b"pc.rom") + (0x10).to_bytes(8) + b"\x7e\0\0\0\2"],
        blocks=[RAM, ROM],
        capabilities=(b"x-ignore-shared",),
    ).build(),
}
WHOLE = Mapped([Block(b"pc.ram", pages={3: 1}), Block(b"pc.rom", pages={1: 7})]).build()


@pytest.fixture(params=FILES)
def saved(request: pytest.FixtureRequest, shm: Path, cli: Callable[..., Outcome]) -> Outcome:
    """Give the outcome of a save of such a file."""
    (shm / "state").write_bytes(FILES[request.param])
    return cli("save", shm / "state", shm / "snap")


def test_a_save_warns(saved: Outcome, shm: Path) -> None:
    """A file without the guest's RAM is saved with a warning that names the missing RAM."""
    warning = (
        f"snapmig: warning: {shm}/state: was made with x-ignore-shared and does not have RAM "
        f"'pc.ram' of {16 * PAGE >> 10}.0 KiB, nor does the snapshot; save the running "
        "guest as qmp:SOCKET\n"
    )
    saved.warns(err=warning)


@pytest.mark.usefixtures("saved")
def test_info_shows_it(shm: Path, cli: Callable[..., Outcome]) -> None:
    """The missing RAM is a line of its own."""
    line = "RAM missing  pc.ram: 64.0 KiB, left out by x-ignore-shared\n"
    assert line in cli("info", shm / "snap").out


@pytest.mark.usefixtures("saved")
def test_info_shows_it_as_json(shm: Path, cli: Callable[..., Outcome]) -> None:
    """The missing RAM is a field, and no RAM block of the snapshot."""
    found = cli("info", "--json", shm / "snap").json
    assert [item["name"] for item in found["blocks"]] == ["pc.rom"]
    assert [(item["name"], item["size"]) for item in found["left_out_blocks"]] == [
        ("pc.ram", 16 * PAGE)
    ]


def test_a_whole_file_has_no_warning(shm: Path, cli: Callable[..., Outcome]) -> None:
    """A file with all of the guest's RAM is saved without a warning, and misses nothing."""
    (shm / "state").write_bytes(WHOLE)
    cli("save", shm / "state", shm / "snap").ok()
    assert cli("info", "--json", shm / "snap").json["left_out_blocks"] == []
