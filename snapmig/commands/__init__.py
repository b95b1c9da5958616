"""The command line: words to arguments, results to text or JSON, errors to exit codes."""

from snapmig.commands.main import main

__all__ = ("main",)
