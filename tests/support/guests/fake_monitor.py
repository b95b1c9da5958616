"""
A monitor without a QEMU, with given answers and plausible defaults.

It is a thread of the test's process, so its peer finds the test's own process behind the socket:
files open or mapped there are "the guest's" memory.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

VERSION = {"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": ""}
CAPABILITIES = ("return-path", "x-ignore-shared", "multifd", "mapped-ram")


@dataclass(frozen=True)
class Refused:
    """An answer: the command fails with this reason."""

    words: str
    kind: str = "GenericError"


@dataclass(frozen=True)
class Raw:
    """An answer: these bytes, valid or not."""

    data: bytes


@dataclass(frozen=True)
class Silent:
    """An answer that never comes."""


class FakeMonitor:
    """
    A monitor at a socket; as a context manager it listens inside.

    :param path: the socket to create
    :param answers: by command, with ``_`` for ``-``: a value, a function of the arguments that
        returns one, :class:`Refused`, :class:`Raw` or :class:`Silent`
    :param memory: a file of whole pages, the guest's shared RAM
    :param greets: greet new clients; a monitor with a client keeps others waiting
    """

    def __init__(
        self, path: Path, memory: Path | None = None, *, greets: bool = True, **answers: Any
    ) -> None:
        self.path = path
        self.memory = memory
        self.answers = {name.replace("_", "-"): answer for name, answer in answers.items()}
        self.commands: list[tuple[str, dict[str, Any]]] = []
        self.descriptors: dict[str, int] = {}
        self.status, self.migration = "running", "none"
        self.suppress_vmdesc = True  # it has no stream to look at
        self._greets = greets
        self._received: list[int] = []
        self._mapped: mmap.mmap | None = None
        self._server = socket.socket(socket.AF_UNIX)
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        if self.memory is not None:
            self.descriptors["memory"] = os.open(self.memory, os.O_RDWR)
            self._mapped = mmap.mmap(self.descriptors["memory"], 0)
        self._server.bind(str(self.path))
        self._server.listen(8)
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        for end in (self._server, self._client):
            if end is not None:
                with contextlib.suppress(OSError):  # its other end went first
                    end.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._server.close()
        if self._mapped is not None:
            self._mapped.close()
        for fd in [*self._received, *self.descriptors.values()]:
            os.close(fd)

    @property
    def has_client(self) -> bool:
        """True while a client is connected."""
        return self._client is not None

    @property
    def names(self) -> list[str]:
        """The commands received, in their order."""
        return [name for name, _ in self.commands]

    def tell(self, event: str, second: int = 1) -> None:
        """Send the client an event."""
        if self._client is not None:
            at = {"seconds": second, "microseconds": 0}
            line = json.dumps({"event": event, "timestamp": at})
            self._client.sendall(line.encode() + b"\r\n")

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self._client = client
            with client, contextlib.suppress(OSError):  # it may leave in the middle of an answer
                self._talk(client)
            self._client = None

    def _talk(self, client: socket.socket) -> None:
        if self._greets:
            client.sendall(
                json.dumps({"QMP": {"version": VERSION, "capabilities": []}}).encode() + b"\r\n"
            )
        buffer = b""
        while True:
            data, fds, _, _ = socket.recv_fds(client, 1 << 16, 8)
            self._received += fds
            if not data:
                return
            *lines, buffer = _values(buffer + data)
            for line in lines:
                self._answer(client, json.loads(line))

    def _answer(self, client: socket.socket, asked: dict[str, Any]) -> None:
        name, arguments = asked["execute"], asked.get("arguments", {})
        self.commands.append((name, arguments))
        answer = self.answers.get(name, self._plausible)
        if answer == self._plausible:
            answer = self._plausible(name, arguments)
        elif callable(answer):
            answer = answer(arguments)
        if isinstance(answer, Silent):
            return
        if isinstance(answer, Raw):
            client.sendall(answer.data)
            return
        reply: dict[str, Any] = {"return": answer}
        if isinstance(answer, Refused):
            reply = {"error": {"class": answer.kind, "desc": answer.words}}
        if "id" in asked:
            reply["id"] = asked["id"]
        client.sendall(json.dumps(reply).encode() + b"\r\n")

    def _plausible(self, name: str, arguments: dict[str, Any]) -> Any:
        plain: dict[str, Any] = {
            "query-status": {"status": self.status, "running": self.status == "running"},
            "query-version": VERSION,
            "query-migrate": {} if self.migration == "none" else {"status": self.migration},
            "query-migrate-capabilities": [
                {"capability": item, "state": False} for item in CAPABILITIES
            ],
            "query-migrate-parameters": {
                "multifd-channels": 2, "max-bandwidth": 1 << 27, "downtime-limit": 300,
            },
            "query-yank": [],
            "query-memdev": self._memory_devices(),
            "qom-list": [{"name": "ram", "type": "child<memory-backend-file>"}],
            "qom-get": self._property(arguments),
        }  # fmt: skip
        if name in plain:
            return plain[name]
        acts: dict[str, Callable[[], Any]] = {
            "getfd": lambda: self.descriptors.update({arguments["fdname"]: self._received.pop(0)}),
            "add-fd": lambda: self.descriptors.update({"set": self._received.pop(0)}),
            "migrate": lambda: self._migrate(arguments["uri"]),
            "migrate-incoming": lambda: self._become("paused", "completed"),
            "migrate_cancel": lambda: self._become(self.status, "cancelled"),
            "cont": lambda: self._become("running", self.migration),
            "stop": lambda: self._become("paused", self.migration),
        }
        if name in acts:
            acts[name]()
        return {"fdset-id": 1, "fd": 7} if name == "add-fd" else {}

    def _memory_devices(self) -> list[dict[str, Any]]:
        if self.memory is None:
            return []
        return [{"id": "ram", "size": self.memory.stat().st_size, "share": True}]

    def _property(self, arguments: dict[str, Any]) -> Any:
        if arguments == {"path": "/machine", "property": "type"}:
            return "pc-q35-10.0-machine"
        return {
            "mem-path": str(self.memory),
            "offset": 0,
            "suppress-vmdesc": self.suppress_vmdesc,
        }.get(str(arguments.get("property")))

    def _migrate(self, uri: str) -> None:
        os.write(self.descriptors["set" if "fdset" in uri else uri.removeprefix("fd:")], b"state")
        self._become("postmigrate", "completed")

    def _become(self, status: str, migration: str) -> None:
        self.status, self.migration = status, migration


def _values(data: bytes) -> list[bytes]:
    # The complete JSON values received, and the beginning of the next.
    values, decoder, text = [], json.JSONDecoder(), data.decode()
    while text := text.lstrip():
        try:
            _, end = decoder.raw_decode(text)
        except ValueError:
            break
        values.append(text[:end].encode())
        text = text[end:]
    return [*values, text.encode()]
