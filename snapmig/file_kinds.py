"""
Kinds of files mistaken for a guest's RAM or for a snapshot, identified by their first bytes.

A guest's RAM has no mark of its own, so a file with the mark of something else is refused as RAM.
Magic numbers without a reader of their own are kept here.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ("HEAD_SIZE", "FileKind", "identify")

HEAD_SIZE = 68 << 10
"""Bytes from the start of a file that show every kind. 4096 bytes show most of them."""

_TEXT_SIZE = 4096
_TEXT_CONTROLS = frozenset(b"\t\n\r\f\x1b")


class FileKind(NamedTuple):
    """
    A kind of file.

    :param name: with its article, to follow "this is"
    :param advice: a hint for a user who meant guest RAM
    :param is_image: a save accepts it
    :param packed: compressed; may contain a snapshot
    :param unpacker: the command that unpacks an image while it is saved
    :param format: its format
    """

    name: str
    advice: str
    is_image: bool = False
    packed: bool = False
    unpacker: tuple[str, ...] = ()
    format: str = ""


_XZ_LIMIT = "--memlimit-decompress=512MiB"
"""xz -9 needs 65 MiB, and a hostile file asks for any number."""
_ZSTD_LIMIT = "--memory=512MB"
"""zstd's own limit is 128 MB, and files of zstd --long=28 need more."""
_AS_ELF = "dump the guest as an ELF core instead"


def _image(name: str, form: str) -> FileKind:
    return FileKind(name, "save it by its own format", is_image=True, format=form)


def _packed(name: str, command: str, *unpacker: str) -> FileKind:
    return FileKind(name, f"unpack it first ({command} FILE)", packed=True, unpacker=unpacker)


def _disk(name: str) -> FileKind:
    return FileKind(name, "save the guest's memory, not its disk")


_WINDOWS = FileKind("a Windows crash dump", f"{_AS_ELF} (dump-guest-memory without -w)")
_VMWARE = FileKind("the state of a VMware guest", "its RAM is the .vmem file beside it")
_VIRTUALBOX = FileKind(
    "a saved state of VirtualBox", f"{_AS_ELF} (VBoxManage debugvm GUEST dumpvmcore)"
)
_XEN = FileKind("a save image of Xen", f"{_AS_ELF} (xl dump-core)")
_HYPER_V = FileKind(
    "a saved state of Hyper-V", "convert it first (Microsoft's vmsavedstatedumpprovider reads it)"
)
_HIBERNATED = FileKind(
    "a hibernation file of Windows",
    "dump the memory while the guest runs: it has only a part of it",
)
_CRIU = FileKind("an image of CRIU", "it has a process, not a guest")
_FORENSIC = FileKind("a forensic image", "export the memory in it as raw first")
_SWAP = FileKind("a swap area of Linux", "name the guest's RAM")
_SUSPENDED = FileKind("a swap area with a hibernated Linux", "dump the memory while the guest runs")
_MACH = FileKind("a Mach-O file", "name the guest's RAM, or an ELF core of it")
_FIRECRACKER = FileKind("the vmstate of a Firecracker microVM", "save the memory file beside it")
_ELF = FileKind("an ELF file that is no core dump", "name the guest's RAM, or a core of it")
_CORE = _image("an ELF core", "elf")
_STREAM = _image("a QEMU migration file", "qemu-stream")
_MAPPED = _image("a QEMU mapped-ram file", "mapped-ram")
_TEXT = FileKind("a text file", "name the file with the guest's RAM")
_PROGRAM = FileKind("a Windows or EFI program", "name the file with the guest's RAM")

_AT_START: tuple[tuple[bytes, FileKind], ...] = (
    (b"\x93SNAPMIG", FileKind("a snapmig snapshot", "restore it first")),
    # Guests' memory, in forms read elsewhere or not at all.
    (b"LibvirtQemudSave", _image("a libvirt save image", "libvirt")),
    (b"LibvirtQemudPart", FileKind(
        "an incomplete libvirt save image", "save the guest again", format="libvirt")),
    (b"KDUMP   ", _image("a kdump-compressed dump", "kdump")),
    (b"DISKDUMP", _image("a diskdump dump", "kdump")),
    (b"makedumpfile\0", _image("a flattened kdump dump", "kdump")),
    (b"EMiL", _image("a LiME dump", "lime")),
    (b"AVML", _image("an AVML dump", "avml")),
    (b"PAGEDU64", _WINDOWS),
    (b"PAGEDUMP", _WINDOWS),
    *((bytes.fromhex(magic), _VMWARE) for magic in (
        "d0bed0be", "d0bed2be", "d1bed1be", "d2bed2be", "d3bed2be", "d3bed3be", "d1bad1ba")),
    (b"\x7fVirtualBox SavedState", _VIRTUALBOX),
    (b"Xen saved domain", _XEN),
    (b"LinuxGuestRecord", _XEN),
    (b"\xff\xff\xff\xff\xff\xff\xff\xffXENF", _XEN),
    (b"XenSavedDomain\n", _XEN),
    (b"XenSavedDomv2-\n", _XEN),
    (b"\x14\x20\x28\x01", _HYPER_V),
    *((mark, _HIBERNATED) for mark in (b"hibr", b"HIBR", b"wake", b"WAKE", b"RSTR", b"rstr")),
    (b"MDMP", FileKind("a minidump of a Windows process", "it has a process, not a guest")),
    (b"minidump FreeBSD/", FileKind("a minidump of FreeBSD", _AS_ELF)),
    (b"\xed\xc8\xfe\xde", FileKind("a crash dump of Solaris", _AS_ELF)),
    (b"\xde\xfe\xc8\xed", FileKind("a crash dump of Solaris", _AS_ELF)),
    *((bytes.fromhex(mark), _CRIU) for mark in ("19435654", "40591055", "16313158")),
    *((bytes.fromhex(mark), _MACH) for mark in ("feedface", "feedfacf", "cefaedfe", "cffaedfe")),
    (b"EVF\x09\x0d\x0a\xff\0", _FORENSIC),
    (b"LVF\x09\x0d\x0a\xff\0", _FORENSIC),
    (b"EVF2\r\n\x81\0", _FORENSIC),
    (b"AFF10\r\n\0", _FORENSIC),
    (b"VMA\0", FileKind("a Proxmox VMA archive", "extract it first (vma extract FILE FOLDER)")),
    # Packed files.
    (b"\x1f\x8b\x08", _packed("gzip data", "gzip -d", "gzip", "-dc")),
    (b"\x28\xb5\x2f\xfd", _packed("zstd data", "zstd -d", "zstd", "-dc", _ZSTD_LIMIT)),
    (b"\xfd7zXZ\0", _packed("xz data", "xz -d", "xz", "-dc", _XZ_LIMIT)),
    (b"\x04\x22\x4d\x18", _packed("lz4 data", "lz4 -d", "lz4", "-dc")),
    (b"\x02\x21\x4c\x18", _packed("lz4 data", "lz4 -d", "lz4", "-dc")),
    (b"\x89LZO\0\r\n\x1a\n", _packed("lzop data", "lzop -d")),
    (b"\xff\x06\0\0sNaPpY", _packed("framed snappy data", "snzip -d")),
    (b"PK\x03\x04", _packed("a zip archive", "unzip")),
    (b"Rar!\x1a\x07", _packed("a RAR archive", "unrar x")),
    (b"LZIP\x01", _packed("lzip data", "lzip -d")),
    (b"\x1f\x9d", _packed("compressed data", "gzip -d")),
    (b"!<arch>\n", _packed("an ar archive", "ar x")),
    (b"070701", _packed("a cpio archive", "cpio -id <")),
    (b"070702", _packed("a cpio archive", "cpio -id <")),
    (b"7z\xbc\xaf\x27\x1c", _packed("a 7z archive", "7z x")),
    # Disks.
    (b"QFI\xfb", FileKind(
        "a qcow2 disk image",
        "save the guest's memory, not its disk, or name a snapshot inside (info lists them)")),
    (b"QED\0", _disk("a QED disk image")),
    (b"KDMV", _disk("a VMDK disk image")),
    (b"COWD", _disk("a VMDK disk image")),
    (b"# Disk DescriptorFile", _disk("a VMDK disk image")),
    (b"vhdxfile", _disk("a VHDX disk image")),
    (b"conectix", _disk("a VHD disk image")),
    (b"WithoutFreeSpace", _disk("a Parallels disk image")),
    (b"WithouFreSpacExt", _disk("a Parallels disk image")),
    (b"LUKS\xba\xbe", _disk("a LUKS disk")),
    (b"hsqs", _disk("a squashfs file system")),
    (b"XFSB", _disk("an XFS file system")),
)  # fmt: skip

_SWAP_MARKS = (4096 - 10, 16384 - 10, 65536 - 10)
"""At the end of the first page, as large as the system's."""

_ELSEWHERE: tuple[tuple[int, bytes, FileKind], ...] = (
    (64, b"\x7f\x10\xda\xbe", _disk("a VDI disk image")),
    *((offset, b"SWAPSPACE2", _SWAP) for offset in _SWAP_MARKS),
    *((offset, b"SWAP-SPACE", _SWAP) for offset in _SWAP_MARKS),
    *((offset, b"S1SUSPEND\0", _SUSPENDED) for offset in _SWAP_MARKS),
    *((offset, b"S2SUSPEND\0", _SUSPENDED) for offset in _SWAP_MARKS),
    *((offset, b"ULSUSPEND\0", _SUSPENDED) for offset in _SWAP_MARKS),
    (257, b"ustar", _packed("a tar archive", "tar -xf")),
    (512, b"EFI PART", _disk("a disk image with a GPT")),
    (4096, b"EFI PART", _disk("a disk image with a GPT")),
    (0x8000, b"\x01CD001\x01", _disk("a CD image")),
    (0x10040, b"_BHRfS_M", _disk("a btrfs file system")),
)


def identify(head: bytes) -> FileKind | None:
    """
    Return the apparent kind of a file; None for possible RAM, or anything else.

    :param head: the file's first :data:`HEAD_SIZE` bytes, or fewer
    """
    for magic, kind in _AT_START:
        if head.startswith(magic):
            return kind
    for offset, magic, kind in _ELSEWHERE:
        if head.startswith(magic, offset):
            return kind
    return (
        _identify_qemu(head)
        or _identify_elf(head)
        or _identify_bzip2(head)
        or _identify_firecracker(head)
        or _identify_program(head)
        or _identify_disk(head)
        or _identify_text(head)
    )


def _identify_qemu(head: bytes) -> FileKind | None:
    if not head.startswith(b"QEVM"):
        return None
    # The capabilities stand near the start, each after its length.
    return _MAPPED if b"\x0amapped-ram" in head[:1024] else _STREAM


def _identify_elf(head: bytes) -> FileKind | None:
    if not head.startswith(b"\x7fELF"):
        return None
    order = "big" if head[5:6] == b"\x02" else "little"
    return _CORE if int.from_bytes(head[16:18], order) == 4 else _ELF  # type: ignore[arg-type]


def _identify_bzip2(head: bytes) -> FileKind | None:
    level, rest = head[3:4], head[4:10]
    is_bzip2 = head.startswith(b"BZh") and level.isdigit() and rest == b"1AY&SY"
    return _packed("bzip2 data", "bzip2 -d") if is_bzip2 else None


def _identify_firecracker(head: bytes) -> FileKind | None:
    # Newer versions have a byte before the magic, older ones their version in its lowest bits.
    found = any(
        head[at + 2 : at + 8] in (b"\x64\x86\x84\x19\x10\x07", b"\xaa\xaa\x84\x19\x10\x07")
        for at in (0, 1)
    )
    return _FIRECRACKER if found else None


def _identify_program(head: bytes) -> FileKind | None:
    if not head.startswith(b"MZ") or len(head) < 64:
        return None
    start = int.from_bytes(head[60:64], "little")
    return _PROGRAM if head.startswith(b"PE\0\0", start) else None


def _identify_disk(head: bytes) -> FileKind | None:
    if _is_ext(head):
        return _disk("an ext4 file system")
    if head[510:512] != b"\x55\xaa":
        return None
    if b"NTFS    " in head[3:11] or head[54:57] == b"FAT" or head[82:85] == b"FAT":
        return _disk("a FAT or NTFS file system")
    return _disk("a disk image with a partition table") if _has_partitions(head) else None


def _is_ext(head: bytes) -> bool:
    if head[0x438:0x43A] != b"\x53\xef":
        return False
    inodes, blocks = struct.unpack_from("<II", head, 0x400)
    block_size, revision = (int.from_bytes(head[at : at + 4], "little") for at in (0x418, 0x44C))
    return inodes > 0 and blocks > 0 and block_size <= 6 and revision <= 1


def _has_partitions(head: bytes) -> bool:
    # A boot sector's two marks alone are too little: each entry must make sense, and one be used.
    entries = [head[at : at + 16] for at in range(446, 510, 16)]
    used = [entry for entry in entries if entry[4] and any(entry[12:])]
    sound = all(entry[0] in (0, 0x80) and (entry in used or not any(entry)) for entry in entries)
    return bool(used) and sound


def _identify_text(head: bytes) -> FileKind | None:
    # A whole page of text lines. RAM rarely starts with one: the first page of a PC has its
    # interrupt vectors.
    start = head[:_TEXT_SIZE]
    if b"\n" not in start or b"\0" in start:
        return None
    try:
        text = start[: len(start) - 3].decode() if len(start) == _TEXT_SIZE else start.decode()
    except UnicodeDecodeError as error:
        if error.start < len(start) - 6:
            return None
        text = start[: error.start].decode()
    plain = all(ord(sign) >= 32 or ord(sign) in _TEXT_CONTROLS for sign in text)
    return _TEXT if plain else None
