"""Facts about sizes and durations in words."""

import pytest

from snapmig.errors import UsageError
from snapmig.units import format_duration, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1", 1),
        ("512", 512),
        ("4k", 4 << 10),
        ("64K", 64 << 10),
        ("4M", 4 << 20),
        ("2g", 2 << 30),
        ("3T", 3 << 40),
        ("4MiB", 4 << 20),
        ("4MB", 4 << 20),
        ("7b", 7),
        (" 8K ", 8 << 10),
        (4096, 4096),
    ],
)
def test_parse_size_reads_powers_of_1024(text, expected):
    """A size is a whole number with a unit that is a power of 1024."""
    assert expected == parse_size(text)


@pytest.mark.parametrize("text", ["", "K", "-1", "1.5M", "4 K", "0x10", "1P", "1KK", "٤", "1i"])
def test_parse_size_refuses_what_is_no_size(text):
    """Anything but a whole number with a known unit is refused, with the text in the message."""
    with pytest.raises(UsageError, match="expected a whole number") as caught:
        parse_size(text)

    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1 << 20, "1.0 MiB"),
        (5 << 30, "5.0 GiB"),
        (3 << 40, "3.0 TiB"),
        (1 << 56, "65536.0 TiB"),
        (-4096, "-4.0 KiB"),
    ],
)
def test_format_size(size, expected):
    """A size is written with the largest unit that it has one of."""
    assert expected == format_size(size)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0.00 s"), (0.421, "0.42 s"), (99.5, "99.50 s"), (100, "1 min 40 s"), (187, "3 min 07 s")],
)
def test_format_duration(seconds, expected):
    """A duration is in seconds below 100 of them, in minutes and seconds above."""
    assert expected == format_duration(seconds)
