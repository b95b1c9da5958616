"""Facts about guests sent to a QEMU behind a network that delays and loses packets."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import snapmig
from tests.support import network
from tests.support import program as snapmig_program
from tests.support.guests import migration
from tests.support.guests.migration import MULTIFD
from tests.support.guests.resume import LAYOUT, Memory, file_memory, make_monitored
from tests.support.guests.tiny import guest as tiny

pytestmark = [pytest.mark.guest, pytest.mark.root, pytest.mark.sweep]

PORT = 4444
DELAY_S = 0.005
PRIVATE = Memory([f"memory-backend-ram,id=ram,size={LAYOUT.ram}"])


@pytest.mark.parametrize("loss", [0.0, 0.02])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("compression", "wire"),
    [("zstd", "zstd"), ("zlib", "zlib"), ("zlib", "zstd"), ("lz4", "zlib"), ("lz4", "none")],
)
def test_a_guest_of_another_host(
    program: str, shm: Path, compression: str, wire: str, channels: int, loss: float
) -> None:
    """It comes whole, passed on or compressed anew, and counts on."""
    path = shm / "snap"
    with make_monitored(program, shm, file_memory(shm / "ram")) as guest:
        tiny.wait_passes(guest, 2)
        snapmig.save(guest.monitor, path, jobs=2, via="multifd", compression=compression)
    snapmig.restore(path, shm / "check", block="ram")
    state = tiny.check_image(shm / "check", LAYOUT)
    waiting = make_monitored(program, shm, PRIVATE, incoming=True)
    with network.bad_link(DELAY_S, loss) as link:
        waiting.config.before = link.command(1)
        with waiting as guest:
            settings = {"multifd_channels": channels, "multifd_compression": wire}
            migration.prepare(guest, (MULTIFD,), **settings)
            place = f"tcp:{link.addresses[1]}:{PORT}"
            guest.execute("migrate-incoming", uri=place)
            command = [*link.command(0), sys.executable, "-m", "snapmig", "send", str(path), place]
            more = ["--insecure", "--channels", str(channels), "--wire", wire]
            snapmig_program.call([*command, *more]).ok()
            migration.wait_loaded(guest, place)
            counted = tiny.wait_passes(guest, 2, before=0)
    assert tiny.goes_on(counted, state, LAYOUT)
    assert link.carried > 100
    assert (link.lost > 0) == (loss > 0)
