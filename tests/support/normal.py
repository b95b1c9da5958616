"""
The parts of output that differ from run to run, replaced by words in angle brackets.

Text: the snapshot's id and root, times, durations with their rates, sizes on disk, checksums, and
what the compressor's version decides: the stored size. JSON: the same fields. Nothing else is
touched.
"""

from __future__ import annotations

import re

_PATTERNS = (
    (r"^id( +)[0-9a-f]{32}$", r"id\1<id>"),
    (r"^root( +)[0-9a-f]{64}$", r"root\1<root>"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", "<time>"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d(  .*?)[\d.]+ (B|KiB|MiB)$", r"<time>\1<size>"),
    (r"\d+\.\d\d s( \([^)]*/s\))?", "<duration>"),
    (r"[\d.]+ (B|KiB|MiB) on disk", "<size> on disk"),
    (r"^on disk( +).*$", r"on disk\1<size>"),
    (r'"snapshot_id": "[0-9a-f]{32}"', '"snapshot_id": "<id>"'),
    (r'"(root|parent_root)": "[0-9a-f]{64}"', r'"\1": "<root>"'),
    (r'"(seconds|disk_size|stored_size|file_size)": [\d.]+', r'"\1": "<\1>"'),
    (r"is 0x[0-9a-f]{8}, computed 0x[0-9a-f]{8}", "is <checksum>, computed <checksum>"),
    (r"^stored( +)[\d.]+ (B|KiB|MiB), [\d.]+ %", r"stored\1<size>, <share>"),
    (r"is [0-9a-f]{64}, computed [0-9a-f]{64}", "is <digest>, computed <digest>"),
)


def normal(output: str) -> str:
    """Return an output of the program with what differs from run to run replaced."""
    for pattern, words in _PATTERNS:
        output = re.sub(pattern, words, output, flags=re.MULTILINE)
    return output
