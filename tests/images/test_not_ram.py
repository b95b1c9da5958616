"""Facts about files that are neither a guest's RAM nor a snapshot: kind and remedy are named."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapmig.file_kinds import HEAD_SIZE, identify
from tests.support import ram
from tests.support.requirements import requires

PAGES = 16
RAM = ram.noise(PAGES).tobytes()

HEADS = {
    "Windows": (b"PAGEDU64", "a Windows crash dump"),
    "VMware": (bytes.fromhex("d2bed2be"), "its RAM is the .vmem file beside it"),
    "VirtualBox": (b"\x7fVirtualBox SavedState V2.0\n", "a saved state of VirtualBox"),
    "Xen": (b"\xff" * 8 + b"XENF", "a save image of Xen"),
    "xl": (b"Xen saved domain, xl format\n \0 \r", "a save image of Xen"),
    "XenServer": (b"XenSavedDomain\n", "a save image of Xen"),
    "Hyper-V": (bytes.fromhex("14202801"), "a saved state of Hyper-V"),
    "hiberfil.sys": (b"HIBR", "a hibernation file of Windows"),
    "minidump": (b"MDMP\x93\xa7", "a minidump of a Windows process"),
    "FreeBSD": (b"minidump FreeBSD/amd64\0", "a minidump of FreeBSD"),
    "CRIU": (bytes.fromhex("1943565425400856"), "an image of CRIU: it has a process, not a guest"),
    "Mach-O": (bytes.fromhex("cffaedfe"), "a Mach-O file"),
    "EWF": (b"EVF\x09\x0d\x0a\xff\0\x01", "a forensic image: export the memory in it as raw"),
    "hibernated Linux": (
        bytes(4086) + b"S1SUSPEND\0",
        "a swap area with a hibernated Linux: dump the memory while",
    ),
    "cpio": (b"070701000002A0", "a cpio archive"),
    "RAR": (b"Rar!\x1a\x07\x01\0", "a RAR archive"),
    "Proxmox": (b"VMA\0", "extract it first"),
    "VHDX": (b"vhdxfile", "a VHDX disk image"),
    "lzop": (b"\x89LZO\0\r\n\x1a\n", "lzop -d"),
    "snappy": (b"\xff\x06\0\0sNaPpY", "framed snappy data"),
    "squashfs": (b"hsqs", "a squashfs file system"),
    "vmstate": (bytes.fromhex("0100006486841910" + "07"), "the vmstate of a Firecracker microVM"),
    "PE": (b"MZ".ljust(60, b"\0") + b"\x40\0\0\0" + b"PE\0\0", "a Windows or EFI program"),
    "MBR": (
        bytes(446)
        + b"\x80\x01\x01\0\x83\xfe\xff\xff\0\x08\0\0\0\0\x10\0"
        + bytes(48)
        + b"\x55\xaa",
        "a disk image with a partition table",
    ),
    "GPT": (bytes(512) + b"EFI PART", "a disk image with a GPT"),
    "text": (b"guests:\n" * 512, "a text file"),
    "text in UTF-8": ("Gäste\n".encode() * 1000, "a text file"),
}


@pytest.mark.parametrize("name", HEADS)
def test_what_is_not_ram_is_refused_with_what_it_is(shm, cli, name):
    """Exit code 4, kind and remedy; nothing is made."""
    head, words = HEADS[name]
    ram.write(shm / "f", head + RAM[len(head) :])
    outcome = cli("save", shm / "f", shm / "s")

    outcome.fails(4, words, "format raw")
    assert not (shm / "s").exists()


@pytest.mark.parametrize("name", HEADS)
def test_as_format_raw_it_is_saved_byte_by_byte(shm, cli, name):
    """A user who calls it RAM is believed."""
    content = HEADS[name][0] + RAM[len(HEADS[name][0]) :]
    ram.write(shm / "f", content)

    cli("save", "-j1", "--format", "raw", shm / "f", shm / "s").ok()
    cli("restore", "-j1", shm / "s", shm / "r").ok()
    assert (shm / "r").read_bytes() == content


MADE = {
    "bzip2": (["bzip2", "-k", "ram"], "ram.bz2", "bzip2 data: unpack it first (bzip2 -d FILE)"),
    "tar": (["tar", "-cf", "ram.tar", "ram"], "ram.tar", "a tar archive"),
    **{
        kind: (["qemu-img", "create", "-q", "-f", kind, "d", "64M"], "d", f"{words} disk image")
        for kind, words in (
            ("qcow2", "a qcow2"), ("qed", "a QED"), ("vmdk", "a VMDK"), ("vhdx", "a VHDX"),
            ("vdi", "a VDI"), ("vpc", "a VHD"), ("parallels", "a Parallels"),
        )
    },
    "mkswap": (["sh", "-c", "truncate -s 1M d; mkswap d"], "d", "a swap area of Linux: name"),
    "ar": (["ar", "rc", "d", "ram"], "d", "an ar archive"),
    "mkfs.ext4": (["mkfs.ext4", "-q", "d", "8M"], "d", "an ext4 file system"),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_files_of_real_programs_are_known(shm, cli, name):
    """Files of gzip, qemu-img and others are refused by their kind."""
    words, made, expected = MADE[name]
    requires(words[0])
    ram.write(shm / "ram", RAM)
    subprocess.run(words, cwd=shm, check=True, capture_output=True)
    outcome = cli("save", shm / made, shm / "s")

    outcome.fails(4, f"{shm / made}: this is {expected}")
    assert not (shm / "s").exists()


def test_a_program_is_no_core(shm, cli):
    """An executable of this system."""
    outcome = cli("save", shutil.which("true"), shm / "s")

    outcome.fails(4, "an ELF file that is no core dump")


def test_a_password_file_is_no_ram(shm, cli):
    """A real text file of this system."""
    outcome = cli("save", "/etc/passwd", shm / "s")

    outcome.fails(4, "/etc/passwd: this is a text file")


def test_a_snapshot_is_restored_first(shm, cli):
    """A snapshot is not saved as if it were RAM."""
    cli("save", "-j1", ram.write(shm / "a", RAM), shm / "s")
    outcome = cli("save", shm / "s", shm / "t")

    outcome.fails(4, "this is a snapmig snapshot: restore it first")


def test_ram_is_whole_pages(shm, cli):
    """A file of another length is refused, and saved with format raw."""
    ram.write(shm / "a", (RAM * 2)[:100_001])
    outcome = cli("save", shm / "a", shm / "s")

    outcome.fails(4, "file has 100001 bytes, expected whole pages of 4096")
    assert not (shm / "s").exists()


def test_no_share_is_above_all(shm, cli):
    """A partial last page counts with its existing bytes."""
    ram.write(shm / "a", (RAM * 2)[:100_001])
    saved = cli("save", "-j1", "--format", "raw", shm / "a", shm / "s")
    outputs = (
        saved.out, cli("info", shm / "s").out, cli("chain", shm / "s").out,
        cli("restore", "-j1", shm / "s", shm / "r").out,
    )  # fmt: skip

    assert [out.count("100.0 %") for out in outputs] == [2, 2, 1, 1]
    assert "97.7 KiB of 97.7 KiB" in saved.out


READING = [
    "info FILE", "verify FILE", "restore FILE new", "chain FILE", "merge FILE new",
    "repack FILE new", "diff FILE FILE", "rebase FILE --parent FILE", "save ram new --parent FILE",
]  # fmt: skip


@pytest.mark.parametrize("words", READING)
def test_where_a_snapshot_is_expected_an_image_is_told(shm, cli, monkeypatch, words):
    """Every reader of snapshots names the apparent kind of another file."""
    monkeypatch.chdir(shm)
    ram.write(shm / "ram", RAM)
    ram.write(shm / "FILE", b"QEVM\0\0\0\3\x07" + b"\x0amapped-ram" + RAM)
    outcome = cli(*words.split())

    outcome.fails(3, "FILE: not a snapshot: this is a QEMU mapped-ram file; did you mean save?")
    assert not (shm / "new").exists()


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"QEVM\0\0\0\3\x07", "a QEMU migration file; did you mean save?"),
        (b"LibvirtQemudSave", "a libvirt save image; did you mean save?"),
        (b"\x7fELF\x02\x01".ljust(16, b"\0") + b"\4\0", "an ELF core; did you mean save?"),
        (b"\x28\xb5\x2f\xfd", "zstd data; unpack it first (zstd -d FILE)\n"),
        (b"vhdxfile", "a VHDX disk image\n"),
        (b"LibvirtQemudPart", "an incomplete libvirt save image\n"),
    ],
    ids=range(6),
)
def test_what_a_file_is_instead_of_a_snapshot(shm, cli, head, words):
    """Images should be saved, packed files unpacked; others are only named."""
    ram.write(shm / "f", head.ljust(8192, b"\0"))
    outcome = cli("info", shm / "f")

    outcome.fails(3, err=f"snapmig: {shm / 'f'}: not a snapshot: this is {words}".rstrip() + "\n")


@pytest.mark.parametrize("size", [0, 1, 3, 17, 300, 513, 4096, HEAD_SIZE])
@given(st.data())
def test_any_first_bytes_have_a_kind_or_none(size, data):
    """No start of a file is too short or too odd to be examined."""
    known = [head for head, _ in HEADS.values()]
    start = data.draw(st.sampled_from(known) | st.binary(max_size=64))
    kind = identify((start + data.draw(st.binary(max_size=64))).ljust(size, b"\xff")[:size])

    assert kind is None or kind.name


def test_a_pcs_first_page_is_none(shm, cli):
    """Interrupt vectors, a boot sector's marks alone, and zeros are taken for RAM."""
    vectors = b"\x53\xff\x00\xf0" * 256
    marks = bytes(510) + b"\x55\xaa"
    for content in (vectors.ljust(8192, b"\0"), marks.ljust(8192, b"\0"), bytes(8192)):
        ram.write(shm / "a", content)
        cli("save", "-j1", "-f", shm / "a", shm / "s").ok()
