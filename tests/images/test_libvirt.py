"""Facts about libvirt's save images, built by hand."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import snapmig
from snapmig.errors import SnapmigError
from snapmig.images import unpacking
from tests.support.libvirt_images import (
    COOKIE,
    GZIP,
    LZOP,
    PROGRAMS,
    RAM,
    RAW,
    RECORDS,
    SPARSE,
    XML,
    Image,
)
from tests.support.outcome import Outcome
from tests.support.qemu_files import PAGE, Mapped, Stream, ram_of
from tests.support.requirements import requires

Write = Callable[[Image | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Give a function that writes a file."""

    def put(built: Image | bytes) -> Path:
        path = tmp_path / "image"
        path.write_bytes(built if isinstance(built, bytes) else built.build())
        return path

    return put


def again(path: Path, kind: str | None = None) -> Path:
    """Save a file and restore it."""
    snapmig.save(path, path.with_name("snap"), jobs=1)
    snapmig.restore(path.with_name("snap"), path.with_name("again"), format=kind, jobs=1)
    return path.with_name("again")


@pytest.fixture(params=["raw", "sparse", "gzip", "bzip2", "xz", "zstd"])
def kind(request: pytest.FixtureRequest) -> int:
    """Give each kind of image possible here."""
    kinds = {"raw": RAW, "sparse": SPARSE, **{name: kind for kind, name in PROGRAMS.items()}}
    if request.param in PROGRAMS.values():
        requires(request.param)
    return kinds[request.param]


def test_it_is_recognised(write: Write, kind: int) -> None:
    """The format of an image shows in its content."""
    path = write(Image(kind))
    snapmig.save(path, path.with_name("snap"), jobs=1)
    assert snapmig.info(path.with_name("snap")).source == "libvirt"


def test_ram_is_read(write: Write, kind: int) -> None:
    """The RAM of an image is that of QEMU's stream in it, stale bytes and old copies left out."""
    assert {"ram": RAM.content} == ram_of(write(Image(kind)))


def test_ram_is_restored(write: Write, kind: int) -> None:
    """The RAM of a restored image is that of the saved one."""
    assert {"ram": RAM.content} == ram_of(again(write(Image(kind))))


@pytest.mark.parametrize("cookie", [COOKIE, b""], ids=["cookie", "no cookie"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize("kind", [RAW, SPARSE], ids=["raw", "sparse"])
def test_head_is_kept(write: Write, kind: int, order: str, cookie: bytes) -> None:
    """Header, XML, cookie and the room after them are restored byte for byte."""
    image = Image(kind, order=order, cookie=cookie)
    head = image.head()
    assert head == again(write(image)).read_bytes()[: len(head)]


@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
def test_compressed_becomes_raw(write: Write, order: str) -> None:
    """Only the kind changes in the head of a compressed image."""
    requires("gzip")
    image = Image(GZIP, order=order)
    head = replace(image, kind=RAW).head()
    assert head == again(write(image)).read_bytes()[: len(head)]


def test_sparse_is_restored_as_it_was(write: Write) -> None:
    """A sparse image is restored byte for byte, except for stale bytes."""
    image = Image(SPARSE)
    head = image.head()
    whole = Mapped([replace(RAM, stale={})], start=len(head)).build()
    assert whole.replace(bytes(len(head)), head, 1) == again(write(image)).read_bytes()


@pytest.mark.parametrize("form", ["mapped-ram", "qemu-stream", "raw"])
def test_restored_in_other_forms(write: Write, kind: int, form: str) -> None:
    """The RAM of an image is the same in every form."""
    restored = again(write(Image(kind)), form)
    assert [RAM.content] == [*ram_of(restored, form).values()]


def test_no_file_is_left_of_a_decompressed_stream(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decompressed stream is in a nameless file, in the directory for such files."""
    requires("gzip")
    (tmp_path / "spool").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "spool"))
    ram_of(write(Image(GZIP)))
    assert [*(tmp_path / "spool").iterdir()] == []


def bomb(stream: bytes) -> Image:
    """Return an image with 300 MiB of zeros at the end of its stream, in less than one."""
    command = ["sh", "-c", "cat - /dev/zero | head -c 300M | gzip -1"]
    made = subprocess.run(command, input=stream, stdout=-1, check=True).stdout
    return Image(GZIP, body=made)


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (Stream([RECORDS]).build(), "decompressed, it has more than 256.5 MiB, the most expected"),
        (b"", "not a QEMU migration stream"),
    ],
    ids=["of a small guest", "of no stream"],
)
def test_a_bomb_is_not_decompressed(
    write: Write, tmp_path: Path, cli: Callable[..., Outcome], stream: bytes, words: str
) -> None:
    """A stream longer than its RAM allows is given up in one sentence."""
    requires("gzip")
    path = write(bomb(stream))
    outcome = cli("save", path, tmp_path / "snap", "-j", 1)
    told = outcome.err.startswith(f"snapmig: {path}: ") and words in outcome.err
    outcome.fails(1)
    assert told
    assert [*tmp_path.iterdir()] == [path]


def test_decompressing_leaves_room(
    write: Write, tmp_path: Path, cli: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of the free space stays free; the refusal names directory and variable."""
    requires("gzip")
    monkeypatch.setattr(unpacking, "free_bytes", lambda folder: 100_000)  # noqa: ARG005
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    path = write(Image(GZIP, body=subprocess.run(
        ["gzip", "-c"], input=b"x" * (1 << 20), stdout=-1, check=True).stdout))  # fmt: skip
    outcome = cli("save", path, tmp_path / "snap", "-j", 1)
    told = f"available in {tmp_path}; set TMPDIR to another directory\n" in outcome.err
    outcome.fails(1)
    assert told
    assert [*tmp_path.iterdir()] == [path]


MALFORMED = {
    "incomplete": (
        Image(magic=b"LibvirtQemudPart"), "the save image is incomplete: libvirt did not finish it",
    ),
    "version 1": (Image(version=1), "a version other than 2"),
    "version 3": (Image(version=3), "a version other than 2"),
    "unknown kind": (Image(kind=9), "has the format 9, which is not known here"),
    "no XML": (Image(size=0), "XML and cookie have 0 bytes"),
    "much XML": (Image(size=(1 << 32) - 1), "XML and cookie have 4294967295 bytes"),
    "XML past the end": (Image(size=60 << 20), "file ends"),
    "XML too short": (Image(size=len(XML)), "not a QEMU migration stream"),
    "no stream": (Image(body=b""), "file ends"),
    "another stream": (Image(body=bytes(4096)), "not a QEMU migration stream"),
    "a stream said to be sparse": (
        Image(SPARSE, body=Stream([RECORDS]).build()), "not a mapped-ram one",
    ),
    "mapped-ram said to be raw": (
        Image(RAW, body=Mapped([RAM]).build()), "bitmap is at|mapped-ram one",
    ),
    "header alone": (Image().head()[:92], "file ends"),
    "magic alone": (b"LibvirtQemudSave", "file ends"),
    "not compressed at all": (Image(GZIP, body=Stream([RECORDS]).build()), "gzip failed: "),
    "compressed twice as long": (Image(GZIP, body=b""), "gzip|empty"),
    "compressed and cut": (Image(GZIP).build()[:-40], "gzip failed: "),
}  # fmt: skip


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_image(write: Write, kind: str) -> None:
    """An impossible field is refused with the image's name and exit code 1."""
    requires("gzip")
    path = write(MALFORMED[kind][0])
    with pytest.raises(SnapmigError) as caught:
        snapmig.save(path, path.with_name("snap"), jobs=1)
    assert (1, str(path)) == (caught.value.exit_code, caught.value.path)


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_image_is_described(write: Write, kind: str) -> None:
    """The refusal describes the fault."""
    requires("gzip")
    image, words = MALFORMED[kind]
    path = write(image)
    with pytest.raises(SnapmigError, match=words):
        snapmig.save(path, path.with_name("snap"), jobs=1)


def test_decompressor_is_missing(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing program needed for an image is named."""
    path = write(Image(LZOP, body=b"whatever"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SnapmigError) as caught:
        snapmig.save(path, path.with_name("snap"), jobs=1)
    assert str(caught.value) == f"{path}: lzop is needed for this and not installed"


def is_refused(path: Path, content: bytes) -> bool:
    """Return True if a file is refused by an error of its own kind with its name."""
    path.write_bytes(content)
    try:
        ram_of(path, "libvirt")
    except SnapmigError as error:
        return error.path == str(path)
    return False


@pytest.mark.parametrize("kind", [RAW, SPARSE], ids=["raw", "sparse"])
def test_every_truncation_is_refused(tmp_path: Path, kind: int) -> None:
    """Wherever an image ends too early, it is refused."""
    whole, head = Image(kind).build(), len(Image(kind).head())
    edges = {*range(1, 130), *range(head - 5, head + 150), *range(len(whole) - 200, len(whole))}
    let_in = [cut for cut in sorted(edges) if not is_refused(tmp_path / "cut", whole[:cut])]
    assert let_in == []


WHOLE = {kind: Image(kind).build() for kind in (RAW, SPARSE)}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from([RAW, SPARSE]),
    changes=st.lists(
        st.tuples(st.integers(0, 92), st.binary(min_size=1, max_size=4)), min_size=1, max_size=3
    ),
)
def test_any_header_is_read_or_refused(
    tmp_path: Path, kind: int, changes: list[tuple[int, bytes]]
) -> None:
    """Whatever a header says, its image is read, or refused by an error of its own kind."""
    content = bytearray(WHOLE[kind])
    for at, change in changes:
        content[at : at + len(change)] = change
    (tmp_path / "file").write_bytes(content)
    try:
        found = ram_of(tmp_path / "file", "libvirt")
    except SnapmigError:
        return
    assert {name: len(held) for name, held in found.items()} == {"ram": 16 * PAGE}


def given_xml(folder: Path, xml: bytes, *options: str) -> list[object]:
    """Return the command line to make a save image of a stream's snapshot and an XML."""
    (folder / "stream").write_bytes(Stream([RECORDS]).build())
    (folder / "domain.xml").write_bytes(xml)
    snapmig.save(folder / "stream", folder / "snap", jobs=1)
    given = ("--domain-xml", folder / "domain.xml", "--format", "libvirt")
    return ["restore", folder / "snap", folder / "made", *(options or given)]


def test_a_stream_becomes_an_image_with_an_xml(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    """Header, XML, room to grow and the stream follow each other."""
    cli(*given_xml(tmp_path, XML)).ok()
    snapmig.restore(tmp_path / "snap", tmp_path / "again", format="qemu-stream")
    image = Image(cookie=b"", body=(tmp_path / "again").read_bytes())
    assert (tmp_path / "made").read_bytes() == image.build()


def test_an_attached_xml_is_taken(tmp_path: Path) -> None:
    """The attachment domain.xml is the default definition."""
    (tmp_path / "stream").write_bytes(Stream([RECORDS]).build())
    attach: dict[str, snapmig.AttachmentSource] = {"domain.xml": XML.rstrip(b"\0")}
    snapmig.save(tmp_path / "stream", tmp_path / "snap", attach=attach)
    snapmig.restore(tmp_path / "snap", tmp_path / "made", format="libvirt")
    assert (tmp_path / "made").read_bytes().startswith(Image(cookie=b"").head())


def test_another_xml_replaces_that_of_an_image(write: Write, tmp_path: Path) -> None:
    """A given definition takes precedence over the saved image's."""
    other = b"<domain type='kvm'><name>other</name></domain>"
    (tmp_path / "domain.xml").write_bytes(other)
    snapmig.save(write(Image()), tmp_path / "snap")
    options = {"format": "libvirt", "domain_xml": tmp_path / "domain.xml"}
    snapmig.restore(tmp_path / "snap", tmp_path / "made", **options)
    assert (tmp_path / "made").read_bytes()[92:].startswith(other + b"\0")
    assert ram_of(tmp_path / "made") == ram_of(tmp_path / "image")


REFUSED = {
    "no domain": (b"[guests.web]", (), "the domain's XML has no element <domain>"),
    "not a text": (b"<domain>\0</domain>", (), "the domain's XML has no element <domain>"),
    "none": (XML, ("--format", "libvirt"), "give --domain-xml, or attach domain.xml"),
    "another format": (
        XML,
        ("--format", "qemu-stream", "--domain-xml", "/dev/null"),
        "a domain's XML is for the format libvirt, not for qemu-stream",
    ),
    "no file": (
        XML,
        ("--format", "libvirt", "--domain-xml", "/dev/null"),
        "/dev/null: not a domain's XML: expected a file of at most 16.0 MiB",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_xml_is_refused(tmp_path: Path, cli: Callable[..., Outcome], case: str) -> None:
    """Without a plausible definition the reason is reported and nothing is made."""
    xml, options, reason = REFUSED[case]
    outcome = cli(*given_xml(tmp_path, xml, *options))
    outcome.fails(2, reason)
    assert not (tmp_path / "made").exists()


def test_an_xml_does_not_help_raw_memory(tmp_path: Path, cli: Callable[..., Outcome]) -> None:
    """Without QEMU's device state that is reported missing, and not the definition."""
    (tmp_path / "raw").write_bytes(b"x" * PAGE)
    snapmig.save(tmp_path / "raw", tmp_path / "snap")
    outcome = cli("restore", tmp_path / "snap", tmp_path / "made", "--format", "libvirt")
    outcome.fails(2, "this snapshot has none")
