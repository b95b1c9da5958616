"""
The command line of a saved guest's QEMU, prepared to start it again.

It comes from the snapshot: untrusted words, to be shown to the user before they are run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from snapmig.errors import UsageError
from snapmig.operations.runs.saved_guest import SavedGuest

__all__ = (
    "Backend",
    "check_command",
    "given_command",
    "with_backends",
    "without_incoming",
)

_DESCRIPTOR = re.compile(r"""(^|,)(vhost)?fds?=\d|"(vhost)?fds?"\s*:|/dev/fdset/""")
_LIBVIRT = re.compile(r"^secret,id=masterKey0|\"masterKey0\"|id=charmonitor\b")


def check_command(command: Sequence[str]) -> None:
    """
    Refuse a guest's command line if its saver can't start it again unchanged.

    :raises UsageError: it has numbers of descriptors, as libvirt's do
    """
    found = next((word for word in command if _DESCRIPTOR.search(word)), None)
    if found is None:
        return
    if any(_LIBVIRT.search(word) for word in command):
        raise UsageError(
            f"libvirt started the guest with descriptors of its own, such as {found!r}, so its "
            "command can't be run again: restore with --format libvirt, then use virsh restore"
        )
    raise UsageError(
        f"the guest was started with descriptors, such as {found!r}, so its command can't be run "
        "again: start QEMU in the same way with -incoming defer, then restore to its qmp:SOCKET"
    )


_KEPT = frozenset(
    ("id", "size", "host-nodes", "policy", "merge", "dump", "x-use-canonical-path-for-ramblock-id")
)
"""Properties of a memory backend that hold for every kind of it."""
_PREALLOC = frozenset(("prealloc", "prealloc-threads", "prealloc-context", "reserve"))


class Backend(NamedTuple):
    """
    A memory backend in place of a recorded one.

    :param kind: QEMU's name without ``memory-backend-``
    :param private: its pages are a file's until they are written: nothing is allocated before
    """

    kind: str
    properties: Mapping[str, str | bool]
    private: bool = False

    @classmethod
    def file(cls, path: Path, *, share: bool) -> Backend:
        """Return a file to be written by the guest, or to be read and never written."""
        if share:
            return cls("file", {"mem-path": str(path), "share": True})
        # Opened for reading, which does not make the guest's RAM read-only.
        return cls(
            "file",
            {"mem-path": str(path), "share": False, "readonly": True, "rom": "off"},
            private=True,
        )

    @classmethod
    def memfd(cls, page_size: int | None = None) -> Backend:
        """
        Return memory without a file, huge pages of a size or ordinary ones.

        :param page_size: of huge pages, in bytes
        """
        facts: dict[str, str | bool] = {"share": True}
        if page_size is not None:
            facts |= {"hugetlb": True, "hugetlbsize": str(page_size)}
        return cls("memfd", facts)

    def keeps(self, name: str) -> bool:
        """Return True for a property of the recorded backend that this one has, too."""
        return name in _KEPT or (name in _PREALLOC and not self.private)


def given_command(saved: SavedGuest, backends: Mapping[str, Backend]) -> list[str]:
    """
    Return the guest's command, without its incoming migration and with other memory backends.

    :param backends: by the names of RAM blocks
    """
    if not saved.command_line:
        return ["qemu-system-x86_64", "-machine", saved.machine]
    return with_backends(saved.command_line, backends)


def with_backends(command: Sequence[str], backends: Mapping[str, Backend]) -> list[str]:
    """Return a command without its incoming migration and with other memory backends."""
    return [_with_backend(word, backends) for word in without_incoming(command)]


def without_incoming(command: Sequence[str]) -> list[str]:
    """Return a command of QEMU's without its incoming migration."""
    return [
        word
        for word, before in zip(command, ("", *command), strict=False)
        if "-incoming" not in (word, before)
    ]


def _with_backend(argument: str, backends: Mapping[str, Backend]) -> str:
    if argument.startswith("{"):
        return _with_backend_json(argument, backends)
    pairs = argument.split(",")
    if not pairs[0].removeprefix("qom-type=").startswith("memory-backend-"):
        return argument
    name = next((pair[3:] for pair in pairs if pair.startswith("id=")), "")
    if name not in backends:
        return argument
    backend = backends[name]
    kept = [pair for pair in pairs[1:] if backend.keeps(re.split("[.=]", pair)[0])]
    words = [f"{key}={_word(value)}" for key, value in backend.properties.items()]
    return ",".join([f"memory-backend-{backend.kind}", *kept, *words])


def _word(value: str | bool) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return value.replace(",", ",,")


def _with_backend_json(argument: str, backends: Mapping[str, Backend]) -> str:
    # libvirt writes -object as JSON.
    try:
        value = json.loads(argument)
    except (ValueError, RecursionError):
        return argument
    name = value.get("id")
    if not str(value.get("qom-type", "")).startswith("memory-backend-"):
        return argument
    if not isinstance(name, str) or name not in backends:
        return argument
    backend = backends[name]
    kept = {key: item for key, item in value.items() if backend.keeps(key)}
    size = {key: int(item) for key, item in backend.properties.items() if key == "hugetlbsize"}
    kind = {"qom-type": f"memory-backend-{backend.kind}"}
    return json.dumps(kind | kept | dict(backend.properties) | size)
