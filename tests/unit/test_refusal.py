"""Facts about the destination that refuses a guest which its owner had stopped."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from snapmig.guests.file_migrations import state_saved
from snapmig.guests.guest import Guest
from snapmig.guests.monitor import MonitorError
from snapmig.guests.pause import paused
from tests.support.guests.fake_monitor import FakeMonitor
from tests.support.processes import wait_for

HEAD = b"QEVM\0\0\0\3\7\0\0\0\3q35"
OPENING = bytes.fromhex("0800010000080002000400000001")
DEVICES = b"\4\0\0\0\1some device\0\0\6{}\0"
WORDS = json.dumps({"devices": ["x" * 400]}).encode()
END = b"\0\6" + len(WORDS).to_bytes(4) + WORDS
STREAM = HEAD + OPENING + DEVICES + END


class Source(FakeMonitor):
    """A guest that its owner stopped, whose QEMU sends pieces and waits for an answer."""

    def __init__(self, path: Path, pieces: Sequence[bytes], behind: bytes = b"") -> None:
        super().__init__(path, migrate=self._begin)
        self.status, self.suppress_vmdesc = "paused", False
        self.heard = b""
        self._pieces, self._behind = pieces, behind
        self.between: Callable[[], object] = lambda: None
        self.behind: Callable[[], object] = lambda: None

    def _begin(self, _: Any) -> dict[str, Any]:
        self.status, self.migration = "finish-migrate", "device"
        stream = socket.socket(fileno=os.dup(self.descriptors["snapmig-refused"]))
        os.close(self.descriptors.pop("snapmig-refused"))
        threading.Thread(target=self._send, args=(stream,), daemon=True).start()
        return {}

    def _send(self, stream: socket.socket) -> None:
        with stream, contextlib.suppress(OSError):  # a destination that leaves is a failure, too
            for piece in self._pieces:
                stream.sendall(piece)
                self.between()
            self.behind()
            self.heard = stream.recv(100) if self._pieces else b""
            stream.sendall(self._behind)
        self.status, self.migration = "paused", "failed"


def save(monitor: FakeMonitor) -> bytes:
    """Save a guest's device state, and return it."""
    fd = os.memfd_create("state")
    try:
        with (
            Guest(str(monitor.path)) as guest,
            paused(guest) as pause,
            state_saved(guest, fd, keep=pause.keeps_state),
        ):
            pass
        return os.pread(fd, 8 << 20, 0)
    finally:
        os.close(fd)


CUT = {
    "whole": [STREAM],
    "in the opening": [STREAM[: len(HEAD) + 3], STREAM[len(HEAD) + 3 :]],
    "in the length": [STREAM[: -len(WORDS) - 2], STREAM[-len(WORDS) - 2 :]],
    "before the last byte": [STREAM[:-1], STREAM[-1:]],
    "byte by byte": [STREAM[at : at + 1] for at in range(len(STREAM))],
}


@pytest.mark.parametrize("cut", CUT)
def test_stream_is_taken_and_refused(shm: Path, cut: str) -> None:
    """All but what opens the return path is kept, and the answer is a refusal: shut, not 0."""
    with Source(shm / "qmp", CUT[cut]) as monitor:
        kept = save(monitor)
    assert (kept, monitor.heard) == (HEAD + DEVICES + END, bytes.fromhex("0001 0004 00000001"))
    assert monitor.status == "paused"


def test_length_with_a_brace(shm: Path) -> None:
    """A length of which a byte is that of a brace, or of NUL, ends a stream all the same."""
    for length in (0x7B00, 0x017B27, 0x010000):
        words = b'{"devices": "' + b"x" * (length - 15) + b'"}'
        stream = HEAD + OPENING + DEVICES + b"\0\6" + length.to_bytes(4) + words
        with Source(shm / f"{length}", [stream]) as monitor:
            assert len(save(monitor)) == len(stream) - len(OPENING)


def test_stream_without_a_return_path(shm: Path) -> None:
    """A stream that is not what was asked for is an error, and the guest is as before."""
    with (
        Source(shm / "qmp", [HEAD + bytes(1 << 17) + END]) as monitor,
        pytest.raises(MonitorError, match="does not open a return path"),
    ):
        save(monitor)
    wait_for(lambda: monitor.status == "paused")


def test_stream_that_only_looked_complete(shm: Path) -> None:
    """A stream that goes on behind what looked like its end is an error."""
    with (
        Source(shm / "qmp", [STREAM], b"more") as monitor,
        pytest.raises(MonitorError, match="continues after its end"),
    ):
        save(monitor)


def test_reason_of_qemu(shm: Path) -> None:
    """A QEMU that gives up gives the reason."""
    with Source(shm / "qmp", []) as monitor:
        failed = {"status": "failed", "error-desc": "a device can't be migrated"}
        monitor.answers["query-migrate"] = lambda _: failed if "migrate" in monitor.names else {}
        with pytest.raises(MonitorError, match="could not migrate: a device can't be migrated"):
            save(monitor)


def test_qemu_that_answers_nothing_before_its_stream_is_read(shm: Path) -> None:
    """A QEMU whose stream stands still answers nothing, so it is read on without asking."""
    more = bytes(4 << 20)  # and no socket takes that unread
    halves = [HEAD + OPENING + DEVICES, more + END]
    with Source(shm / "qmp", halves) as monitor:
        sent = threading.Event()

        def query(_: Any) -> dict[str, str]:
            if "migrate" in monitor.names:
                sent.wait(30)
            return {} if monitor.migration == "none" else {"status": monitor.migration}

        monitor.answers["query-migrate"] = query
        monitor.between = lambda: threading.Event().wait(0.1)
        monitor.behind = sent.set
        assert save(monitor) == HEAD + DEVICES + more + END


def test_machine_without_descriptions(shm: Path) -> None:
    """Where a stream's end could not be seen nothing is refused, and the guest saved once."""
    with FakeMonitor(shm / "qmp") as monitor:
        monitor.status = "paused"
        assert (save(monitor), monitor.status) == (b"state", "postmigrate")
