"""Facts about the memory of a receive: all of it is given back at the end, at once."""

import gc

import pytest

from tests.support.multifd.faults import FAULTS
from tests.support.multifd.plain import write_plain
from tests.support.multifd.plan import usual
from tests.support.multifd.talk import write

TALKS = {
    "over channels": write(usual(2)),
    "over one connection": write_plain(usual(1)),
    "with a bad packet": FAULTS["unknown block"](write(usual(2), return_path=False)),
    "cut off": FAULTS["main closes 20 bytes into list"](write(usual(2), return_path=False)),
}


@pytest.fixture
def leftovers():
    """Give a function that returns our objects that only Python's collector would find."""

    def find():
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        found = [repr(type(one)) for one in gc.garbage if is_ours(one)]
        gc.garbage.clear()
        return found

    gc.collect()
    gc.disable()
    yield find
    gc.enable()


def is_ours(found):
    """Return True for an instance of one of the package's classes."""
    return type(found).__module__.startswith("snapmig.")


@pytest.mark.parametrize("name", TALKS)
def test_nothing_waits_for_the_collector(receive, leftovers, name):
    """Buffers, tables and mappings of hundreds of MiB go with the receive that had them."""
    receive(TALKS[name])

    assert leftovers() == []
