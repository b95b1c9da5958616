"""The end of a command, and what tests say of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

DONE, WITH_WARNINGS = 0, 6
"""Exit codes."""


@dataclass(frozen=True)
class Outcome:
    """
    The exit code and the output of a command.

    ``ok``, ``warns``, ``fails`` and, where the code is a parameter of the test, ``ends`` check it
    and return it. Where a check fails, the error shows the command and all that it printed. Texts
    given as ``out`` and ``err`` are compared with all of stdout and stderr; None is any text.
    """

    code: int
    out: str
    err: str
    command: Sequence[object] = ()

    def ok(self, *parts: str, out: str | None = None, err: str | None = "") -> Outcome:
        """Check that the command is done without a word on stderr, and has parts on stdout."""
        __tracebackhide__ = True
        missing = [f"expected {part!r} in stdout" for part in parts if part not in self.out]
        return self._check([*self._differences(DONE, out, err), *missing])

    def warns(self, *parts: str, **more: Any) -> Outcome:
        """Check that the command is done with warnings, and the rest like ``ends``."""
        __tracebackhide__ = True
        return self.ends(WITH_WARNINGS, *parts, **more)

    def fails(self, code: int, *parts: str, **more: Any) -> Outcome:
        """Check that the command ends with an exit code of failures, and the rest like ``ends``."""
        __tracebackhide__ = True
        if code in (DONE, WITH_WARNINGS):
            raise ValueError(f"exit code {code} is no failure: say ok or warns")
        return self.ends(code, *parts, **more)

    def ends(
        self,
        code: int,
        *parts: str,
        start: str = "",
        lines: int | None = None,
        out: str | None = None,
        err: str | None = None,
    ) -> Outcome:
        """Check an exit code, and on stderr the parts, the start and the number of lines."""
        __tracebackhide__ = True
        wrong = self._differences(code, out, err)
        wrong += [f"expected {part!r} in stderr" for part in parts if part not in self.err]
        if not self.err.startswith(start):
            wrong.append(f"expected {start!r} at the start of stderr")
        if lines not in (None, self.err.count("\n")):
            wrong.append(f"expected {lines} lines in stderr")
        return self._check(wrong)

    @property
    def json(self) -> Any:
        """The one JSON text on stdout."""
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        """The JSON lines on stdout."""
        return [json.loads(line) for line in self.lines]

    @property
    def lines(self) -> list[str]:
        """The lines of stdout."""
        return self.out.splitlines()

    def _differences(self, code: int, out: str | None, err: str | None) -> list[str]:
        """Compare the exit code and whole streams."""
        found = [
            ("exit code", code, self.code),
            ("stdout", out, self.out),
            ("stderr", err, self.err),
        ]
        return [
            f"expected {name} {expected!r}, found {value!r}"
            for name, expected, value in found
            if expected not in (None, value)
        ]

    def _check(self, wrong: Sequence[str]) -> Outcome:
        __tracebackhide__ = True
        if wrong:
            shown = [
                f"command: {shlex.join(map(str, self.command)) or '(not kept)'}",
                f"exit code: {self.code}",
                f"stdout: {_indented(self.out)}",
                f"stderr: {_indented(self.err)}",
            ]
            raise AssertionError("\n".join([*wrong, *shown]))
        return self


def _indented(text: str) -> str:
    """Return a text on lines of its own, below a heading."""
    return "".join(f"\n    {line}" for line in text.splitlines()) or "(empty)"
