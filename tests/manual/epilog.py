"""The parts of what stands under the options in a verb's help."""

from __future__ import annotations

import re
from typing import NamedTuple


class Epilog(NamedTuple):
    """
    The parts.

    :ivar notes: paragraphs, and under them lines that stand as they are
    :ivar codes: exit codes in words
    :ivar said: a paragraph about exit codes
    :ivar examples: command lines
    """

    notes: tuple[tuple[str, tuple[str, ...]], ...]
    codes: tuple[tuple[str, str], ...]
    said: str
    examples: tuple[str, ...]


def read_epilog(text: str) -> Epilog:
    """
    Return the parts of an epilog.

    What points to the help of verbs is left out: in a manual that is SEE ALSO.

    :raises ValueError: an exit code has no meaning
    """
    notes: list[tuple[str, tuple[str, ...]]] = []
    codes: list[tuple[str, str]] = []
    said = ""
    examples: list[str] = []
    for block in filter(None, text.strip().split("\n\n")):
        lines = block.splitlines()
        indented = [line[2:] for line in lines if line.startswith("  ")]
        words = " ".join(line for line in lines if not line.startswith("  "))
        if lines[0] == "examples:":
            examples += indented
        elif lines[0].startswith("exit code"):
            cells = [cell for line in indented for cell in re.split(r" {3,}", line.strip())]
            codes += map(_code, cells)
            said = re.sub(r"^exit codes?(?: \((.*?)\)|[^:])*: ?", r"\1", words)
        elif "--help" not in lines[0]:
            notes.append((words, tuple(indented)))
    return Epilog(tuple(notes), tuple(sorted(codes, key=_order)), said, tuple(examples))


def _code(cell: str) -> tuple[str, str]:
    found = re.match(r"(\d+(?:\+N)?) {2}(.*)", cell)
    if found is None:
        raise ValueError(f"{cell!r} is not an exit code and what it means")
    return found[1], found[2]


def _order(pair: tuple[str, str]) -> int:
    return int(pair[0].removesuffix("+N"))
