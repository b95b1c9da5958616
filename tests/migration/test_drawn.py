"""Facts about all migrations: well-formed ones are received, damaged ones end."""

import os
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapmig.errors import SnapmigError
from tests.support.multifd.strategies import damaged, talks

LONG = os.environ.get("SNAPMIG_LONG_TESTS") == "1"
FEW, MANY = (60, 400) if LONG else (12, 12)

shared = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@pytest.fixture(autouse=True)
def _large_talks() -> None:
    warnings.filterwarnings("ignore", "Generating overly large repr")


@settings(max_examples=FEW, suppress_health_check=shared)
@given(talk=talks())
def test_a_drawn_guest_is_received(receive, talk):
    """Whatever the plan, the release and the compression, the RAM is the source's."""
    received = receive(talk)

    assert received.error is None
    assert received.ram == talk.plan.all_ram


@settings(max_examples=MANY, suppress_health_check=shared)
@given(data=st.data())
def test_a_damaged_talk_ends(receive, data):
    """It is received, or refused in one sentence, and nothing is left of it."""
    talk = data.draw(talks().flatmap(damaged))

    received = receive(talk, patience=2)

    if received.error is None:
        assert len(received.ram) > 0
    else:
        assert isinstance(received.error, SnapmigError), repr(received.error)
        assert received.files == []
        assert received.report.shut != 0
    assert received.processes == []
