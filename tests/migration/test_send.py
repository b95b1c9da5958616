"""Facts about ``send`` to scripted destinations, with channels and without."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest

import snapmig
from tests.migration.sources import OTHERS, save
from tests.migration.test_bad_sources import is_sentence
from tests.support.multifd.answers import pong
from tests.support.multifd.destination import GOOD, SAY, Deed, Destination
from tests.support.multifd.dialects import QEMU_7_2, QEMU_10
from tests.support.multifd.manners import FAULTS
from tests.support.multifd.plan import usual
from tests.support.multifd.talk import MAIN
from tests.support.processes import wait_for
from tests.support.sweep import sweep

PLAN = usual(1, 2)
PREFIX = "snapmig: "
WAYS = [(one, n) for one in (QEMU_7_2, QEMU_10) for n in (0, 1, 2, 5)]
ESSENTIAL = (
    "nobody listens",
    "refuses at the end",
    "has everything at once",
    "says PONG twice at the end",
    "main: close 0 bytes after sections",
    "main: leave 10 bytes after end",
)
ON_MAIN = [
    name
    for name, make in FAULTS.items()
    if all(deed.line == MAIN for deed in make(defaultdict(int)).deeds)
]
"""Those of destinations that may have no channels."""


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """Give a snapshot of a guest with more pages than sockets hold."""
    return save(PLAN, tmp_path_factory.mktemp("from") / "guest.snap")


@pytest.fixture(scope="module", params=[0, 2], ids=["plain", "channels"])
def channels(request):
    """Give a number of channels."""
    return request.param


@pytest.fixture(scope="module")
def places(snapshot, channels, tmp_path_factory):
    """Give the places on the main connection."""
    folder = tmp_path_factory.mktemp("at")
    with Destination(GOOD) as destination:
        uri = f"unix:{folder / 'socket'}"
        destination.listen(uri)
        snapmig.send(snapshot, uri, channels=channels)
        main, _ = destination.read
        return {"start": 0, "whole": len(destination.main), **main.places}


@pytest.mark.parametrize(
    ("dialect", "channels"), sweep(WAYS, lambda way: way[1] in (0, 2)), ids=str
)
def test_all_memory_is_sent(tmp_path, dialect, channels):
    """Zero pages as well, because nobody says that the destination's memory is new."""
    path = save(PLAN, tmp_path / "guest.snap", dialect)
    with Destination(GOOD) as destination:
        uri = f"unix:{tmp_path / 'socket'}"
        destination.listen(uri)
        snapmig.send(path, uri, channels=channels)

        assert destination.ram(dict.fromkeys(PLAN.expected(), OTHERS)) == PLAN.expected()


def answering(manner, places):
    """Return a manner that answers a ping, because the source waits for that before it goes on."""
    return replace(manner, deeds=(*manner.deeds, Deed(MAIN, places["list"], SAY, pong(1))))


@pytest.mark.parametrize("name", sweep(ON_MAIN, lambda name: name in ESSENTIAL))
def test_a_fault_is_an_error(cli, snapshot, places, channels, tmp_path, name):
    """In one sentence, with nothing left open."""
    with Destination(answering(FAULTS[name](places), places)) as destination:
        uri = f"unix:{tmp_path / 'socket'}"
        destination.listen(uri)

        outcome = cli("send", snapshot, uri, "--channels", channels, "--timeout", 1)

        outcome.fails(1, start=PREFIX, lines=1)
        assert is_sentence(outcome.err.removeprefix(PREFIX).rstrip("\n"))
        wait_for(lambda: not destination.left_open)
