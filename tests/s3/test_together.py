"""Neighbouring packets come in one request."""

import os
from contextlib import closing
from pathlib import Path

import pytest

import snapmig
from snapmig.chains.read_ahead import near_groups
from snapmig.operations.runs.random_access import RandomAccess
from tests.s3.conftest import CHANGED, RAM
from tests.support import ram
from tests.support.multifd.plain import write_plain
from tests.support.multifd.plan import Block, Packet, Plan
from tests.support.postcopy import serve
from tests.support.processes import wait_for

PACKET = 128 * 4096
ORDER = (40, 41, 19, 42, 18, 43, 20, 44)


def _ranges(proxy) -> int:
    return sum(line.startswith("GET ") for line in proxy.requests)


@pytest.mark.parametrize(
    ("numbers", "largest", "expected"),
    [
        (ORDER, 8, [[40, 41, 42, 43, 44], [18, 19, 20]]),
        (ORDER, 2, [[40, 41], [18, 19], [42, 43], [20], [44]]),
        (ORDER, 1, [[each] for each in ORDER]),
        ((1, 3, 6), 8, [[1, 3], [6]]),
        ((1, 1), 8, [[1]]),
        ((), 8, []),
    ],
)
def test_groups(numbers, largest, expected):
    """Packets near each other are together, those asked for first at the front."""
    assert list(near_groups(numbers, largest)) == expected


@pytest.mark.usefixtures("store")
def test_recorded_packets_come_together(proxy, saved):
    """Eight recorded packets in two places take two requests, and are what was saved."""
    with closing(RandomAccess(saved, jobs=2, cache=256 << 20, ahead=True)) as memory:
        proxy.requests.clear()
        memory.ahead.start(ORDER)
        wait_for(lambda: memory.packets.decoded == len(ORDER))
        asked = _ranges(proxy)
        found = {each: memory.packets.packet(each).tobytes() for each in ORDER}

    assert asked == 2
    assert found == {each: RAM[each * PACKET : (each + 1) * PACKET] for each in ORDER}


@pytest.mark.sweep
@pytest.mark.usefixtures("store")
def test_packets_behind_a_reader_come_together(proxy, saved):
    """All of a snapshot read in order takes far fewer requests than it has packets."""
    with closing(RandomAccess(saved, jobs=2, cache=256 << 20, ahead=True)) as memory:
        proxy.requests.clear()
        assert b"".join(map(bytes, memory.pieces(0, len(RAM)))) == RAM
        assert _ranges(proxy) < len(RAM) // PACKET // 3


@pytest.mark.sweep
@pytest.mark.usefixtures("store")
def test_packets_of_a_parent_are_announced(proxy, guest, restored, tmp_path, url):
    """A child's packets that are wholly the parent's are fetched in batches, as the child's."""
    changed, child = ram.write(tmp_path / "changed.ram", CHANGED), f"{url}.child"
    snapmig.save(guest, url, jobs=1)
    snapmig.save(changed, child, parent=url, jobs=1)
    proxy.requests.clear()

    assert restored(child) == CHANGED
    assert _ranges(proxy) < len(RAM) // PACKET // 2


@pytest.mark.sweep
@pytest.mark.usefixtures("store")
def test_a_working_set_comes_together(proxy, tmp_path: Path, url):
    """Packets sent before a guest runs take a request for neighbours; every page is right."""
    packets = tuple(Packet(0, 0, ((page, page + 1),)) for page in range(0, 4096, 64))
    plan = Plan((Block(b"ram", 4096),), 1, (packets,))
    image = ram.write(tmp_path / "image", write_plain(plan, return_path=False).lines[0].data)
    snapmig.save(image, url, jobs=1)
    proxy.requests.clear()
    end, serving = serve(url, first=(30, 3, 4, 5, 31, 2), jobs=2)
    end.finish()

    assert end.ram == {name.encode(): contents for name, contents in plan.expected().items()}
    assert (serving.before, os.fspath(url)) == (6, url)
    assert _ranges(proxy) < len(packets) // 2
