"""Facts about what builds the guests: sizes, archives, versions, packages and the stand-in."""

import io
from pathlib import Path

import pytest

from tests.support.guests import standin
from tests.support.guests.build import Request, build
from tests.support.guests.cpio import CpioWriter
from tests.support.guests.image import PAGE, parse_size, read_pieces, write_image
from tests.support.guests.packages import first_alternatives
from tests.support.guests.qemu import find_qemu, parse_version
from tests.support.guests.standin import standin_pieces

DEPENDS = """\
python3
 |Depends: media-types
  Depends: mime-support
  PreDepends: libc6
  Depends: <awk>
    gawk
    mawk
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Return a folder with two files that a stand-in can be made from."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "a").write_bytes(b"program a" * 1000)
    (folder / "b").write_bytes(b"program b" * 2000)
    return folder


@pytest.fixture
def request_for_standin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, programs: Path) -> Request:
    """Return a request for a small stand-in that is made from the two files."""
    monkeypatch.setattr(standin, "source_folders", lambda: (programs,))
    return Request(1 << 20, tmp_path / "image", stand_in=True)


def archive_with_a_file() -> bytes:
    """Return an archive with one file of five bytes."""
    stream = io.BytesIO()
    archive = CpioWriter(stream)
    archive.file("init", b"hello", 0o755)
    archive.close()
    return stream.getvalue()


@pytest.mark.parametrize(
    ("text", "size"), [("256M", 256 << 20), ("2G", 2 << 30), ("2GiB", 2 << 30), ("8192", 8192)]
)
def test_size(text: str, size: int) -> None:
    """A size is a number of bytes with or without a binary unit."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "2X", "-4096", "4097", "1.5G"])
def test_size_refused(text: str) -> None:
    """A size that is not a positive number of whole pages is refused."""
    with pytest.raises(ValueError, match="not a memory size"):
        parse_size(text)


def test_archive_header() -> None:
    """An entry of an archive begins with its magic number, its number and its mode."""
    assert archive_with_a_file().startswith(b"07070100000001000081ED")


def test_archive_content() -> None:
    """A file's name and content each end with zeros up to a multiple of four bytes."""
    assert archive_with_a_file()[110:124] == b"init\0\0hello\0\0\0"


def test_archive_end() -> None:
    """An archive ends with the entry that Linux looks for."""
    assert archive_with_a_file().rstrip(b"\0").endswith(b"TRAILER!!!")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright", ("10.0.2", 10)),
        ("QEMU emulator version 7.2.9", ("7.2.9", 7)),
        ("something else", ("", 0)),
    ],
)
def test_qemu_version(text: str, version: tuple[str, int]) -> None:
    """QEMU's version is read from the first line that it prints."""
    assert parse_version(text) == version


def test_no_qemu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without QEMU the reason says that it is not installed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_qemu().reason == "qemu-system-x86_64 is not installed"


def test_old_qemu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a QEMU that is too old the reason says both versions."""
    program = tmp_path / "qemu-system-x86_64"
    program.write_text("#!/bin/sh\necho QEMU emulator version 6.2.0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_qemu().reason.endswith("is version 6.2.0, and 7 or newer is needed")


def test_dependencies() -> None:
    """Of alternative packages, and of those that provide a virtual one, the first is taken."""
    assert first_alternatives(DEPENDS) == {"media-types", "libc6", "gawk"}


def test_image_pages(tmp_path: Path) -> None:
    """Writing an image counts the pages that are not zero."""
    pieces = [(PAGE, b"x" * PAGE + bytes(PAGE) + b"y" * PAGE)]
    assert write_image(tmp_path / "image", 8 * PAGE, pieces) == 2


def test_image_content(tmp_path: Path) -> None:
    """An image holds its pieces at their offsets and zeros elsewhere."""
    write_image(tmp_path / "image", 3 * PAGE, [(PAGE, b"x" * PAGE)])
    assert (tmp_path / "image").read_bytes() == bytes(PAGE) + b"x" * PAGE + bytes(PAGE)


def test_image_holes(tmp_path: Path) -> None:
    """Zero pages of an image take no place on the disk."""
    write_image(tmp_path / "image", 64 << 20, [(32 << 20, b"x" * PAGE)])
    assert (tmp_path / "image").stat().st_blocks * 512 < 1 << 20


def test_image_pieces(tmp_path: Path) -> None:
    """Reading an image that has no holes gives all of it."""
    write_image(tmp_path / "image", PAGE, [(0, b"x" * PAGE)])
    assert list(read_pieces(tmp_path / "image")) == [(0, b"x" * PAGE)]


def test_image_not_left_half(tmp_path: Path) -> None:
    """An image whose writing fails leaves no file."""
    with pytest.raises(ValueError, match="cannot reshape"):
        write_image(tmp_path / "image", PAGE, [(0, b"x" * 8)])
    assert list(tmp_path.iterdir()) == []


def test_standin_same(programs: Path) -> None:
    """A stand-in is the same each time it is made from the same files."""
    assert list(standin_pieces(1 << 22, [programs])) == list(standin_pieces(1 << 22, [programs]))


def test_standin_zero_share(tmp_path: Path, programs: Path) -> None:
    """Between a quarter and a third of a stand-in is zero."""
    pieces = standin_pieces(1 << 25, [programs])
    assert 0.67 < write_image(tmp_path / "image", 1 << 25, pieces) / (1 << 13) < 0.75


def test_standin_says_so(request_for_standin: Request) -> None:
    """An image that is a stand-in is called one in its facts, with the reason."""
    facts, _ = build(request_for_standin)
    assert (facts["kind"], facts["reason"]) == ("stand-in", "a stand-in was asked for")


def test_standin_made_once(request_for_standin: Request) -> None:
    """An image that is there is not made again."""
    build(request_for_standin)
    assert not build(request_for_standin)[1]
