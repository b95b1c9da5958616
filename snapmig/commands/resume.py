"""How a guest resumes from what a restore made, in lines for people."""

from __future__ import annotations

from snapmig.operations.restore import RestoreResult
from snapmig.printable import printable, shell_words

__all__ = ("resume_lines",)


def resume_lines(result: RestoreResult) -> list[str]:
    """Return the commands of a restore for QEMU, as words of the snapshot; none of another one."""
    if result.qemu_arguments is None:
        return []
    return [
        "resume    by these commands; the first is the snapshot's own word, which is as good as",
        "          who made that file: read it before you run it",
        f"start     {shell_words(result.qemu_arguments)}",
        *(f"monitor   {printable(command)}" for command in result.monitor_commands or ()),
    ]
