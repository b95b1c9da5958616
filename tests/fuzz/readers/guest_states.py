"""Attachments with a guest's state, of which images and migrations are made."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import snapmig
from snapmig.errors import SnapmigError
from snapmig.images.formats import format_names
from tests.fuzz.readers.snapshots import without_workers
from tests.support import builders
from tests.support.elf_cores import Core, Segment, noise
from tests.support.libvirt_images import Image
from tests.support.qemu_files import Block, Mapped, Stream, data, part
from tests.support.temporary import made_bytes

PREFIX = "source/"
MARK = b"\n--\n"


@cache
def seeds() -> list[bytes]:
    """Return attachments of snapshots of each format, as names and contents."""
    stream = Stream([part(data(0, 1, b"ram"))], [Block()]).build()
    mapped = Mapped([Block(pages={0: 1})], alignment=4096).build()
    core = Core((Segment(0, noise(16)),)).build()
    facts = {"machine": "pc-q35-10.0", "qemu_version": "10.0.2", "command_line": ["qemu", "-S"],
             "memory": [{"name": "ram", "size": 65536}]}  # fmt: skip
    found = [_attachments(image) for image in (stream, mapped, core)]
    shared = Stream([], [Block(gpa=0)], capabilities=[b"x-ignore-shared"]).build()
    guest = {
        "source/format": b"qemu-guest",
        "source/guest.json": json.dumps(facts).encode(),
        "source/state": shared,
    }
    image = {**found[0], "source/format": b"libvirt", "source/libvirt.head": Image().head()}
    return [_pack(each) for each in (*found, guest, image)]


def _attachments(image: bytes) -> dict[str, bytes]:
    def save(path: Path) -> None:
        path.with_name("image").write_bytes(image)
        snapmig.save(path.with_name("image"), path, jobs=1)

    path_content = made_bytes(save)

    def read_all(path: Path) -> None:
        path.with_name("s").write_bytes(path_content)
        with snapmig.open(path.with_name("s")) as opened:
            path.write_bytes(_pack(dict(opened.attachments)))

    return dict(_unpack(made_bytes(read_all)))


def _pack(attachments: dict[str, bytes]) -> bytes:
    return MARK.join(part for item in attachments.items() for part in (item[0].encode(), item[1]))


def _unpack(raw: bytes) -> list[tuple[str, bytes]]:
    parts = raw.split(MARK)
    names = (name.decode("utf-8", "replace")[:60] or "x" for name in parts[::2])
    return list(zip(names, parts[1::2], strict=False))


def read(data: bytes, folder: Path) -> None:
    """Make every image of a snapshot with these attachments."""
    attachments = [
        builders.Attachment(name, content) for name, content in dict(_unpack(data)).items()
    ]
    ram = builders.Block("ram", b"x" * 65536)
    path = folder / "s"
    path.write_bytes(builders.Snapshot([ram], attachments=attachments).build())
    with without_workers():
        for name in format_names():
            _attempt(snapmig.restore, path, folder / name, format=name, arch=None)
        _attempt(snapmig.restore, path, folder / "saved")
        _attempt(snapmig.restore, path, folder / "q", for_qemu=True)
        _attempt(snapmig.restore, path, folder / "l", format="libvirt", domain_xml=_xml(folder))


def _xml(folder: Path) -> Path:
    (folder / "xml").write_bytes(b"<domain type='qemu'/>")
    return folder / "xml"


def _attempt(work: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    with suppress(SnapmigError):
        work(*arguments, **options)
