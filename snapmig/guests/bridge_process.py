"""
The bridge's program: QEMU's monitor protocol on a socket, spoken to a domain through libvirt.

It is run by its path and imports nothing of snapmig. To snapmig, and to the guard, its socket is a
monitor like any other. It is a process of its own because libvirt's library waits without a limit,
and because it must outlive a killed snapmig for as long as the guard needs it. It ends when all
other ends of its socket are closed.

Through libvirt's Python binding a command takes 1.5 ms, through ``virsh`` 25 ms.
"""

from __future__ import annotations

import codecs
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

_STEP = 1 << 16
_MOST_DESCRIPTORS = 16
_MOST_NAMES = 8
_LONGEST_OUTPUT = 64 << 20
_SHUT_OFF = "shut off"
_LATER_S = 2
"""Time to the end of a call after snapmig has stopped waiting for it, in words of its own."""
_RUNNING = "running"
_STATES = {1: _RUNNING, 5: _SHUT_OFF}  # VIR_DOMAIN_RUNNING and _SHUTOFF
_MIGRATABLE = 8 | 1
"""VIR_DOMAIN_XML_MIGRATABLE and _SECURE: as in libvirt's own save images."""


def main(arguments: list[str]) -> int:
    """
    Serve a domain's monitor until nobody holds the other end of the socket.

    First comes a line with an object: ``domain``, its ``name``, ``uuid`` and ``uri``; or ``error``,
    a sentence, with ``absent``, true for a domain that is off or missing. A monitor's greeting
    follows the former.

    :param arguments: one string of JSON: ``monitor``, a descriptor; ``domain``, a name or UUID;
        ``uri``, null for libvirt's default; ``virsh``, a path or null; ``binding``, the folder of
        libvirt's Python binding, or null; ``limit``, seconds for each call
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    plan = json.loads(arguments[0])
    with socket.socket(fileno=plan["monitor"]) as connection:
        client = _Client(connection)
        try:
            link = _Binding(plan) if plan["binding"] else _Virsh(plan, client)
            client.send({"domain": _find(link, plan["domain"])._asdict()})
            client.send({"QMP": {"version": {}, "capabilities": []}})
            while (command := client.next_command()) is not None:
                client.send(_answer(link, command, client.descriptors))
        except _LibvirtError as error:
            client.send({"error": str(error), "absent": error.absent})
        except (OSError, _Left):
            return 1
    return 0


class _LibvirtError(Exception):
    def __init__(self, words: str, *, absent: bool = False) -> None:
        super().__init__(words)
        self.absent = absent


class _Left(Exception):  # noqa: N818 - no fault
    """Nobody holds the other end."""


class _Domain(NamedTuple):
    name: str
    uuid: str
    uri: str


class _Link(Protocol):
    """Calls of libvirt."""

    def uri(self) -> str: ...
    def domains(self) -> list[tuple[str, str]]: ...
    def choose(self, uuid: str) -> None: ...
    def state(self) -> str: ...
    def xml(self) -> str: ...
    def suspend(self) -> None: ...
    def resume(self) -> None: ...
    def command(self, text: str, descriptors: list[int]) -> str: ...


def _find(link: _Link, wanted: str) -> _Domain:
    # A domain's number is no name for it: it changes with each start, and may be another's name.
    uri, known = link.uri(), link.domains()
    found = {uuid: name for uuid, name in known if wanted in (uuid, name)}
    if len(found) > 1:
        raise _LibvirtError(f"the name of one domain of {uri} and the UUID of another")
    if not found:
        names = sorted(name for _, name in known)
        more = [f"{len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else []
        listed = ", ".join(names[:_MOST_NAMES] + more) or "none at all"
        raise _LibvirtError(f"{uri} has no domain of this name, it has {listed}", absent=True)
    uuid, name = found.popitem()
    link.choose(uuid)
    if link.state() == _SHUT_OFF:
        message = f"the domain is shut off on {uri}, expected one that is running or paused"
        raise _LibvirtError(message, absent=True)
    return _Domain(name, uuid, uri)


def _answer(link: _Link, command: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
    name, number = command.get("execute"), command.pop("id", None)
    # libvirt must know of a pause and its end: it gives up disks' leases and takes them again.
    own: dict[Any, Callable[[], Any]] = {
        "qmp_capabilities": dict,
        "stop": link.suspend,
        "cont": link.resume,
        "snapmig-domain-xml": link.xml,
    }
    try:
        # libvirt won't resume a domain that runs; QEMU takes back its disks then: guard_process.
        if name in own and not (name == "cont" and link.state() == _RUNNING):
            return {"return": own[name]() or {}, "id": number}
        answer = json.loads(link.command(json.dumps(command), descriptors))
        if not isinstance(answer, dict):
            raise ValueError
        return {**answer, "id": number}
    except _LibvirtError as error:
        return _refusal(str(error), number)
    except ValueError:
        return _refusal("it answered with something else than JSON", number)
    finally:
        while descriptors:
            os.close(descriptors.pop())


def _refusal(words: str, number: object) -> dict[str, Any]:
    return {"error": {"class": "LibvirtError", "desc": words}, "id": number}


class _Client:
    """The other end: snapmig, or the guard."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text = ""
        self.descriptors: list[int] = []
        """Received since the last command."""

    def send(self, message: dict[str, Any]) -> None:
        self._connection.sendall(json.dumps(message).encode() + b"\r\n")

    def next_command(self) -> dict[str, Any] | None:
        """Return the next command, None if nobody is left."""
        while True:
            self._text = self._text.lstrip()
            try:
                command, end = json.JSONDecoder().raw_decode(self._text)
                self._text = self._text[end:]
                return command if isinstance(command, dict) else {}
            except ValueError:
                data, received, _, _ = socket.recv_fds(self._connection, _STEP, _MOST_DESCRIPTORS)
                self.descriptors += received
                if not data:
                    return None
                self._text += self._decoder.decode(data)

    def has_left(self) -> bool:
        """Return True if nobody holds the other end."""
        poll = select.poll()
        poll.register(self._connection, 0)
        return bool(poll.poll(0))


class _Virsh:
    def __init__(self, plan: dict[str, Any], client: _Client) -> None:
        self._client = client
        self._limit = plan["limit"]
        self._command = [plan["virsh"], "--quiet"]
        self._command += ["--connect", plan["uri"]] if plan["uri"] else []
        self._uuid = ""

    def uri(self) -> str:
        return self._run("uri").strip()

    def domains(self) -> list[tuple[str, str]]:
        listed = (
            line.split(maxsplit=1)
            for line in self._run("list", "--all", "--uuid", "--name").splitlines()
        )
        return [(words[0], words[1].rstrip()) for words in listed if len(words) == 2]

    def choose(self, uuid: str) -> None:
        self._uuid = uuid

    def state(self) -> str:
        return self._run("domstate", self._uuid).strip()

    def xml(self) -> str:
        return self._run("dumpxml", "--migratable", "--security-info", self._uuid)

    def suspend(self) -> None:
        self._run("suspend", self._uuid)

    def resume(self) -> None:
        self._run("resume", self._uuid)

    def command(self, text: str, descriptors: list[int]) -> str:
        passed = ["--pass-fds", ",".join(map(str, descriptors))] if descriptors else []
        name = "qemu-monitor-command"
        return self._run(name, *passed, self._uuid, text, descriptors=descriptors)

    def _run(self, *words: str, descriptors: list[int] | None = None) -> str:
        with (
            open(os.memfd_create("output"), "w+b") as output,  # noqa: PTH123 - a descriptor
            open(os.memfd_create("errors"), "w+b") as errors,  # noqa: PTH123
        ):
            with subprocess.Popen(
                [*self._command, *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env={**os.environ, "LC_ALL": "C"},
                pass_fds=descriptors or (),
            ) as process:
                self._wait(process, words[0])
            if process.returncode:
                raise _LibvirtError(f"virsh {words[0]}: {_sentence(errors)}")
            output.seek(0)
            return output.read(_LONGEST_OUTPUT).decode("utf-8", "surrogateescape")

    def _wait(self, process: subprocess.Popen[bytes], verb: str) -> None:
        end, pause = time.monotonic() + self._limit + _LATER_S, 0.001
        while process.poll() is None:
            left = end - time.monotonic()
            if left <= 0 or self._client.has_left():
                process.kill()
                if left > 0:
                    raise _Left
                raise _LibvirtError(f"virsh {verb} took longer than {self._limit + _LATER_S:g} s")
            time.sleep(min(pause, left))
            pause = min(2 * pause, 0.005)


def _sentence(errors: Any) -> str:
    errors.seek(0)
    lines = errors.read(_STEP).decode("utf-8", "replace").splitlines()
    said = [line.strip().removeprefix("error: ") for line in lines if line.strip()]
    return ": ".join(said) or "it failed and does not say why"


class _Binding:
    def __init__(self, plan: dict[str, Any]) -> None:
        sys.path.append(plan["binding"])
        import libvirt  # noqa: PLC0415 - optional
        import libvirt_qemu  # noqa: PLC0415

        self._library, self._qemu = libvirt, libvirt_qemu
        self._limit = plan["limit"]
        libvirt.registerErrorHandler(lambda *_: None, None)
        self._domain: Any = None
        self._connection = self._call(libvirt.open, plan["uri"])

    def uri(self) -> str:
        return str(self._call(self._connection.getURI))

    def domains(self) -> list[tuple[str, str]]:
        return [
            (item.UUIDString(), item.name()) for item in self._call(self._connection.listAllDomains)
        ]

    def choose(self, uuid: str) -> None:
        self._domain = self._call(self._connection.lookupByUUIDString, uuid)

    def state(self) -> str:
        return _STATES.get(self._call(self._domain.state)[0], "")

    def xml(self) -> str:
        return str(self._call(self._domain.XMLDesc, _MIGRATABLE))

    def suspend(self) -> None:
        self._call(self._domain.suspend)

    def resume(self) -> None:
        self._call(self._domain.resume)

    def command(self, text: str, descriptors: list[int]) -> str:
        if not descriptors:
            return str(self._call(self._qemu.qemuMonitorCommand, self._domain, text, 0))
        call = self._qemu.qemuMonitorCommandWithFiles
        return str(self._call(call, self._domain, text, descriptors, 0)[0])

    def _call(self, function: Any, *arguments: Any) -> Any:
        # The library has no limit: the kernel ends this process.
        signal.alarm(int(self._limit) + _LATER_S)
        try:
            return function(*arguments)
        except self._library.libvirtError as error:
            raise _LibvirtError(" ".join(str(error).split())) from error
        finally:
            signal.alarm(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
