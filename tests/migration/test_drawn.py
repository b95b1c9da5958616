"""Facts about all migrations: well-formed ones are received, damaged ones end."""

import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapmig.errors import SnapmigError
from tests.support.multifd.strategies import damaged, talks

CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
FEW, MANY, MOST = (
    settings(max_examples=count, suppress_health_check=CHECKS) for count in (8, 60, 60)
)


@pytest.fixture(autouse=True)
def _large_talks() -> None:
    warnings.filterwarnings("ignore", "Generating overly large repr")


def check_received(receive, talk):
    """Receive a good talk, and check its RAM."""
    received = receive(talk)

    assert received.error is None
    assert received.ram == talk.plan.all_ram


def check_ended(receive, talk):
    """Receive a damaged talk: it may be a good one still, or it is refused."""
    received = receive(talk, patience=2)

    if received.error is None:
        assert len(received.ram) > 0
    else:
        assert isinstance(received.error, SnapmigError), repr(received.error)
        assert "\n" not in str(received.error)
        assert received.files == []
        assert received.report.shut != 0
    assert received.processes == []


@FEW
@given(talk=talks())
def test_a_drawn_guest_is_received(receive, talk):
    """Whatever the plan, the release and the compression, the RAM is the source's."""
    check_received(receive, talk)


@FEW
@given(data=st.data())
def test_a_damaged_talk_ends(receive, data):
    """It is received, or refused in one sentence, and nothing is left of it."""
    check_ended(receive, data.draw(talks().flatmap(damaged)))


@pytest.mark.sweep
@pytest.mark.timeout(1200)
@MANY
@given(talk=talks())
def test_many_drawn_guests_are_received(receive, talk):
    """The same for more of them."""
    check_received(receive, talk)


@pytest.mark.sweep
@pytest.mark.timeout(1200)
@MOST
@given(data=st.data())
def test_many_damaged_talks_end(receive, data):
    """The same for more of them."""
    check_ended(receive, data.draw(talks().flatmap(damaged)))
