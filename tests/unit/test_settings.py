"""Facts about the arguments that verbs share."""

import os
from functools import partial

import pytest

from snapmig.container.format import Layout
from snapmig.encodings.compressions import COMPRESSIONS
from snapmig.errors import UsageError
from snapmig.migration.compression import WireCompression
from snapmig.operations.options import parse as settings

ZLIB, ZSTD, NONE = (COMPRESSIONS[name] for name in ("zlib", "zstd", "none"))


def test_default_jobs_are_the_processors_that_may_be_used():
    """A process that may run on one processor gets one job."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    jobs = settings.parse_jobs(None)
    os.sched_setaffinity(0, before)

    assert jobs == 1


@pytest.mark.parametrize(
    ("parse", "word", "expected"),
    [
        (settings.parse_jobs, 1, 1),
        (settings.parse_jobs, 1024, 1024),
        (partial(settings.parse_level, compression=ZLIB), 0, 0),
        (partial(settings.parse_level, compression=ZLIB), "9", 9),
        (partial(settings.parse_level, compression=ZLIB), None, 1),
        (partial(settings.parse_level, compression=ZLIB), "auto", None),
        (partial(settings.parse_level, compression=ZSTD), -7, -7),
        (partial(settings.parse_window, compression=ZLIB), "4k", 12),
        (partial(settings.parse_window, compression=ZLIB), "32k", 15),
        (partial(settings.parse_window, compression=ZSTD), None, 15),
        (settings.parse_depth, None, None),
        (settings.parse_depth, 64, 64),
        (settings.parse_layout, "fixed", Layout.FIXED),
        (settings.parse_layout, "packed", Layout.PACKED),
        (settings.parse_wire, None, WireCompression.NONE),
        (settings.parse_wire, "auto", WireCompression.NONE),
        (settings.parse_wire, "none", WireCompression.NONE),
        (settings.parse_wire, "zstd", WireCompression.ZSTD),
        (settings.parse_wire, "zlib", WireCompression.ZLIB),
        (settings.parse_packet_size, "64K", 65536),
        (settings.parse_packet_size, "4M", 4 << 20),
        (settings.parse_packet_size, 524288, 524288),
    ],
)
def test_words_that_make_sense(parse, word, expected):
    """An allowed value is what it says, zero included."""
    assert expected == parse(word)


@pytest.mark.parametrize(
    ("parse", "word", "expected"),
    [
        (settings.parse_jobs, 0, "jobs is 0, expected 1 to 1024"),
        (settings.parse_jobs, -1, "jobs is -1"),
        (settings.parse_jobs, 1025, "jobs is 1025"),
        (partial(settings.parse_level, compression=ZLIB), -1, "zlib is -1, expected 0 to 9 or"),
        (partial(settings.parse_level, compression=ZLIB), 10, "level of zlib is 10"),
        (partial(settings.parse_level, compression=ZSTD), 20, "zstd is 20, expected -7 to 19"),
        (partial(settings.parse_level, compression=ZLIB), "best", "level of zlib is best"),
        (partial(settings.parse_level, compression=NONE), 1, "level of none is 1, expected 0"),
        (partial(settings.parse_window, compression=ZLIB), "8k", "'8k', expected 4k or 32k"),
        (partial(settings.parse_window, compression=ZLIB), "", "window is ''"),
        (partial(settings.parse_window, compression=ZSTD), "4k", "for zlib, not for zstd"),
        (
            settings.parse_compression,
            "gzip",
            "'gzip', expected zlib or zstd or lz4 or none or auto",
        ),
        (settings.parse_depth, 0, "depth is 0, expected 1 to 64"),
        (settings.parse_depth, 65, "depth is 65"),
        (settings.parse_layout, "flat", "layout is 'flat', expected fixed or packed"),
        (settings.parse_layout, "", "layout is ''"),
        (settings.parse_wire, "qpl", "'qpl', expected auto or none or zstd or zlib"),
        (settings.parse_wire, "", "wire is ''"),
        (settings.parse_packet_size, "0K", "packet size is 0 B"),
        (settings.parse_packet_size, 0, "packet size is 0 B"),
        (settings.parse_packet_size, "32K", "from 64.0 KiB to 4.0 MiB"),
        (settings.parse_packet_size, "8M", "packet size is 8.0 MiB"),
        (settings.parse_packet_size, "96K", "a power of two"),
        (settings.parse_packet_size, "many", "expected a whole number"),
    ],
)
def test_words_that_make_none(parse, word, expected):
    """A value that is not allowed is refused with what was found and what was expected."""
    with pytest.raises(UsageError) as caught:
        parse(word)

    assert expected in str(caught.value)
