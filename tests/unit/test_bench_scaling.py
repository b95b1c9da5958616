"""Facts about the model of many processors, and the fleets of waiting workers beside it."""

import math

import pytest

import snapmig
from snapmig.container.format import DEFAULT_PACKET_SIZE
from tests.bench.fleet import fleet_save
from tests.bench.model import Costs, save_seconds, shares_seconds, task_count
from tests.bench.records import read_records
from tests.bench.scaling import main

COSTS = Costs(packet_s=1e-3, task_s=1e-4, start_s=1e-3, finish_s=0.0)
GIB = (1 << 30) // DEFAULT_PACKET_SIZE


def test_a_fleet_saves_as_a_real_save_does(shm):
    """The snapshot of its image of zeros is sound, and the model counts its tasks right."""
    fleet = fleet_save(shm, 3, 0.0, 2 * GIB)
    found = snapmig.verify(shm / "snapshot")
    assert (found.damaged_packets, found.ram_size) == (0, 2 << 30)
    assert fleet.tasks == task_count(2 * GIB, 3)
    assert fleet.parent_cpu_s > 0


@pytest.mark.parametrize(
    ("workers", "bandwidth", "limit"),
    [
        pytest.param(1, math.inf, "codec", id="one worker works for all"),
        pytest.param(512, math.inf, "start", id="all of them have to be started"),
        pytest.param(64, 1e9, "memory", id="slow memory"),
    ],
)
def test_a_limit_is_what_takes_longest(workers, bandwidth, limit):
    """Of one GiB."""
    assert save_seconds(COSTS, GIB, workers, bandwidth).limit == limit


def test_the_parent_is_a_limit_where_its_tasks_take_longer():
    """Batches of 32 packets, each worth a millisecond of a worker, and 64 workers."""
    slow = Costs(packet_s=1e-3, task_s=1e-3, start_s=0.0, finish_s=0.0)
    found = save_seconds(slow, 1024 * GIB, 64, math.inf)
    assert found.limit == "parent"
    assert found.seconds == pytest.approx(1024 * GIB / 32 * 1e-3, rel=0.02)


def test_twice_the_workers_take_half_the_time():
    """As long as nothing else is a limit."""
    one, two = (save_seconds(COSTS, 64 * GIB, workers, math.inf).seconds for workers in (4, 8))
    assert one / two == pytest.approx(2, rel=0.01)


def test_a_share_is_no_faster_than_its_link():
    """Two hosts send half of the packets each."""
    found = shares_seconds(COSTS, 64 * GIB, 2, 16, math.inf, link=1e8, size=1e5)
    assert found == (pytest.approx(32 * GIB * 1e5 / 1e8), "link")


@pytest.mark.sweep
def test_a_short_run(tmp_path, capsys):
    """Tables say what is measured and what is only modelled; each run is a record."""
    image = tmp_path / "guest.ram"
    image.write_bytes(
        b" ".join(b"%d" % number for number in range(300_000)).ljust(2 << 20)[: 2 << 20]
    )
    words = [
        "--image",
        image,
        "--rounds",
        "1",
        "--fleets",
        "2",
        "--batches",
        "1",
        "--output-dir",
        tmp_path,
    ]
    assert main(list(map(str, words))) == 0
    shown = capsys.readouterr().out
    assert "measured and modelled" in shown
    assert "modelled only" in shown
    runs = {(one["operation"], one["name"]) for one in read_records([tmp_path / "scaling.jsonl"])}
    assert runs == {("save", "snapmig"), ("fleet", "scanning"), ("fleet", "codec")}
