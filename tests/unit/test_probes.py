"""Tries of packets by codecs that are not in use."""

from __future__ import annotations

import numpy as np
import pytest

from snapmig.encodings import measured
from snapmig.encodings.compressions import PacketSettings, usable_codecs
from snapmig.encodings.measured import Probes, Sums

PACKET = np.tile(np.arange(256, dtype=np.uint8), 2048).reshape(-1, 4096)
STEP_NS = 100_000_000


@pytest.fixture
def tries(monkeypatch):
    """Return a function to count the tries of a hundred seconds, by the codec in use."""

    def count(at: int) -> float:
        now = 0
        monkeypatch.setattr(measured, "perf_counter_ns", lambda: now)
        codecs = tuple(usable_codecs())
        sums = Sums(len(codecs))
        probes = Probes(PacketSettings("auto", choices=codecs), sums)
        for _ in range(1000):
            now += STEP_NS
            probes.look(PACKET, at)
        return sums.data[1] / PACKET.nbytes

    return count


def test_tries_become_rare_while_pages_are_stored_as_they_are(tries):
    """With the fastest codec in use there are ever fewer tries, but not none."""
    assert 2 <= tries(0) < tries(1) / 4
