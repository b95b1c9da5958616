"""``snapmig completion``: print ready-made scripts, so that no Tab starts the program."""

from __future__ import annotations

import argparse
from pathlib import Path

from snapmig.commands.arguments import Verbs

__all__ = ("add_parser",)

_FOLDER = Path(__file__).with_name("completions")
_FILES = {"bash": "snapmig.bash", "zsh": "_snapmig", "fish": "snapmig.fish"}

_EPILOG = """\
examples:
  mkdir -p ~/.local/share/bash-completion/completions
  snapmig completion bash > ~/.local/share/bash-completion/completions/snapmig
  mkdir -p ~/.zfunc
  snapmig completion zsh > ~/.zfunc/_snapmig
  mkdir -p ~/.config/fish/completions
  snapmig completion fish > ~/.config/fish/completions/snapmig.fish

A shell reads its script when it starts; zsh only with fpath+=(~/.zfunc) before
compinit in ~/.zshrc.
"""


def add_parser(verbs: Verbs) -> None:
    """Add the verb's parser."""
    parser = verbs.add_parser(
        "completion",
        help="print a completion script for a shell",
        usage="snapmig completion SHELL",
        description="Print a shell's completion script for verbs, options and file names.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "shell", choices=tuple(_FILES), metavar="SHELL", help=f"one of {', '.join(_FILES)}"
    )
    parser.set_defaults(run=_run, json=False, debug=False, quiet=False, verbose=False, color="auto")


def _run(options: argparse.Namespace) -> int:
    print((_FOLDER / _FILES[options.shell]).read_text(encoding="utf-8"), end="")
    return 0
