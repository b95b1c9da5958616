"""Facts about received guests: their RAM is the source's, whatever its release and the network."""

from dataclasses import replace

import pytest

import snapmig
from tests.support.multifd import order
from tests.support.multifd.dialects import DIALECTS, QEMU_7_2, QEMU_9_0, QEMU_10
from tests.support.multifd.plain import background, write_plain
from tests.support.multifd.plan import Block, Packet, Plan, usual
from tests.support.multifd.talk import MAIN, Guest, device, write
from tests.support.sweep import sweep

SMALL = usual(2, 3, (Block(b"ram", 20), Block(b"rom", 3)))

each_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.name)


def check(received, plan):
    """Check a receive that succeeded: its RAM, and that nothing else is left."""
    if received.error is not None:
        raise received.error
    assert received.ram == plan.all_ram
    assert received.files == ["snapshot"]
    assert received.processes == []


@each_dialect
@pytest.mark.parametrize(
    "channels",
    [1, 2, pytest.param(4, marks=pytest.mark.sweep), pytest.param(9, marks=pytest.mark.sweep)],
)
def test_the_ram_is_the_sources(receive, dialect, channels):
    """All pages of the last round that sent them, zero pages among them."""
    plan = usual(channels)

    check(receive(write(plan, dialect)), plan)


@each_dialect
def test_a_guest_that_stands_still(receive, dialect):
    """Packets staged whole are the same when they are merged."""
    plan = usual(2)

    check(receive(write(plan, dialect), hurry=True), plan)


@each_dialect
def test_the_source_is_told_at_the_end(receive, dialect):
    """A ping is answered, and the last word is success."""
    report = receive(write(SMALL, dialect)).report

    assert (report.pongs, report.shut, report.unfinished) == ([1], 0, [])


@pytest.mark.parametrize("dialect", [QEMU_7_2, QEMU_10], ids=lambda one: one.name)
def test_a_source_without_return_path_closes_when_all_is_sent(receive, dialect):
    """Ends of channels after their last barrier are no failures."""
    check(receive(write(SMALL, dialect, return_path=False)), SMALL)


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
@pytest.mark.parametrize("dialect", [QEMU_7_2, QEMU_10], ids=lambda one: one.name)
def test_compressed_pages(receive, dialect, compression):
    """Each channel is one compressed stream."""
    plan = usual(2)

    check(receive(write(plan, dialect, compression=compression)), plan)


@each_dialect
@pytest.mark.parametrize("name", sweep(["channel 0", "channel 1", MAIN], lambda name: name == MAIN))
@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.sweep)])
def test_an_older_copy_never_wins(receive, dialect, name, number):
    """A connection's part of a round comes when another one has sent pages of the next."""
    check(receive(order.late(write(SMALL, dialect), name, number)), SMALL)


def test_channels_ahead_of_the_list_of_blocks(receive):
    """Packets may come before the main connection has said what they are of."""
    talk = order.held(write(SMALL), order.At(MAIN, "list"), order.At("channel 0", "packet"))

    check(receive(talk), SMALL)


def test_main_may_come_whole_before_the_channels(receive):
    """The end of the main connection is there before any page."""
    talk = order.held(write(SMALL), order.At("channel 0", "packet"), order.At(MAIN, "description"))

    check(receive(talk), SMALL)


@pytest.mark.parametrize("dialect", [QEMU_7_2, QEMU_9_0], ids=lambda one: one.name)
def test_connections_in_another_order(receive, dialect):
    """The main connection is the last one made."""
    check(receive(order.channels_first(write(SMALL, dialect))), SMALL)


@pytest.mark.parametrize("dialect", [QEMU_7_2, QEMU_10], ids=lambda one: one.name)
def test_bytes_in_small_pieces(receive, dialect):
    """A network hands out any number of bytes at once, one among them."""
    plan = usual(2, 2, (Block(b"ram", 5), Block(b"rom", 1)))

    check(receive(order.in_pieces(write(plan, dialect), 3000)), plan)


@pytest.mark.parametrize("dialect", [QEMU_7_2, QEMU_10], ids=lambda one: one.name)
def test_nothing_but_zeros(receive, dialect):
    """A guest without a page that is not zero, and rounds without a packet."""
    plan = Plan((Block(b"ram", 300),), 2, ((Packet(0, 0, ((0, 0), (1, 0))),), (), ()))

    check(receive(write(plan, dialect)), plan)


@each_dialect
def test_zeros_over_everything(receive, dialect):
    """Zero pages clear what earlier rounds had stored, whole packets and single pages."""
    blocks = (Block(b"ram", 300), Block(b"rom", 3))
    full = usual(2, 1, blocks).rounds[0]
    zeros = tuple(
        Packet(packet.channel, packet.block, tuple((page, 0) for page, _ in packet.pages[::step]))
        for packet, step in zip(full, (1, 2, 3, 1), strict=True)
    )
    plan = Plan(blocks, 2, (full, zeros))

    check(receive(write(plan, dialect)), plan)


def test_a_page_twice_in_a_slot_of_its_own(receive):
    """QEMU 7.2 repeats pages: two channels may bring a slot's only page, with other contents."""
    pages = tuple((number, number + 1) for number in range(129))
    both = (Packet(0, 0, pages[1:]), Packet(1, 0, (pages[0], (128, 4000))))
    plan = Plan((Block(b"ram", 129),), 2, (both, (Packet(1, 0, ((128, 7),)),)))

    check(receive(write(plan, replace(QEMU_7_2, repeats=False))), plan)


def test_runs_of_zero_pages_longer_than_a_table(receive):
    """Zero pages on the main connection are taken in any number."""
    blocks = (Block(b"ram", 2200),)
    full = usual(30, 1, blocks).rounds[0]
    fills = [
        (0, 1),
        *((page, 0) for page in range(1, 1025)),
        *((page, 0) for page in range(1026, 2200)),
    ]
    zeros = tuple(Packet(0, 0, tuple(fills[at : at + 128])) for at in range(0, len(fills), 128))
    plan = Plan(blocks, 30, (full, zeros))

    check(receive(write(plan, QEMU_7_2)), plan)


def test_device_state_is_kept_as_it_came(receive):
    """Sections before RAM and after it, and the description, are those of the source."""
    early = device(1, b"early", b"before RAM")
    guest = Guest(early=early, devices=device(5, b"cpu", b"\0\x06\0\0\0\x02{}" * 9))

    received = receive(write(SMALL, guest=guest))

    with snapmig.open(received.snapshot) as found:
        kept = found.attachments
        assert kept["source/vmstate.before"] == early
        assert kept["source/vmstate.after"].endswith(
            guest.devices + b"\0\x06" + len(guest.description).to_bytes(4) + guest.description
        )


@pytest.mark.parametrize("return_path", [True, False])
def test_pages_of_one_connection(receive, return_path):
    """Without multifd all pages come over the main connection."""
    plan = usual(1)

    check(receive(write_plain(plan, return_path=return_path)), plan)


def test_a_background_snapshot(receive):
    """Each page comes once, in any order, and RAM has no end section."""
    plan = background((Block(b"ram", 700), Block(b"rom", 5)))

    check(receive(write_plain(plan, end_section=False)), plan)
