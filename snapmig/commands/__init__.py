"""The command line: words to arguments, results to text or JSON, errors to exit codes."""

from snapmig.commands.main import ALONE, load, main

__all__ = ("ALONE", "load", "main")
