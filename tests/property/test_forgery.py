"""Facts about all changes by those who have no key: they are noticed, or they change nothing."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import snapmig
from examples import read_snapshot
from tests.property.contents import directory, flipped
from tests.property.examples import examples
from tests.support import ram
from tests.support.builders import (
    DEFLATE,
    FIXED,
    PACKED,
    PACKET,
    PAGE,
    RAW,
    Attachment,
    Block,
    Snapshot,
    noise,
    text,
)
from tests.support.forger import Forger
from tests.support.golden_keys import KEY_FILE
from tests.support.sealing import ENCRYPTED, SIGNED, KeySlot, Sealing
from tests.support.sealing import KEY_FILE as BY_KEY_FILE

KINDS = [SIGNED, ENCRYPTED]
REFUSED = (1, 3, 4)


def _built(kind, layout, state, encodings, **how):
    # A snapshot of three packets, with all that one can have; those of two states are of one size.
    content = noise(3 * PAGE, state).ljust(PACKET, b"\0") + bytes(PACKET) + text(2 * PAGE, state)
    slots = {0: KeySlot(BY_KEY_FILE, KEY_FILE.read_bytes())}
    return Snapshot(
        [Block("ram", content, [(0, PACKET, 0), (PACKET, PACKET, 1 << 32)])],
        layout=layout,
        encodings=encodings,
        attachments=[Attachment("a", noise(100, state)), Attachment("b", bytes(900), DEFLATE)],
        page_digests=True,
        sealing=Sealing(kind, slots, seed=state, **how),
        superblock={"snapshot_id": bytes([state]) * 16},
    ).build()


@pytest.fixture(scope="module", params=KINDS, ids=["signed", "encrypted"])
def kind(request):
    """Give a way to seal."""
    return request.param


@pytest.fixture(scope="module", params=[PACKED, FIXED], ids=["packed", "fixed"])
def sealed(request, kind):
    """Give a sealed snapshot."""
    return _built(kind, request.param, 1, {})


@pytest.fixture(scope="module", params=["same file key", "other file key"])
def states(request, kind):
    """Give two states of a snapshot, all parts of which are as long and at the same places."""
    how = {} if request.param == "same file key" else {"file_key": b"x" * 32}
    raw = {0: RAW, 2: RAW}
    return _built(kind, PACKED, 1, raw), _built(kind, PACKED, 2, raw, **how)


def _by_example(path):
    # All that the example reader gives of a snapshot, or the exit code of its refusal.
    try:
        with contextlib.ExitStack() as files:
            secrets = read_snapshot.Secrets([], [str(KEY_FILE)], [])
            parents = read_snapshot.Parents(path, [], files)
            file = files.enter_context(path.open("rb"))
            snapshot = read_snapshot.Snapshot(file, parents, secrets)
            snapshot.verifies = True
            pages = [list(snapshot.data_pages(block)) for block in snapshot.blocks]
            state = [b"".join(snapshot.attachment_contents(a)) for a in snapshot.attachments]
            facts = snapshot.superblock._replace(checksum=0, block_table_checksum=0)
            return facts, snapshot.blocks, snapshot.pieces_of_ram, pages, state
    except (read_snapshot.RefusedError, LookupError) as error:
        return getattr(error, "exit_code", 1)


def _by_snapmig(path):
    # All that snapmig gives of a snapshot, or the exit code of its refusal.
    keys = snapmig.Keys(key_file=[str(KEY_FILE)])
    try:
        if snapmig.verify(path, keys=keys, jobs=1).problems:
            return 3
        with snapmig.open(path, keys=keys) as found:
            return found.read(0, len(found)), found.blocks, dict(found.attachments)
    except snapmig.SnapmigError as error:
        return error.exit_code


READERS = pytest.mark.parametrize("read", [_by_example, _by_snapmig])


@READERS
@examples(100)
@given(where=st.floats(0, 1, exclude_max=True), repaired=st.booleans())
def test_a_flipped_bit_is_refused_or_harmless(read, sealed, where, repaired):
    """Any bit may be flipped, and all checksums made right: it is noticed, or nothing changes."""
    raw = flipped(sealed, int(where * len(sealed) * 8))
    _check(read, Forger(sealed).repaired(raw) if repaired else raw, [sealed])


@READERS
@examples(150)
@given(draw=st.data(), bit=st.integers(0, 7), repaired=st.booleans())
def test_a_flipped_bit_of_any_part_is_refused_or_harmless(read, sealed, draw, bit, repaired):
    """The same is true of bits of the smallest parts, which the whole file's bits seldom hit."""
    forger = Forger(sealed)
    part = draw.draw(st.sampled_from(forger.parts))
    at = part.offset + draw.draw(st.integers(0, max(part.size - 1, 0)))
    raw = flipped(sealed, at * 8 + bit)
    _check(read, forger.repaired(raw) if repaired else raw, [sealed])


@READERS
@examples(150)
@given(draw=st.data(), repaired=st.booleans())
def test_parts_of_another_state_are_refused(read, states, draw, repaired):
    """Whatever parts of another state are put into a snapshot: it is all of one, or refused."""
    one, other = states
    forger = Forger(one)
    raw = bytearray(one)
    for part in draw.draw(st.lists(st.sampled_from(forger.parts), min_size=1)):
        raw[part.offset : part.offset + part.size] = other[part.offset :][: part.size]
    _check(read, forger.repaired(raw) if repaired else bytes(raw), states)


def _check(read, raw, whole):
    with directory() as place:
        path = ram.write(place / "s", raw)
        found = read(path)
        if found in REFUSED:
            return
        assert found in [read(ram.write(place / "s", each)) for each in whole]


@READERS
def test_both_states_are_whole(read, states, tmp_path):
    """Nothing is refused before it is changed, and repairs change nothing of it."""
    for state in states:
        path = ram.write(tmp_path / "s", state)
        assert read(path) not in REFUSED
        assert Forger(state).repaired(state) == state


def test_parts_are_as_long_in_both_states(states):
    """All parts of two states have the same places, so that one can take the other's."""
    assert Forger(states[0]).parts == Forger(states[1]).parts
