"""Facts about guests sent by workers that several of them share."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

import snapmig
from tests.migration.sources import RAM, filled, save
from tests.support.multifd.destination import Destination
from tests.support.multifd.dialects import QEMU_7_2, QEMU_10
from tests.support.multifd.plan import BLOCKS, usual
from tests.support.multifd.waiting import WaitingQemu

PLAN = usual(1, 2)
GUESTS = 3


@pytest.mark.parametrize("dialect", [QEMU_7_2, QEMU_10], ids=lambda one: one.name)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_guests_at_once(tmp_path, size, dialect):
    """Each guest is whole, with more workers than channels, and with fewer."""
    path = save(PLAN, tmp_path / "guest.snap", dialect)
    ends = [Destination() for _ in range(GUESTS)]
    with snapmig.WorkerGroup(size, GUESTS) as workers, ExitStack() as stack:
        qemus = [
            WaitingQemu(tmp_path / f"qmp{number}", end, [RAM], dialect.machine)
            for number, end in enumerate(ends)
        ]
        for one in [*ends, *qemus]:
            stack.enter_context(one)
        threads = [
            threading.Thread(
                target=snapmig.restore,
                args=(path, f"qmp:{qemu.path}"),
                kwargs={"jobs": 2, "workers": workers},
                daemon=True,
            )
            for qemu in qemus
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join(50)

        assert [qemu.ran for qemu in qemus] == [True] * GUESTS
        assert [end.ram(filled(BLOCKS)) == PLAN.expected() for end in ends] == [True] * GUESTS
