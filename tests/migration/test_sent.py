"""Facts about sent guests: what arrives is the snapshot, whatever its packets and the channels."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from snapmig.errors import CorruptSnapshotError
from tests.migration.sources import filled, restore, save, send
from tests.support.multifd import wire as multifd
from tests.support.multifd.destination import GOOD, Destination
from tests.support.multifd.dialects import DIALECTS, QEMU_7_2, QEMU_10
from tests.support.multifd.plan import BLOCKS, Plan, grouped, usual, whole
from tests.support.multifd.strategies import plans
from tests.support.multifd.talk import DESCRIPTION, DEVICES
from tests.support.multifd.waiting import UUID
from tests.support.sweep import sweep

PLAN = usual(1, 2)
WIRES = ("none", "zstd", "zlib")
PACKET_SIZES = ("64K", "128K", "512K", "1M", "4M")
COMPRESSIONS = ("zlib", "zstd", "lz4", "none")
WAYS = [(one, n, wire) for one in DIALECTS for n in (1, 2, 5) for wire in WIRES]
ESSENTIAL = [(QEMU_7_2, 2, "zlib"), (QEMU_10, 1, "none"), (QEMU_10, 2, "zstd")]
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
FEW, MANY = (settings(max_examples=count, suppress_health_check=CHECKS) for count in (6, 25))


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """Give a snapshot of a guest with three RAM blocks."""
    return save(PLAN, tmp_path_factory.mktemp("from") / "guest.snap")


@pytest.fixture(scope="module")
def sent(snapshot):
    """Give all that came of it on two channels."""
    with Destination() as destination:
        send(snapshot, destination)
        yield destination


def _named(value):
    return getattr(value, "name", str(value))


def check(destination, plan):
    """Check that the RAM of a plan has arrived."""
    assert destination.ram(filled(plan.blocks)) == plan.expected()


def payloads(raw):
    """Yield the pages of each packet of a channel as they came."""
    at = multifd.INIT.size
    while at < len(raw):
        size = multifd.HEADER.unpack_from(raw, at)[5]
        at += multifd.RAM_SIZE
        if size:
            yield raw[at : at + size]
        at += size


@pytest.mark.parametrize(
    ("dialect", "channels", "wire"), sweep(WAYS, lambda way: way in ESSENTIAL), ids=_named
)
def test_the_ram_is_the_snapshots(tmp_path, dialect, channels, wire):
    """All pages arrive, and zero pages where the memory is not new."""
    path = save(PLAN, tmp_path / "guest.snap", dialect)

    with Destination() as destination:
        send(path, destination, channels=channels, wire=wire)

        check(destination, PLAN)


def test_no_zero_page_is_sent_to_new_memory(sent):
    """They are there already."""
    main, _ = sent.read

    others = {block.name.decode() for block in BLOCKS[1:]}

    assert {block for places in main.zeros for block, _ in places} == others


def test_no_page_is_sent_twice(sent):
    """Each of them has one place in the whole migration."""
    _, channels = sent.read
    places = [place for one in channels for epoch in one.epochs for place in epoch.pages]

    assert len(set(places)) == len(places)


@pytest.mark.parametrize("dialect", [QEMU_7_2, QEMU_10], ids=lambda one: one.name)
def test_each_mark_has_its_barrier(tmp_path, dialect):
    """On every channel."""
    path = save(PLAN, tmp_path / "guest.snap", dialect)
    with Destination() as destination:
        send(path, destination, channels=3)
        main, channels = destination.read

        assert [one.syncs for one in channels] == [main.marks] * 3


def test_devices_come_as_they_were_saved(sent):
    """With the end mark's description."""
    main, _ = sent.read

    assert (main.after.endswith(DEVICES), main.description) == (True, DESCRIPTION)


def test_channels_say_which_they_are(sent):
    """By their numbers, and the waiting guest's UUID."""
    _, channels = sent.read
    uuid = bytes.fromhex(UUID.replace("-", ""))

    assert [(one.number, one.uuid) for one in channels] == [(0, uuid), (1, uuid)]


def test_frames_go_as_they_are_stored(tmp_path):
    """The bytes of the file, where a packet is no larger than QEMU's."""
    words = tuple(grouped(0, ((page, 3 * page + 1) for page in range(BLOCKS[0].pages))))
    plan = Plan(BLOCKS[:1], 1, (words,))
    path = save(plan, tmp_path / "guest.snap", compression="zstd", packet_size="512K")
    stored = path.read_bytes()
    with Destination() as destination:
        send(path, destination, wire="zstd")
        frames = [frame for raw in destination.channels for frame in payloads(raw)]

    assert len(frames) > 2
    assert all(frame in stored for frame in frames)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("deltas", [True, False], ids=["deltas", "pages"])
def test_pages_of_a_parent_come_along(tmp_path, deltas, wire):
    """A child's packets have some pages of their own, some of the parent, and deltas."""
    parent = save(replace(PLAN, rounds=PLAN.rounds[:1]), tmp_path / "parent.snap")
    child = save(PLAN, tmp_path / "child.snap", parent=parent, deltas=deltas)

    with Destination() as destination:
        send(child, destination, wire=wire)

        check(destination, PLAN)


@pytest.mark.parametrize("wire", WIRES)
def test_a_restore_through_the_monitor(cli, snapshot, tmp_path, wire):
    """The command line does the same, and starts the guest."""
    restored = restore(cli, snapshot, tmp_path, GOOD, "--wire", wire)

    restored.outcome.ok("multifd")
    assert restored.ran
    assert restored.ram == PLAN.expected()


def test_damage_ends_a_migration(snapshot, tmp_path):
    """A packet with a wrong byte is not sent, and the destination is left without an end."""
    damaged = tmp_path / "damaged.snap"
    data = bytearray(snapshot.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)

    with Destination() as destination, pytest.raises(CorruptSnapshotError, match="packet"):
        send(damaged, destination)

    assert not destination.answered


@st.composite
def chains(draw):
    """Draw a guest's plan, a later one of the same guest, and how each is saved."""
    plan = draw(plans())
    sizes = st.sampled_from(PACKET_SIZES)
    kinds = st.sampled_from(COMPRESSIONS)
    first = whole(plan.blocks, 1, draw(st.integers(1, 99)))
    assume(any(fill for one in first for _, fill in one.pages))
    parent = Plan(plan.blocks, 1, (first,))
    child = replace(plan, rounds=(first, *plan.on(1).rounds))
    options = {"compression": draw(kinds), "packet_size": draw(sizes)}
    return parent, child, options, draw(kinds), draw(st.booleans())


def check_chain(folder, chain, channels, wire, dialect):
    """Save both, send the child, and check its RAM."""
    parent, child, options, compression, deltas = chain
    base = save(parent, folder / "parent.snap", dialect, force=True, **options)
    more = {"parent": base, "compression": compression, "deltas": deltas}
    path = save(child, folder / "child.snap", dialect, force=True, **more)
    with Destination() as destination:
        send(path, destination, channels=channels, wire=wire)

        check(destination, child)


DRAWN = given(
    chain=chains(),
    channels=st.integers(1, 3),
    wire=st.sampled_from(WIRES),
    dialect=st.sampled_from([QEMU_7_2, QEMU_10]),
)


@pytest.fixture(autouse=True)
def _large_plans():
    warnings.filterwarnings("ignore", "Generating overly large repr")


@FEW
@DRAWN
def test_a_drawn_chain_is_sent(tmp_path, chain, channels, wire, dialect):
    """Whatever the packets are, the RAM is the child's."""
    check_chain(tmp_path, chain, channels, wire, dialect)


@pytest.mark.sweep
@pytest.mark.timeout(1200)
@MANY
@DRAWN
def test_many_drawn_chains_are_sent(tmp_path, chain, channels, wire, dialect):
    """The same for more of them."""
    check_chain(tmp_path, chain, channels, wire, dialect)
