"""Facts about images of every format restored from chains of snapshots."""

from dataclasses import replace

import pytest

import snapmig
from tests.images.test_elf import MIB, Core, Segment
from tests.support import ram
from tests.support.qemu_files import Block, Mapped

FORMATS = ["raw", "raw-by-address", "cloud-hypervisor", "elf", "firecracker", "mapped-ram"]


def as_saved(path, folder):
    """Save a file and restore it from that snapshot alone."""
    snapmig.save(path, folder / "alone", jobs=1)
    snapmig.restore(folder / "alone", folder / "from-alone", jobs=1)
    return (folder / "from-alone").read_bytes()


def as_increment(old, new, folder):
    """Save two files, the second with the first as parent, and restore the second."""
    snapmig.save(old, folder / "old.snap", jobs=1)
    result = snapmig.save(new, folder / "new.snap", parent=folder / "old.snap", jobs=1)
    assert result.same_pages > 0
    snapmig.restore(folder / "new.snap", folder / "again", jobs=1)
    return (folder / "again").read_bytes()


def test_a_mapped_ram_file_of_a_chain(tmp_path):
    """QEMU's file is the same from a chain as from a snapshot of its own."""
    one = Mapped([Block(pages={0: 1, 3: 2, 15: 3}), Block(b"pc.bios", 70 * 4096, {1: 4, 65: 5})])
    two = replace(one, blocks=[replace(one.blocks[0], pages={0: 1, 3: 9, 14: 3}), one.blocks[1]])
    for name, built in (("old", one), ("new", two)):
        (tmp_path / name).write_bytes(built.build())
    found = as_increment(tmp_path / "old", tmp_path / "new", tmp_path)

    assert found == as_saved(tmp_path / "new", tmp_path)


def test_an_elf_core_of_a_chain(tmp_path):
    """A core equals the saved one, byte for byte."""
    content = ram.mixed(3 * MIB, 2)
    changed = content[:MIB] + ram.text(3).tobytes() + content[MIB + 3 * ram.PAGE :]
    for name, data in (("old", content), ("new", changed)):
        (tmp_path / name).write_bytes(Core((Segment(0, data), Segment(4 * MIB, data))).build())

    found = as_increment(tmp_path / "old", tmp_path / "new", tmp_path)

    assert found == (tmp_path / "new").read_bytes()


@pytest.mark.parametrize("name", FORMATS)
def test_a_chain_to_another_format(tmp_path, name):
    """Any possible format of a snapshot has the same bytes from a chain."""
    content = ram.mixed(2 * MIB, 4)
    ram.write(tmp_path / "old", ram.mixed(2 * MIB, 5))
    ram.write(tmp_path / "new", content)
    block = snapmig.RamBlock.at(0, 2 * MIB, "ram")
    snapmig.save([(block, tmp_path / "old")], tmp_path / "parent", jobs=1)
    snapmig.save([(block, tmp_path / "new")], tmp_path / "alone", jobs=1)
    snapmig.save(
        [(block, tmp_path / "new")], tmp_path / "child", parent=tmp_path / "parent", jobs=1
    )
    outcomes = []
    for snapshot in ("alone", "child"):
        image = tmp_path / f"{snapshot}.image"
        try:
            snapmig.restore(tmp_path / snapshot, image, format=name, jobs=1)
            outcomes.append(image.read_bytes() if image.is_file() else _files(image))
        except snapmig.UsageError as error:
            outcomes.append(error.message)

    assert outcomes[0] == outcomes[1]


def _files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
