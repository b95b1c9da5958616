"""
A domain of libvirt's as a guest: its monitor, reached through a bridge.

The bridge is a process that speaks QMP to us and to libvirt through its Python binding or
``virsh``. So a libvirt that hangs is a monitor that does not answer, and no second monitor is
needed.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from snapmig.errors import SnapmigError, UsageError
from snapmig.guests.connection import MonitorError, Peer, Renewal, words
from snapmig.guests.name import Domain
from snapmig.system.children import Apart, run_child, start_apart

__all__ = ("AbsentError", "DomainConnection", "find_binding")

_PROGRAM = Path(__file__).with_name("bridge_process.py")
_ENDS_S = 2.0
_LONGEST_LINE = 1 << 16
_LOCAL = ("", "unix")
_SYSTEM_PYTHON = "/usr/bin/python3"
"""Has the binding as a package of the distribution, which no virtual environment sees."""
_PROBE = """\
import libvirt_qemu, os, sys
if sys.version_info < (3, 9):
    sys.exit(1)
print(os.path.dirname(os.path.abspath(libvirt_qemu.__file__)))
"""
_SCHEMES = ("qemu", "test")


class AbsentError(MonitorError):
    """The domain is off, or there is none."""


class DomainConnection:
    """
    A domain's monitor.

    :param limit_s: for each call of libvirt
    :raises UsageError: neither libvirt's Python binding nor virsh is installed
    """

    def __init__(self, domain: Domain, limit_s: float) -> None:
        self.path = f"libvirt:{domain.name}"
        self.notice = f"libvirt does not answer for domain {words(domain.name)}"
        renewal = _renewal(domain, limit_s)
        self.renewal: Renewal | None = renewal
        self.socket, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            arguments = [renewal.program, json.dumps({**renewal.plan, "monitor": fd})]
            try:
                self._bridge: Apart = start_apart(arguments, [fd], renewal.python)
            except OSError as error:
                self.socket.close()
                message = f"can't start the process to reach libvirt: {error.strerror}"
                raise SnapmigError(message, path=self.path) from error

    def try_to_connect(self) -> bool:
        """Return True: the bridge has the other end."""
        return True

    def find_peer(self) -> Peer | None:
        """
        Return QEMU's process, None if it is hidden.

        :raises MonitorError: libvirt can't be reached, or the domain is off or missing
        """
        first = json.loads(self._first_line())
        if "error" in first:
            kind = AbsentError if first["absent"] else MonitorError
            raise kind(words(first["error"]), path=self.path)
        found = _Found(**first["domain"])
        if not _is_local(found.uri):
            message = f"{words(found.uri)} is not QEMU on this host, expected to be run there"
            raise MonitorError(message, path=self.path)
        return _find_process(found)

    def silence(self, limit_s: float) -> str:
        """Return a sentence for a libvirt that hangs."""
        return f"libvirt does not answer in {limit_s:g} s"

    def close(self) -> None:
        """End the bridge, unless a guard uses it."""
        self.socket.close()
        self._bridge.tell(b"", _ENDS_S)

    def _first_line(self) -> bytes:
        # It is written at once; a monitor's greeting follows, and is left to the client.
        line, end, _ = self.socket.recv(_LONGEST_LINE, socket.MSG_PEEK).partition(b"\n")
        if not end:
            raise MonitorError("the process to reach libvirt has ended", path=self.path)
        return self.socket.recv(len(line) + 1)


class _Found(NamedTuple):
    name: str
    uuid: str
    uri: str


def _renewal(domain: Domain, limit_s: float) -> Renewal:
    virsh, (python, binding) = shutil.which("virsh"), find_binding()
    if virsh is None and binding is None:
        raise UsageError(
            "domains of libvirt's need virsh (Debian: libvirt-clients; Fedora: libvirt-client) or "
            "libvirt's Python binding (python3-libvirt)"
        )
    plan = {"domain": domain.name, "uri": domain.uri, "limit": limit_s}
    return Renewal(python, str(_PROGRAM), {**plan, "virsh": virsh, "binding": binding})


def find_binding() -> tuple[str, str | None]:
    """Return an interpreter, and the folder of its libvirt binding: our own, or the system's."""
    # Found, not imported: it is the bridge's to load.
    spec = find_spec("libvirt_qemu")
    if spec is not None and spec.origin is not None:
        return sys.executable, str(Path(spec.origin).parent)
    with suppress(OSError):
        end = time.monotonic() + _ENDS_S
        command = [_SYSTEM_PYTHON, "-I", "-c", _PROBE]
        ended = run_child(command, lambda _: True, lambda: time.monotonic() < end, grace_s=_ENDS_S)
        if ended.code == 0:
            return _SYSTEM_PYTHON, ended.output.strip()
    return sys.executable, None


def _is_local(uri: str) -> bool:
    scheme, _, transport = urlsplit(uri).scheme.partition("+")
    return scheme in _SCHEMES and transport in _LOCAL and not urlsplit(uri).hostname


def _find_process(found: _Found) -> Peer | None:
    # libvirt tells nobody but by these files. A pid that was used again, or is another host's, is
    # known by its command line.
    for folder in _state_folders(found.uri):
        with suppress(OSError, ValueError):
            file = folder / f"{found.name}.pid"
            pid, owner = int(file.read_text("ascii")), file.stat().st_uid
            process = Path(f"/proc/{pid}")
            status = (process / "status").read_text("utf-8", "replace")
            user = int(status.partition("\nUid:")[2].split(maxsplit=2)[1])
            command = (process / "cmdline").read_bytes().split(b"\0")
            (process / "maps").open().close()
            # A system's daemon gives QEMU to a user of its own.
            is_domain = found.uuid.encode() in command and b"-uuid" in command
            if is_domain and owner in (0, user):
                return Peer(pid, user)
    return None


def _state_folders(uri: str) -> list[Path]:
    # Beside the daemon's socket where the URI names it.
    parts = urlsplit(uri)
    named = parse_qs(parts.query).get("socket", [])
    if parts.path != "/session":
        return [*(Path(name).parent / "qemu" for name in named), Path("/run/libvirt/qemu")]
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    cache = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    roots = [Path(name).parent for name in named]
    roots += [Path(runtime, "libvirt"), Path(cache, "libvirt")]
    return [root / "qemu" / "run" for root in roots]
