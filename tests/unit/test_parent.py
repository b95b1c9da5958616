"""Facts about what of a packet is stored beside its parent."""

from pathlib import Path

import numpy as np
import pytest

import snapmig
from snapmig.container.format import PageKind
from snapmig.encodings.compressions import PacketSettings
from snapmig.encodings.encoder import PacketEncoder
from snapmig.encodings.packet import against_parent, summarise
from snapmig.handlers.parent import ParentPackets
from snapmig.handlers.pipeline import Candidate
from tests.support import ram

ZERO, DATA, SAME, DELTA = PageKind


def _changed(pages, count):
    # The first bytes of each page are others.
    made = pages.copy()
    made[:, :count] ^= 1
    return made


def _kinds(pages, parent, **options):
    plain, mixed, _ = against_parent(summarise(pages), parent, **options)
    return plain.kinds.tolist(), None if mixed is None else mixed.kinds.tolist()


def test_pages_that_did_not_change_are_the_parents():
    """Only changed pages are stored, and zero pages are zero."""
    parent = np.concatenate([ram.text(3), ram.zeros(1), ram.text(1, 5)])
    pages = np.concatenate([ram.text(2), ram.zeros(1), ram.noise(1), ram.text(1, 5)])

    assert _kinds(pages, parent) == ([SAME, SAME, ZERO, DATA, SAME], None)


@pytest.mark.parametrize(("count", "kind"), [(1, DELTA), (2000, DELTA), (2049, None)])
def test_a_difference_is_tried_where_it_has_half_the_bytes(count, kind):
    """Of bytes that are not zero, a difference must have fewer than half of the page's."""
    parent = ram.text(1)

    assert _kinds(_changed(parent, count), parent) == ([DATA], kind and [kind])


def test_no_difference_is_tried_where_none_is_wanted():
    """Without deltas changed pages are data."""
    assert _kinds(_changed(ram.text(2), 1), ram.text(2), deltas=False) == ([DATA, DATA], None)


def test_differences_are_those_of_the_bytes():
    """A page with a difference is stored as its xor with the parent's."""
    parent = np.concatenate([ram.text(1), ram.noise(1)])
    pages = np.concatenate([_changed(ram.text(1), 5), ram.text(1, 9)])
    plain, mixed, _ = against_parent(summarise(pages), parent)

    assert mixed is not None
    assert mixed.kinds.tolist() == [DELTA, DATA]
    assert (plain.data == pages).all()
    assert (mixed.data == np.concatenate([pages[:1] ^ parent[:1], pages[1:]])).all()


def test_the_digest_is_that_of_all_pages():
    """Whatever is stored of it, a packet's digest is that of its contents."""
    summary = summarise(_changed(ram.text(4), 7))
    plain, mixed, _ = against_parent(summary, ram.text(4))

    assert summary.digest == plain.digest == mixed.digest


@pytest.mark.parametrize(
    ("pages", "count", "sure"), [(2, 500, True), (2, 600, False), (1, 9, False)]
)
def test_differences_of_few_bytes_are_not_compared(pages, count, sure):
    """Fewer than an eighth of the bytes, in several pages, and the other form is not encoded."""
    parent = np.full((pages, 4096), 7, np.uint8)

    assert against_parent(summarise(_changed(parent, count)), parent).sure is sure


def test_only_pages_in_use_may_be_given():
    """Of a parent with the same zero pages, the others alone lead to the same result."""
    parent = np.concatenate([ram.text(2), ram.zeros(1), ram.text(2, 5)])
    pages = _changed(parent, 3)
    pages[2] = 0
    some, all_of_them = (
        against_parent(summarise(pages), each).mixed for each in (parent[[0, 1, 3, 4]], parent)
    )

    assert (some.data == all_of_them.data).all()
    assert (some.kinds == all_of_them.kinds).all()


def _chosen(pages, parent, *, reverse):
    # What is stored of a packet of which both forms are encoded, in one order or the other.
    packets = ParentPackets.__new__(ParentPackets)
    packets._rivals = {3: None}
    keys = (Candidate(3), Candidate(3, deltas=True))
    rivals = zip(keys, against_parent(summarise(pages), parent)[:2], strict=True)
    order = sorted(rivals, key=lambda rival: rival[0], reverse=reverse)
    encoder = PacketEncoder(PacketSettings())
    found = [
        each for key, rival in order for each in packets.choose(key, encoder.encode(rival))
    ]  # fmt: skip
    ((at, packet),) = found
    return at, packet.kinds.tolist()


@pytest.mark.parametrize("reverse", [False, True])
def test_the_smaller_form_is_chosen(reverse):
    """Whichever comes first, differences are stored where they are smaller."""
    parent = ram.noise(2)

    assert _chosen(_changed(parent, 3), parent, reverse=reverse) == (3, [DELTA, DELTA])


@pytest.mark.parametrize("reverse", [False, True])
def test_of_equal_forms_that_without_differences_is_chosen(reverse):
    """A page alone takes 4 KiB in either form, and is stored as it is."""
    parent = ram.text(1)

    assert _chosen(_changed(parent, 3), parent, reverse=reverse) == (3, [DATA])


def test_pages_are_stored_whole_where_that_is_smaller(tmp_path: Path) -> None:
    """A save encodes both forms of a packet, and keeps the smaller one."""
    rng = np.random.default_rng(1)
    new = np.full(64 << 10, 7, np.uint8)
    old = np.where(rng.random(new.size) < 0.4, rng.integers(1, 255, new.size, np.uint8), new)
    (tmp_path / "old").write_bytes(old.tobytes())
    (tmp_path / "new").write_bytes(new.tobytes())
    options = {"packet_size": "64K", "jobs": 1}
    snapmig.save(tmp_path / "old", tmp_path / "parent", **options)
    saved = snapmig.save(
        tmp_path / "new", tmp_path / "child", parent=tmp_path / "parent", deltas=True, **options
    )

    assert (saved.delta_pages, saved.stored_size < 4096) == (0, True)
