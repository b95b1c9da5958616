"""Facts about codecs that follow the destination, by saves in made-up time."""

import pytest

from snapmig.encodings.compressions import COMPRESSIONS, usable_codecs
from snapmig.handlers.codec_choice import CodecChoice
from snapmig.handlers.counters import MOST_CODECS
from tests.support.destinations import MadeUpSave

MIB = 1e9 / (1 << 20)
"""Bytes a nanosecond are so many MiB/s."""
FASTER = (1, 2, 1.5, 1.3, 1.2, 1.0, 1.0)
"""Of another machine than the usual one: by how much each codec takes longer."""


def codecs(factors):
    """Return what there is to choose from, with other costs."""
    found = usable_codecs()
    return [codec._replace(ns=codec.ns * each) for codec, each in zip(found, factors, strict=True)]


@pytest.mark.parametrize("mib", [50, 100, 400, 800])
@pytest.mark.parametrize("factors", [(1,) * 7, FASTER])
def test_no_fixed_codec_is_much_faster(mib, factors):
    """At each bandwidth a choice takes at most a tenth longer than the best of the fixed codecs."""
    true = codecs(factors)
    best = min(MadeUpSave(true, mib / MIB).run(lambda at=at: at).ns for at in range(len(true)))

    assert MadeUpSave(true, mib / MIB).follow(usable_codecs()).ns <= 1.1 * best


@pytest.mark.parametrize("mib", [50, 100, 150, 200, 300, 400, 800, 1500])
def test_memory_that_changes_is_followed(mib):
    """Long stretches of memory that shrink well or hardly at all cost less than a tenth."""
    true = usable_codecs()
    best = min(MadeUpSave(true, mib / MIB).run(lambda at=at: at).ns for at in range(len(true)))

    assert MadeUpSave(true, mib / MIB).follow(true).ns <= 1.07 * best


def test_memory_takes_pages_as_they_are():
    """A destination in memory gets pages without encoding, from the first packet on."""
    used = MadeUpSave(usable_codecs(), 1000.0).follow(usable_codecs(), in_memory=True).used

    assert used[0] > 0.9 * sum(used)


@pytest.mark.parametrize("mib", [50, 100, 200, 400, 800])
def test_a_late_destination_is_not_a_slow_one(mib):
    """Waits for a disk that is idle at times are not taken for its bandwidth, again and again."""
    true = usable_codecs()
    late = 20_000_000
    best = min(
        MadeUpSave(true, mib / MIB, late_ns=late).run(lambda at=at: at).ns
        for at in range(len(true))
    )

    assert MadeUpSave(true, mib / MIB, late_ns=late).follow(true).ns <= 1.1 * best


def test_a_slow_destination_gets_the_better_codecs():
    """The slower a destination, the less is stored."""
    true = usable_codecs()
    sizes = [MadeUpSave(true, mib / MIB).follow(true).stored for mib in (20, 100, 300, 3000)]

    assert sizes == sorted(sizes)
    assert sizes[-1] > 2 * sizes[0]


def test_costs_are_measured_and_not_assumed():
    """Where a codec is in truth much slower than usual, another one takes its place."""
    slow = codecs((1, 1, 1, 1, 20, 1, 1))
    used, usual = (
        MadeUpSave(true, 100 / MIB).follow(usable_codecs()).used for true in (slow, usable_codecs())
    )

    assert used[4] < usual[4] / 3


def test_a_limit_on_writes_is_a_bandwidth():
    """A rate that workers must keep to is known from the start, without a wait."""
    used = MadeUpSave(usable_codecs(), 100.0).follow(usable_codecs(), rate=50 << 20).used

    assert sum(used[4:]) > 0.9 * sum(used)


def test_one_codec_is_no_choice():
    """A codec that the user named needs no counters."""
    choice = CodecChoice([usable_codecs()[2]], 0, 2, None, lambda: 1 / 0)

    assert {choice() for _ in range(100)} == {0}


def test_there_are_counters_for_all():
    """No choice has more codecs than a worker has counters for."""
    choices = [usable_codecs(), *(each.steps for each in COMPRESSIONS.values())]

    assert max(map(len, choices)) <= MOST_CODECS
