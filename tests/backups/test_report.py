"""Facts about the exit code of a command that met several things."""

import pytest

from snapmig.backups.hooks import HookError
from snapmig.backups.lock import LockedError
from snapmig.backups.report import Report
from snapmig.errors import CorruptSnapshotError


@pytest.mark.parametrize(
    ("events", "code"),
    [
        ([], 0),
        (["warning"], 6),
        (["note"], 0),
        ([LockedError("a")], 7),
        ([LockedError("a"), HookError("b")], 7),
        ([HookError("b"), LockedError("a")], 1),
        (["warning", CorruptSnapshotError("c")], 3),
        ([CorruptSnapshotError("c"), "warning"], 3),
        ([OSError(2, "No such file")], 1),
    ],
)
def test_the_first_error_decides(events, code):
    """The first error's code comes before later ones and before that of warnings."""
    report = Report(lambda _: None)
    for event in events:
        if event == "warning":
            report.warn("w")
        elif event == "note":
            report.note("n")
        else:
            report.fail(event)

    assert report.exit_code == code
