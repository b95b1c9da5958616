"""Guests received from a scripted source, and what is left afterwards."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import multiprocess
import pytest

import snapmig
from snapmig.container.format import Layout
from snapmig.encodings.compressions import PacketSettings
from snapmig.migration import channel
from snapmig.migration.connections import PrivateSocket, accept_all
from snapmig.migration.main_channel import MainChannel
from snapmig.operations.options.save import SaveOptions
from snapmig.operations.runs import receive as runs
from snapmig.stores.location import parse_location
from tests.support.multifd.play import Report, play
from tests.support.multifd.talk import MAIN, Talk
from tests.support.processes import alive, children

OPTIONS = SaveOptions(
    jobs=2,
    settings=PacketSettings("zlib"),
    packet_size=None,
    layout=Layout.FIXED,
    attach={},
    force=False,
    live=False,
    progress=None,
)
PATIENCE_S = 40.0
STILL_S = 1


@dataclass(frozen=True)
class Received:
    """
    The end of a receive.

    :param error: None if there is a snapshot
    :param report: what the source saw
    :param files: names of all files in the snapshot's folder
    :param processes: those that are left
    """

    error: Exception | None
    report: Report
    snapshot: Path
    files: list[str]
    processes: list[int]

    @property
    def ram(self) -> bytes:
        """All blocks, one after the other."""
        with snapmig.open(self.snapshot) as found:
            return found.read(0, len(found))


@pytest.fixture(scope="session", autouse=True)
def _helpers(tmp_path_factory: pytest.TempPathFactory) -> None:
    # Beside threads workers come from a server that is started once, and stays. With the modules in
    # it a worker is there in 10 ms, not in 400 ms of a processor.
    multiprocess.set_forkserver_preload(
        ["snapmig.handlers.receive", "snapmig.handlers.send", "snapmig.workers.entry"]
    )
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, daemon=True)
    thread.start()
    folder = tmp_path_factory.mktemp("first")
    (folder / "ram").write_bytes(bytes(4096))
    snapmig.save(folder / "ram", folder / "snapshot", jobs=1)
    stop.set()
    thread.join()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the receiver wait for a second at most."""
    monkeypatch.setattr(runs, "HEAD_S", float(STILL_S))
    monkeypatch.setattr(runs, "_STILL_S", float(STILL_S))
    monkeypatch.setattr(channel, "STILL_S", STILL_S)


@pytest.fixture
def receive(tmp_path: Path) -> Callable[..., Received]:
    """Give a function that receives a talk into a snapshot."""
    folder = tmp_path / "to"
    folder.mkdir()

    def call(talk: Talk, patience: float = PATIENCE_S, *, hurry: bool = False) -> Received:
        snapshot = folder / "snapshot"
        snapshot.unlink(missing_ok=True)
        before = children(os.getpid())
        reports: list[Report] = []
        with PrivateSocket() as private:
            address = private.uri
            source = threading.Thread(
                target=lambda: reports.append(play(talk, address, patience=patience)), daemon=True
            )
            source.start()
            error = _error_of(talk, private, snapshot, hurry=hurry)
            private.listener.close()
            source.join(60)
        files = sorted(path.name for path in folder.iterdir())
        left = [pid for pid in alive(children(os.getpid())) if pid not in before]
        return Received(error, reports[0], snapshot, files, left)

    return call


def _error_of(
    talk: Talk, private: PrivateSocket, snapshot: Path, *, hurry: bool
) -> Exception | None:
    try:
        _receive(talk, private, snapshot, hurry=hurry)
    except Exception as error:  # noqa: BLE001 - the tests look at its kind
        # Its frames would keep all that came, and themselves: gigabytes in a long run.
        return error.with_traceback(None)
    return None


def _receive(talk: Talk, private: PrivateSocket, snapshot: Path, *, hurry: bool) -> None:
    multifd = any(line.name != MAIN for line in talk.lines)
    channels = talk.plan.channels if multifd else 0
    connections = accept_all(private.listener, channels, runs.HEAD_S)
    with closing(connections):
        main = MainChannel(connections.main, "the source", multifd=multifd)
        try:
            state = main.read_head(runs.HEAD_S, lambda: None)
            place = parse_location(snapshot)
            with runs.open_receiver(connections, main, state, place, OPTIONS) as receiver:
                if hurry:
                    receiver.hurry()
                receiver.receive(lambda: None)
                receiver.source.attachments = receiver.attachments()
                receiver.finish()
        except BaseException:
            main.return_path.finish(taken=False)
            raise
        main.return_path.finish(taken=True)
