"""Lines for people about how a guest resumes after a restore."""

from __future__ import annotations

from snapmig.operations.restore import RestoreResult
from snapmig.printable import printable, shell_words

__all__ = ("resume_lines",)


def resume_lines(result: RestoreResult) -> list[str]:
    """Return the commands after a restore for QEMU, quoted for a shell, else none."""
    if result.qemu_arguments is None:
        return []
    return [
        "resume    by these commands; the first comes from the snapshot: read it before you",
        "          run it, unless you trust the maker of that file",
        f"start     {shell_words(result.qemu_arguments)}",
        *(f"monitor   {printable(command)}" for command in result.monitor_commands or ()),
    ]
