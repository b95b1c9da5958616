"""Passes of a live save between its first one and the pause."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import snapmig
from snapmig.container.format import Layout
from snapmig.encodings.compressions import PacketSettings
from snapmig.images.formats import open_image
from snapmig.operations.options.save import SaveOptions
from snapmig.operations.runs.save import SaveRun, open_save_run
from tests.support import ram

PACKET = 64 << 10
PACKETS = 40
OLD = ram.mixed(PACKETS * PACKET)


@contextmanager
def _live(image: Path, snapshot: Path) -> Iterator[SaveRun]:
    # A save of a file that changes as a guest's memory does.
    options = SaveOptions(
        2, PacketSettings(), PACKET, Layout.FIXED, {}, force=False, live=True, progress=None
    )
    source = open_image(str(image), "raw")
    with open_save_run(source, snapshot, options) as run:
        run.write_pass()
        yield run
    source.close()


def _write(image: Path, *packets: int) -> bytes:
    with image.open("r+b") as file:
        for packet in packets:
            file.seek(packet * PACKET)
            file.write(b"\x5a" * 8)
    return image.read_bytes()


def test_the_pause_writes_only_what_changed_since(shm: Path) -> None:
    """What changed before the last of these passes takes nothing of the pause."""
    image = ram.write(shm / "a", OLD)
    with _live(image, shm / "s") as run:
        _write(image, 3, 7)
        run.catch_up()
        new = _write(image, 21)
        run.write_pass(changed_only=True)
        result = run.finish({}, pause_seconds=0.1)
    snapmig.restore(shm / "s", shm / "b")

    assert result.changed_packets == 1
    assert (shm / "b").read_bytes() == new


def test_a_guest_that_writes_everywhere_is_not_caught_up(shm: Path) -> None:
    """Packets that change at any time are not written in vain before the pause."""
    image = ram.write(shm / "a", OLD)
    with _live(image, shm / "s") as run:
        new = _write(image, *range(PACKETS))
        run.catch_up()
        run.write_pass(changed_only=True)
        run.warn_of_writes()
        result = run.finish({}, pause_seconds=0.1)
    snapmig.restore(shm / "s", shm / "b")

    assert result.changed_packets == PACKETS
    assert "smaller packets may help" in result.warnings[0]
    assert (shm / "b").read_bytes() == new
