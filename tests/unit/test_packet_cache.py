"""Facts about decoded packets shared by threads, and images read without a restore."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import snapmig
from snapmig.architectures import find_architecture
from snapmig.container.reader import SnapshotFile
from snapmig.errors import CorruptSnapshotError
from snapmig.geometry import RamBlock
from snapmig.images.formats import find_format
from snapmig.images.view import ImageView
from snapmig.operations.runs.random_access import RandomAccess
from snapmig.operations.runs.restore_inputs import content_of
from tests.support import ram
from tests.support.processes import wait_for

PACKET = 64 << 10
SIZE = 32 * PACKET
BLOCKS = (
    (RamBlock.at(0, SIZE, "low"), 1),
    (RamBlock.at(1 << 32, SIZE, "high"), 2),
)


@pytest.fixture(scope="module")
def saved(shared_shm):
    """Give a snapshot of two RAM blocks at addresses, and their bytes."""
    contents = [ram.mixed(SIZE, seed) for _, seed in BLOCKS]
    images = [
        (block, ram.write(shared_shm / block.name, content))
        for (block, _), content in zip(BLOCKS, contents, strict=True)
    ]
    snapmig.save(images, shared_shm / "s", packet_size=PACKET, jobs=2)
    return shared_shm / "s", b"".join(contents)


@pytest.fixture
def memory(saved):
    """Give the snapshot open for eight threads with room for four packets."""
    found = RandomAccess(saved[0], jobs=8, cache=4 * PACKET)
    yield found
    found.close()


def test_threads_read_what_was_saved(saved, memory):
    """Eight threads at once read every part of the RAM, with far less memory than it."""
    parts = [(at, at + 100_000) for at in range(0, 2 * SIZE, 70_001)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda part: memory.read(part[0], min(part[1], 2 * SIZE)), parts))

    assert found == [saved[1][start:stop] for start, stop in parts]


def test_a_packet_is_decoded_once_for_all(memory):
    """Threads that ask for one packet at the same time share one decode."""
    together = threading.Barrier(8)

    def ask(_: int) -> int:
        together.wait()
        return memory.packets.packet(1).size

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(8))) == [PACKET] * 8
    assert memory.packets.decoded == 1


def test_first_requests_are_remembered_in_order(memory):
    """Packets are listed by their first request, without those decoded ahead of any."""
    memory.packets.packet(9, ahead=True)
    for number in (7, 3, 7, 1):
        memory.packets.packet(number)

    assert memory.packets.touched == (7, 3, 1)


def test_reads_in_order_are_decoded_ahead(saved):
    """After three packets in a row the next ones are decoded before anybody asks."""
    memory = RandomAccess(saved[0], jobs=2, cache=32 * PACKET, ahead=True)
    memory.read(0, 3 * PACKET)
    wait_for(lambda: memory.packets.decoded == 7)
    memory.close()
    assert memory.packets.touched == (0, 1, 2)


def test_behind_readers_of_a_recorded_set_nothing_else_is_decoded(saved):
    """Three packets in a row are followed by what is recorded, not by their neighbours."""
    memory = RandomAccess(saved[0], jobs=2, cache=32 * PACKET, ahead=True)
    memory.ahead.start([0, 1, 2, *range(20, 50)])
    wait_for(lambda: memory.packets.decoded >= 8)
    memory.read(0, 3 * PACKET)
    wait_for(lambda: memory.packets.decoded >= 11)
    memory.close()

    assert memory.packets.decoded <= 12  # a quarter of the cache and three, or with neighbours 15


def test_a_recorded_set_fills_a_quarter_of_the_cache(saved):
    """Recorded packets are decoded in order, the next ones once those are asked for."""
    memory = RandomAccess(saved[0], jobs=1, cache=8 * PACKET, ahead=True)
    memory.ahead.start(range(20, 40))
    wait_for(lambda: memory.packets.decoded == 2)
    memory.packets.packet(20)
    wait_for(lambda: memory.packets.decoded == 3)
    memory.close()
    assert memory.packets.decoded == 3


def test_a_recorded_set_goes_on_when_its_packets_are_dropped(saved):
    """Recorded packets that others push out of the cache before anybody asks make room for more."""
    memory = RandomAccess(saved[0], jobs=1, cache=8 * PACKET, ahead=True)
    memory.ahead.start(range(20, 40))
    wait_for(lambda: memory.packets.decoded == 2)
    for number in (0, 2, 4, 6, 8, 10, 12, 14):
        memory.packets.packet(number)
    wait_for(lambda: memory.packets.decoded > 10)
    memory.close()


def test_all_who_wait_for_a_damaged_packet_get_its_error(shm, saved):
    """A damaged packet is an error for each thread that asks, at once or later."""
    damaged = bytearray(saved[0].read_bytes())
    with snapmig.open(saved[0]) as whole:
        place = whole._geometry.place(1)
        offset = whole._file.packet(place).offset
    damaged[offset] ^= 1
    (shm / "s").write_bytes(damaged)
    memory = RandomAccess(shm / "s", jobs=8, cache=4 * PACKET)

    def ask(_: int) -> str:
        with pytest.raises(CorruptSnapshotError) as caught:
            memory.packets.packet(1)
        return str(caught.value.packet)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(16))) == ["1"] * 16
    assert memory.packets.packet(2).size == PACKET


@pytest.mark.parametrize("name", ["raw", "raw-by-address", "elf"])
def test_a_view_is_what_a_restore_writes(shm, saved, name):
    """The bytes of an image are those of the restored file, at any place."""
    arch = "x86_64" if name == "elf" else None
    snapmig.restore(saved[0], shm / "r", format=name, arch=arch)
    memory = RandomAccess(saved[0], jobs=2, cache=4 * PACKET)
    with SnapshotFile(str(saved[0])) as file:
        content = content_of(file)._replace(architecture=find_architecture("x86_64"))
        plan = find_format(name).plan_image(content)
        view = ImageView.planned(plan, file.geometry, memory.pieces)
    with (shm / "r").open("rb") as restored:
        assert view.size == (shm / "r").stat().st_size
        for at in [0, 60, 4095, PACKET - 1, SIZE - 5, view.size - SIZE - 3, view.size - 10]:
            restored.seek(at)
            assert view.read(at, 100_000) == restored.read(100_000)
    memory.close()
