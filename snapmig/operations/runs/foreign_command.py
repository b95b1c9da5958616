"""Command lines with descriptors of the guest's first parent process, useless to anybody else."""

from __future__ import annotations

import re
from collections.abc import Sequence

from snapmig.errors import UsageError

__all__ = ("check_command",)

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
