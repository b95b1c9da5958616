import ast
import subprocess
import sys
from pathlib import Path

import pytest
import xxhash

import snapmig
from examples import read_snapshot
from tests.support import program
from tests.support.builders import Attachment, Block, Snapshot, deflate, noise, text

SCRIPT = Path(read_snapshot.__file__)
PAGE = 4096
# Zero packets, packets of text, of noise and of both, and a short tail.
IMAGE = (
    text(200_000).ljust(1 << 20, b"\0")
    + bytes(1 << 20)
    + noise(150 * PAGE)
    + (noise(PAGE) + bytes(PAGE) + text(PAGE)) * 50
    + text(1234)
)
STATE = noise(3000) + text(100_000)


@pytest.fixture
def image(tmp_path):
    """Make a raw image."""
    path = tmp_path / "image"
    path.write_bytes(IMAGE)
    return path


@pytest.fixture
def snapshot(tmp_path, image):
    """Make a snapshot of two RAM blocks with an attachment."""
    other = tmp_path / "other"
    other.write_bytes(text(5 * PAGE + 1))
    blocks = [
        (snapmig.RamBlock.at(0, len(IMAGE), "ram"), image),
        (snapmig.RamBlock("other", 5 * PAGE + 1), other),
    ]
    path = tmp_path / "snapshot"
    snapmig.save(blocks, path, jobs=1, attach={"state": STATE})
    return path


def run(*arguments):
    """Run the example in this process."""
    return read_snapshot.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("layout", ["fixed", "packed"])
@pytest.mark.parametrize("window", ["4k", "32k"])
@pytest.mark.parametrize("packet_size", ["64K", "512K", "4M"])
def test_reads_what_save_writes(layout, window, packet_size, image, tmp_path):
    """The example restores what snapmig saves."""
    settings = {"layout": layout, "window": window, "packet_size": packet_size}
    snapmig.save(image, tmp_path / "snapshot", jobs=1, format="raw", **settings)
    run(tmp_path / "snapshot", "--output", tmp_path / "restored")
    assert (tmp_path / "restored").read_bytes() == IMAGE


@pytest.mark.parametrize("layout", ["fixed", "packed"])
@pytest.mark.parametrize(
    "way",
    [{"compression": "lz4"}, {"compression": "lz4", "level": 9}, {"compression": "none"}],
    ids=["lz4", "lz4 9", "none"],
)
def test_reads_other_compressions(layout, way, image, tmp_path):
    """The example restores what snapmig saves as LZ4 blocks, or without compression."""
    snapmig.save(image, tmp_path / "snapshot", jobs=1, layout=layout, format="raw", **way)
    run(tmp_path / "snapshot", "--output", tmp_path / "restored")
    assert (tmp_path / "restored").read_bytes() == IMAGE


def test_reads_zstd_where_python_does(image, tmp_path, capsys):
    """Of zstd the example restores the image, or it says in one line that it needs Python 3.14."""
    snapmig.save(image, tmp_path / "snapshot", jobs=1, compression="zstd", format="raw")
    code = run(tmp_path / "snapshot", "--output", tmp_path / "restored")
    words = "for which this reader needs Python 3.14.\n"
    if read_snapshot.zstd is None:
        err = capsys.readouterr().err
        assert (code, err.count("\n"), err.endswith(words)) == (4, 1, True)
    else:
        assert (code, (tmp_path / "restored").read_bytes() == IMAGE) == (0, True)


def test_info_needs_no_decoder(image, tmp_path, monkeypatch):
    """A snapshot is described even if it can't be decoded."""
    monkeypatch.setattr(read_snapshot, "zstd", None)
    snapmig.save(image, tmp_path / "snapshot", jobs=1, compression="zstd", format="raw")
    assert run(tmp_path / "snapshot", "--info") == 0


@pytest.mark.parametrize("layout", ["fixed", "packed"])
@pytest.mark.parametrize("level", range(4))
def test_verifies_what_save_writes(layout, level, image, tmp_path):
    """The example finds nothing wrong with what snapmig saves at any level."""
    snapmig.save(image, tmp_path / "snapshot", jobs=1, layout=layout, level=level, format="raw")
    assert run(tmp_path / "snapshot") == 0


@pytest.mark.parametrize("layout", ["fixed", "packed"])
def test_reads_zeros(layout, tmp_path):
    """The example restores an image that is all zeros."""
    (tmp_path / "image").write_bytes(bytes(3_000_001))
    snapmig.save(tmp_path / "image", tmp_path / "snapshot", jobs=1, layout=layout, format="raw")
    run(tmp_path / "snapshot", "--output", tmp_path / "restored")
    assert bytes(3_000_001) == (tmp_path / "restored").read_bytes()


def test_restores_all_blocks(snapshot, tmp_path):
    """The example restores RAM blocks end to end."""
    run(snapshot, "--output", tmp_path / "restored")
    assert IMAGE + text(5 * PAGE + 1) == (tmp_path / "restored").read_bytes()


def test_restores_one_block(snapshot, tmp_path):
    """The example restores one RAM block by its name."""
    run(snapshot, "--block", "other", "--output", tmp_path / "restored")
    assert text(5 * PAGE + 1) == (tmp_path / "restored").read_bytes()


def test_restores_holes(snapshot, tmp_path):
    """A restored image has holes for zero pages."""
    run(snapshot, "--output", tmp_path / "restored")
    facts = (tmp_path / "restored").stat()
    assert facts.st_blocks * 512 < facts.st_size - (1 << 20)


def test_writes_an_attachment(snapshot, tmp_path):
    """The example writes an attachment to a file."""
    run(snapshot, "--attachment", "state", "--output", tmp_path / "state")
    assert (tmp_path / "state").read_bytes() == STATE


def test_prints_an_attachment(snapshot):
    """The example writes an attachment to standard output when no file is named."""
    command = [sys.executable, SCRIPT, snapshot, "--attachment", "state"]
    assert subprocess.run(command, check=True, capture_output=True).stdout == STATE


def test_streams_a_large_attachment(tmp_path):
    """An attachment that decodes to more than one piece comes out whole."""
    contents = bytes(5 << 20) + text(1 << 20) + bytes(1 << 20)
    built = Snapshot([Block("ram", b"1")], attachments=[Attachment("a", contents, 3)])
    (tmp_path / "snapshot").write_bytes(built.build())
    run(tmp_path / "snapshot", "--attachment", "a", "--output", tmp_path / "a")
    assert contents == (tmp_path / "a").read_bytes()


def test_refuses_an_attachment_that_decodes_to_more(tmp_path):
    """A stream that gives far more than the attachment's size is refused."""
    built = Snapshot(
        [Block("ram", b"1")],
        attachments=[Attachment("a", bytes(1000), 3)],
        attachments_stored={0: deflate(bytes(50 << 20))},
    )
    (tmp_path / "snapshot").write_bytes(built.build())
    assert run(tmp_path / "snapshot", "--attachment", "a", "--output", tmp_path / "a") == 3


@pytest.mark.parametrize(
    "line",
    [
        "packet_size               524288",
        f"RAM block 'ram': {len(IMAGE)} bytes, pages of 4096",
        f"piece at 0x0: {len(IMAGE)} bytes of RAM block 'ram' from 0x0 on",
        f"RAM block 'other': {5 * PAGE + 1} bytes, pages of 4096",
    ],
)
def test_info(line, snapshot, capsys):
    """The example prints what a snapshot is."""
    run(snapshot, "--info")
    assert line in capsys.readouterr().out.splitlines()


def test_missing_snapshot(tmp_path):
    """A snapshot that is not there is a failure."""
    assert run(tmp_path / "snapshot") == 1


@pytest.mark.parametrize("option", ["--block", "--attachment"])
def test_unknown_name(option, snapshot):
    """A name that the snapshot does not have is a failure."""
    assert run(snapshot, option, "unknown") == 1


def test_wrong_usage(snapshot):
    """An unknown option is wrong usage."""
    with pytest.raises(SystemExit) as caught:
        run(snapshot, "--unknown")
    assert caught.value.code == 2


def test_one_line_for_an_error(image):
    """The program says what is wrong in one sentence."""
    result = program.call([sys.executable, SCRIPT, image])
    result.fails(3, err=f"{image}: This is not a snapshot.\n")


@pytest.mark.parametrize(
    "size",
    [241, 255, 256, 257, 1023, 1024, 1025, 1087, 1088, 1089, 2048, 4096, 8192, 65536, 1 << 20],
)
def test_xxh3(size):
    """The example's XXH3-128 is that of the xxhash package."""
    data = noise(size, size)
    assert xxhash.xxh3_128_digest(data) == read_snapshot.xxh3_128(data)


@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
def test_xxh3_of_extremes(byte):
    """The example's sums don't overflow where those of the xxhash package don't."""
    data = byte * (3 * PAGE)
    assert xxhash.xxh3_128_digest(data) == read_snapshot.xxh3_128(data)


def test_imports_only_the_standard_library():
    """The example needs nothing but Python, until a key is given."""
    tree = ast.parse(SCRIPT.read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    names = {alias.name for node in imports for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    known = sys.stdlib_module_names | {"compression"}  # that is of Python 3.14
    assert set() == {name.split(".")[0] for name in names} - known
