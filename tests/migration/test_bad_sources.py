"""Facts about broken and hostile sources: one sentence, no file, no process, and an end."""

import pytest

from snapmig.errors import SnapmigError
from tests.support.multifd.dialects import QEMU_10
from tests.support.multifd.faults import COMPRESSED, FAULTS, STALLS
from tests.support.multifd.plan import Block, usual
from tests.support.multifd.talk import write

PLAN = usual(2, 2, (Block(b"ram", 130), Block(b"rom", 3)))

WORDS = {
    "main begins with garbage": "starts with 47455420",
    "a channel begins with garbage": "starts with deadbeef",
    "a channel is of another version": "version 2, expected 1",
    "a channel has another guest's uuid": "UUID",
    "a channel number comes twice": "channel 0 was opened twice",
    "a channel number is too high": "channel 2 was opened, more than expected: 0 to 1",
    "one channel too many": "more than 3 connections",
    "packet with another magic": "0x11223345",
    "more pages than the list has": "in a list of 1,",
    "a list longer than the packet": "expected at most 128",
    "payload is a byte short": "has 376831 bytes, expected 376832",
    "offset outside of the block": "packet has a page at 0x82000 of RAM block 'ram'",
    "offset not of a page": "packet has a page at 0x800 of RAM block 'ram'",
    "the same offset twice": "a page of RAM block 'ram' twice",
    "unknown block": "'nobody', which is not in the list",
    "block name without an end": "name without an end",
    "unknown flag": "flags 0x80",
    "qpl all of a sudden": "compressed by qpl",
    "device state with SYNC": "x-migration-multifd-transfer=off",
    "an endless list of blocks": "RAM block '00004096'",
    "an absurd amount of RAM": "RAM size is 0x1000000000000004",
    "a block listed twice": "two RAM blocks have the name 'ram'",
    "another section's footer": "footer of section 99, not 2",
    "no footer": "footer",
    "a page on main": "main connection has pages",
    "command 7": "PACKAGED",
    "command 65535": "command 65535",
    "a command without an end": "PING has 65535 bytes, expected 4",
    "a ping without a number": "PING has 0 bytes, expected 4",
    "an unknown section": "section type is 0x9",
    "endless devices": "more than 268435456 bytes",
}
"""Parts of the sentences."""


def is_sentence(text):
    """Return True for one line that says something."""
    return (
        len(text) > 15 and "\n" not in text and not text.endswith(".") and "Traceback" not in text
    )


def check(received, name):
    """Check a receive that failed: its error, and that nothing is left."""
    assert isinstance(received.error, SnapmigError), repr(received.error)
    assert is_sentence(str(received.error))
    assert WORDS.get(name, "") in str(received.error)
    assert received.error.exit_code in (1, 4)
    assert received.files == []
    assert received.processes == []
    assert received.report.shut != 0


def ways(names):
    """Return names as parameters; deaths of all connections at once are for the long run."""
    return [
        pytest.param(name, marks=pytest.mark.sweep if " dies " in name else ()) for name in names
    ]


@pytest.mark.parametrize("name", ways(FAULTS))
def test_a_fault_is_an_error(receive, name):
    """A source that breaks off, errs or attacks."""
    check(receive(FAULTS[name](write(PLAN, QEMU_10, return_path=False))), name)


@pytest.mark.sweep
@pytest.mark.parametrize("name", FAULTS)
def test_a_source_that_waits_hears_of_its_fault(receive, name):
    """The same faults of a source that waits for the last word, and gives up at some time."""
    check(receive(FAULTS[name](write(PLAN, QEMU_10)), patience=4), name)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("name", STALLS)
def test_every_wait_has_an_end(receive, name):
    """A source that stalls, with all its connections open."""
    received = receive(STALLS[name](write(PLAN, QEMU_10)))

    check(received, name)
    assert received.report.unfinished == []


@pytest.mark.parametrize(
    ("compression", "name"), [(one, name) for one, faults in COMPRESSED.items() for name in faults]
)
def test_compressed_pages_that_are_not(receive, compression, name):
    """Payloads that do not inflate to the pages of their packet."""
    talk = write(PLAN, QEMU_10, compression=compression, return_path=False)

    check(receive(COMPRESSED[compression][name](talk)), name)
