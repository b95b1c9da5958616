"""Facts about unsuitable images and destinations."""

import os
import shutil
import sys

import pytest

import snapmig
from tests.support import filesystems, program, ram
from tests.support.requirements import requires

root = pytest.mark.root
POWERLESS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
"""Has even root heed the permissions of files."""


@pytest.fixture
def place(shm, monkeypatch):
    """Give a working directory for a program, with an image, a snapshot and other things."""
    monkeypatch.chdir(shm)
    ram.write(shm / "a.ram", ram.mixed(74 * ram.PAGE))
    snapmig.save("a.ram", "a.snap")
    (shm / "dir").mkdir()
    (shm / "empty").touch()
    (shm / "old").write_bytes(b"old")
    os.mkfifo("fifo")
    (shm / "link").symlink_to("a.ram")
    return shm


@pytest.mark.parametrize(
    ("arguments", "code", "err"),
    [
        ("save a.ram old", 1, "old: exists already, -f overwrites it"),
        ("save a.ram dir", 1, "dir: the destination is a directory"),
        ("save a.ram dir -f", 1, "dir: the destination is a directory"),
        ("save a.ram fifo -f", 1, "fifo: the destination is not a regular file"),
        ("save a.ram none/s", 1, "none/s: there is no directory none"),
        ("save a.ram old/s", 1, "old/s: there is no directory old"),
        ("save a.ram a.ram", 1, "a.ram: exists already, -f overwrites it"),
        ("save a.ram a.ram -f", 2, "a.ram: image and snapshot are the same file"),
        ("save a.ram link -f", 2, "link: image and snapshot are the same file"),
        ("save empty s", 1, "empty: image is empty, expected a guest's RAM"),
        ("save dir s", 1, "dir: is a directory, and not an image of a known format"),
        ("save fifo s", 1, "fifo: image is not a regular file but a FIFO"),
        ("save /dev/zero s", 1, "/dev/zero: image is not a regular file but a character device"),
        ("save none s", 1, "none: No such file or directory"),
        ("save a.ram s --attach x=none", 1, "none: No such file or directory"),
        (
            "save a.ram s --attach x=dir",
            1,
            "dir: attachment 'x' is not a regular file but a directory",
        ),
        ("restore a.snap old", 1, "old: exists already, -f overwrites it"),
        ("restore a.snap dir", 1, "dir: the destination is a directory"),
        ("restore a.snap dir -f", 1, "dir: the destination is a directory"),
        ("restore a.snap none/r", 1, "none/r: there is no directory none"),
        ("restore a.snap a.snap -f", 2, "a.snap: image and snapshot are the same file"),
        ("restore a.snap a.snap --in-place", 2, "a.snap: image and snapshot are the same file"),
        ("restore a.snap none --in-place", 1, "none: No such file or directory"),
        ("restore a.snap dir --in-place", 1, "dir: image is not a regular file but a directory"),
        ("restore a.snap fifo --in-place", 1, "fifo: image is not a regular file but a FIFO"),
        ("restore a.snap old --in-place", 1, "old: image has 3 bytes, the snapshot's RAM 303104"),
        ("restore a.snap r --block x", 2, "a.snap: has no RAM block 'x', it has ram"),
        ("restore none r", 1, "none: No such file or directory"),
        ("restore dir r", 1, "dir: not a regular file but a directory"),
        ("info none", 1, "none: No such file or directory"),
        ("info dir", 1, "dir: not a regular file but a directory"),
        ("verify none", 1, "none: No such file or directory"),
    ],
    ids=lambda value: value if isinstance(value, str) and ":" not in value else "",
)
def test_refusals(place, cli, arguments, code, err):
    """Impossible requests are refused with their code and one sentence, and change nothing."""
    before = sorted(place.iterdir())
    outcome = cli(*arguments.split())

    outcome.fails(code, out="", err=f"snapmig: {err}\n")
    assert (sorted(place.iterdir()), (place / "old").read_bytes()) == (before, b"old")


@pytest.mark.parametrize("verb", ["info", "verify", "restore"])
def test_a_pipe_is_no_snapshot(place, verb):
    """A named pipe is refused at once, instead of waiting for a writer for ever."""
    more = {"restore": ["r"]}.get(verb, [])
    result = program.run(verb, "fifo", *more, cwd=place)

    result.fails(1, "not a regular file")


def test_a_directory_that_may_not_be_written(place):
    """A directory without permission is named."""
    requires("setpriv")
    (place / "dir").chmod(0o555)
    result = _run_powerless("save", "a.ram", "dir/s")

    result.fails(1, start="snapmig: dir/")
    assert result.err.endswith("Permission denied\n")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("a.ram", "save a.ram s"),
        ("a.snap", "restore a.snap r"),
        ("a.snap", "info a.snap"),
        ("a.snap", "verify a.snap"),
        ("old", "restore --in-place a.snap old"),
        ("old", "save a.ram s --attach x=old"),
    ],
)
def test_files_that_may_not_be_opened(place, name, arguments):
    """A file without permission is named."""
    requires("setpriv")
    (place / name).chmod(0)
    result = _run_powerless(*arguments.split())

    result.fails(1, err=f"snapmig: {name}: Permission denied\n")


@root
@pytest.mark.parametrize("arguments", ["save a.ram ro/s", "restore a.snap ro/r"])
def test_a_filesystem_that_may_not_be_written(place, cli, tmp_path, arguments):
    """A read-only filesystem is named, by the name given by the user."""
    with filesystems.mounted("tmpfs", tmp_path / "ro", "ro"):
        (place / "ro").symlink_to(tmp_path / "ro")
        outcome = cli(*arguments.split())

    outcome.fails(1, out="", err=f"snapmig: {arguments.split()[-1]}: Read-only file system\n")


def test_the_name_of_a_partial_file_is_in_no_message(place):
    """If the partial file can't be made, the message has the name given by the user."""
    requires("setpriv")
    (place / "dir").chmod(0o555)
    result = _run_powerless("restore", "a.snap", "dir/r")

    assert result.err == "snapmig: dir/r: Permission denied\n"


@pytest.mark.parametrize("name", ["€" * 85, "a b\n'\"", "-x", "ü" * 127])
def test_names_of_any_characters(place, name):
    """A snapshot may have any name accepted by its filesystem."""
    snapmig.save("a.ram", place / name)

    assert snapmig.verify(place / name).ok


@pytest.mark.parametrize("json", [(), ("--json",)])
def test_names_that_are_no_text(place, json):
    """A name of bytes other than UTF-8 is saved to and shown without an error."""
    name = os.fsdecode(b"\xff\xfe.snap")
    environment = {**program.ENVIRONMENT, "PYTHONIOENCODING": "utf-8:strict"}
    result = program.run("save", "a.ram", name, *json, cwd=place, env=environment)

    result.ok()


def _run_powerless(*arguments):
    return program.call([*POWERLESS, sys.executable, "-m", "snapmig", *arguments], timeout=30)


def test_powerless_means_what_it_says(place):
    """The tests above really run without the power over permissions."""
    requires("setpriv")
    (place / "old").chmod(0)

    program.call([*POWERLESS, shutil.which("cat"), "old"], cwd=place).fails(1, "Permission denied")
