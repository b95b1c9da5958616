"""Facts about the scripted source of a migration: a plain receiver gets the RAM of its plan."""

import socket
import threading
from contextlib import suppress

import pytest
from hypothesis import given

from tests.support.multifd import faults, reader
from tests.support.multifd.dialects import DIALECTS, QEMU_7_2, QEMU_9_2, QEMU_10
from tests.support.multifd.order import channels_first, in_pieces, late
from tests.support.multifd.plain import background, write_plain
from tests.support.multifd.plan import Block, Packet, Plan, usual
from tests.support.multifd.play import play
from tests.support.multifd.strategies import talks
from tests.support.multifd.talk import Step, write

SMALL = Plan(
    (Block(b"ram", 4),),
    2,
    (
        (Packet(0, 0, ((0, 1), (1, 2))), Packet(1, 0, ((2, 3), (3, 4)))),
        (Packet(0, 0, ((2, 5), (3, 0))),),
    ),
)


class Sink:
    """Reads all connections to their ends; answers the return path when main has come whole."""

    def __init__(self, path, talk):
        self.path, self.talk = path, talk
        self.received = {}
        self.first = []
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(8)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self):
        with suppress(OSError):
            for _ in self.talk.lines:
                end, _ = self._server.accept()
                self._threads.append(threading.Thread(target=self._read, args=(end,), daemon=True))
                self._threads[-1].start()

    def _read(self, end):
        data = b""
        whole = len(self.talk.lines[0].data)
        with suppress(OSError), end:
            while part := end.recv(1 << 20):
                self.first.append(part)
                data += part
                if data[:4] == b"QEVM" and len(data) == whole:
                    end.sendall(bytes.fromhex("0002000400000001 0001000400000000"))
        self.received["main" if data[:4] == b"QEVM" else data[24]] = data

    def finish(self):
        """Return what came, by the channel's number, or as main."""
        for thread in self._threads:
            thread.join(5)
        self._server.close()
        return self.received


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.name)
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_every_dialect_makes_the_same_ram(dialect, channels):
    """The RAM is that of the plan, whatever the release of QEMU and the number of channels."""
    talk = write(usual(channels), dialect)

    main, *others = talk.lines
    found = [reader.read_channel(line.data) for line in others]
    assert reader.restored(reader.read_main(main.data), found) == talk.plan.expected()


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_compressed_channels_are_one_stream_each(compression):
    """A channel's packets go through one decompressor from its first to its last."""
    talk = write(usual(2), compression=compression)

    main, *others = talk.lines
    found = [reader.read_channel(line.data) for line in others]
    assert reader.restored(reader.read_main(main.data), found) == talk.plan.expected()


@given(talk=talks())
def test_drawn_talks_make_the_ram_of_their_plan(talk):
    """Whatever the rounds, the release and the compression, the RAM is the plan's."""
    main, *others = talk.lines

    found = [reader.read_channel(line.data) for line in others]
    assert reader.restored(reader.read_main(main.data), found) == talk.plan.expected()


@pytest.mark.parametrize("name", [*faults.FAULTS, *faults.STALLS])
def test_a_fault_is_one(name):
    """A talk with a fault is another than the good one."""
    good = write(SMALL)

    assert {**faults.FAULTS, **faults.STALLS}[name](good).lines != good.lines


@pytest.mark.parametrize(
    ("compression", "name"),
    [(one, name) for one in faults.COMPRESSED for name in faults.COMPRESSED[one]],
)
def test_a_compressed_fault_is_one(compression, name):
    """A compressed talk with a fault is another than the good one."""
    good = write(SMALL, compression=compression)

    assert faults.COMPRESSED[compression][name](good).lines != good.lines


def test_the_last_sync_of_qemu_9_2_has_no_mark():
    """Channels count one SYNC more than there are marks on main."""
    talk = write(SMALL, QEMU_9_2)

    main, channel = reader.read_main(talk.lines[0].data), reader.read_channel(talk.lines[1].data)
    assert channel.syncs == main.marks + 1


def test_qemu_7_sends_pages_with_syncs_and_sizes_of_nothing():
    """Its SYNC packets may have pages; packets without pages repeat the last size."""
    talk = write(SMALL, QEMU_7_2)

    channel = reader.read_channel(talk.line("channel 0").data)
    assert (channel.sync_with_pages, channel.empty, channel.stale > 0) == (1, 1, True)


def test_qemu_7_repeats_a_page_of_a_full_packet():
    """Its last page is the next packet's first, here on another channel."""
    talk = write(usual(2, 1), QEMU_7_2)

    first, second = (reader.read_channel(line.data).epochs[1].pages for line in talk.lines[1:])
    assert len(first.keys() & second.keys()) > 0


@pytest.mark.parametrize("return_path", [True, False])
@pytest.mark.parametrize("dialect", [QEMU_10, QEMU_7_2], ids=lambda one: one.name)
def test_what_is_played_arrives(tmp_path, dialect, return_path):
    """A receiver gets the bytes of each connection, and its answers are reported."""
    talk = write(usual(2), dialect, return_path=return_path)
    sink = Sink(tmp_path / "in", talk)

    report = play(talk, f"unix:{sink.path}")

    received = sink.finish()
    assert [received["main"], received[0], received[1]] == [line.data for line in talk.lines]
    assert (report.failures, report.unfinished) == ({}, [])
    assert report.shut in ((0,) if return_path else (0, None))  # it is not waited for


def test_other_orders_and_pieces_are_the_same_bytes(tmp_path):
    """Connections made in another order, and steps cut to pieces, say the same."""
    talk = write(SMALL)
    sink = Sink(tmp_path / "in", talk)

    play(in_pieces(channels_first(talk), 1000), f"unix:{sink.path}")

    received = sink.finish()
    assert [received["main"], received[0], received[1]] == [line.data for line in talk.lines]


def test_a_late_channel_comes_after_the_next_round(tmp_path):
    """The part of a round held back is sent when the other channel's next round has been read."""
    # Threads read the connections, and now and then one of them is overtaken.
    orders = [_order(tmp_path / str(number)) for number in range(5)]
    assert orders.count(["ahead", "held"]) >= 3


def _order(path):
    talk = late(write(SMALL), "channel 1", 0)
    sink = Sink(path, talk)
    play(talk, f"unix:{sink.path}")
    sink.finish()
    held = talk.line("channel 1").steps[2].data
    ahead = next(step.data for step in talk.line("channel 0").steps if step.round == 1)
    return [
        "held" if held[:400] in part else "ahead"
        for part in sink.first
        if held[:400] in part or ahead[:400] in part
    ]


def test_a_source_that_stalls_is_given_up(tmp_path):
    """Connections that neither get on nor are closed end with the source's patience."""
    talk = write(SMALL).inserted("channel 1", "sync", Step("stall"))
    sink = Sink(tmp_path / "in", talk)

    report = play(talk, f"unix:{sink.path}", patience=0.3)

    sink.finish()
    assert report.unfinished == ["channel 1"]


def test_a_background_snapshot_has_no_end_of_ram():
    """Each page comes once, in any order, and no section ends RAM."""
    plan = background((Block(b"ram", 300), Block(b"rom", 5)))
    kinds = {step.data[0] for step in write_plain(plan, end_section=False).lines[0].steps
             if step.kind == "section"}  # fmt: skip

    pages = [(one.block, *page) for packets in plan.rounds for one in packets for page in one.pages]
    assert (kinds, len(pages), pages == sorted(pages)) == ({2}, 305, False)
