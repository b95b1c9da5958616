"""Handlers of page faults as processes, and guests made by another program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import program, ram
from tests.support.processes import SOON_S
from tests.support.vmm.processes import Handler, Vmm

MIB = 1 << 20
SIZE = 12 * MIB


@pytest.fixture(scope="package")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give guest RAM of 12 MiB with pages of all kinds."""
    folder = tmp_path_factory.mktemp("daemons")
    return ram.write(folder / "guest.ram", ram.mixed(SIZE, seed=5))


@pytest.fixture(scope="package")
def snapshot(image: Path) -> Path:
    """Give a snapshot of it, in packets of 64 KiB."""
    path = image.with_suffix(".snap")
    program.run("save", "--packet-size", "64K", image, path).ok()
    return path


@pytest.fixture
def handler(tmp_path: Path) -> Iterator[Callable[..., Handler]]:
    """Give a function that starts a handler and waits until it listens."""
    started: list[Handler] = []

    def start(snapshot: object, *options: object, **more: Any) -> Handler:
        started.append(Handler.start(tmp_path / "fc.sock", snapshot, *options, **more))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate(timeout=SOON_S)


@pytest.fixture
def vmm(image: Path) -> Iterator[Callable[..., Vmm]]:
    """Give a function that starts a guest which touches its memory."""
    started: list[Vmm] = []

    def start(handler: Handler, **words: Any) -> Vmm:
        words = {"reference": str(image), "socket": str(handler.socket), **words}
        started.append(Vmm(words))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()
