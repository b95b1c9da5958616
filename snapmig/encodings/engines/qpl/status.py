"""Status codes of Intel's Query Processing Library, as in its header status.h."""

from __future__ import annotations

from enum import IntEnum

__all__ = ("Status", "status_text")


class Status(IntEnum):
    """Statuses with special handling (``qpl_status``)."""

    OK = 0
    BEING_PROCESSED = 1
    MORE_OUTPUT_NEEDED = 2
    QUEUES_ARE_BUSY = 5
    DESTINATION_IS_SHORT = 225
    LIBACCEL_NOT_FOUND = 501
    NO_WORK_QUEUE = 503


_TEXTS = {
    2: "more output than fits",
    3: "the input ends too early",
    4: "a stream can't be gone on with",
    5: "the work queues are full",
    6: "the library is at fault itself",
    7: "the job was not submitted",
    8: "the work queues do not take this operation",
    50: "a pointer is null",
    52: "not supported in this mode",
    55: "fields of the job do not go together",
    56: "flags of the job do not go together",
    57: "a buffer is empty",
    59: "buffers overlap",
    81: "the Huffman table is not one",
    87: "no such compression level",
    101: "not enough memory",
    106: "not enough memory for a Huffman table",
    201: "a block's header does not end",
    202: "bad code of a code length",
    203: "the first literal's code length repeats one before it",
    204: "the first distance's code length repeats one before it",
    205: "no literal has a code",
    206: "wrong number of literal codes",
    207: "wrong number of distance codes",
    208: "code lengths of the code lengths that can't be",
    209: "code lengths of the literals that can't be",
    210: "code lengths of the distances that can't be",
    211: "bad code of a literal or length",
    212: "bad code of a distance",
    213: "no such type of block",
    214: "length of a stored block and its complement do not agree",
    215: "the stream does not end in an end of block",
    216: "bad length of a match",
    217: "a match reaches back further than 4 KiB",
    218: "a match reaches back before the beginning",
    219: "no progress",
    225: "more output than fits",
    229: "what was compressed does not decompress to the same",
    230: "a symbol has no code in the table",
    235: "too many literal codes",
    236: "too many distance codes",
    303: "page fault on read",
    319: "more than the work queues take at once",
    333: "the device did not answer in time",
    334: "the device's time ran out",
    335: "a page request's time ran out",
    336: "the device's watchdog ended the job",
    431: "page fault on write",
    500: "this build has no hardware path",
    501: "libaccel-config.so.1 is missing",
    502: "libaccel-config.so.1 failed",
    503: "no work queue that is enabled, shared, and this user's to use",
}


def status_text(status: int) -> str:
    """Return a status in words, with its number, the key to Intel's documentation."""
    words = _TEXTS.get(status)
    return f"status {status}" if words is None else f"{words} (status {status})"
