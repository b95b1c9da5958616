"""Parts common to saves and restores that can be gone on with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from snapmig.errors import SnapmigError

__all__ = ("DROPPED", "RESUMABLE", "key_of", "remarking")

RESUMABLE = "what is done is kept, the same command goes on from here"
DROPPED = (
    "nothing of an interrupted run is kept: it had other settings, "
    "or the filesystem can't punch holes"
)


def key_of(facts: Mapping[str, Any]) -> str:
    """Return the key of facts, for the name of a partial file."""
    import json  # noqa: PLC0415 - few runs are to be resumed

    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


@contextmanager
def remarking(text: str) -> Iterator[None]:
    """Add a remark to any error raised inside."""
    try:
        yield
    except SnapmigError as error:
        error.args = (f"{error.message}; {text}",)
        raise
    except OSError as error:
        raise SnapmigError(f"{error.strerror}; {text}", path=error.filename) from error
    except BaseException as error:
        error.add_note(text)
        raise
