"""
The documentation site: the documents as they stand, with pages made from parsers and docstrings.

``python -m tests.manual.site`` writes it to build/site. Links between documents are checked, those
to elsewhere with ``--links`` only.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from sphinx.cmd.build import build_main

import snapmig
import snapmig.backup
from snapmig.commands.main import VERBS, build_parser

ROOT = Path(__file__).parents[2]
SITE = ROOT / "build" / "site"
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
FILES = (*DOCUMENTS, "LICENSE", "CODE_OF_CONDUCT.md")


def main(arguments: Sequence[str]) -> int:
    """Build the site anew, warnings being errors; return Sphinx's exit code."""
    shutil.rmtree(SITE, ignore_errors=True)
    source = SITE / "source"
    shutil.copytree(ROOT / "docs", source / "docs", ignore=shutil.ignore_patterns("man", "site"))
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    for path in (ROOT / "docs" / "site").iterdir():
        shutil.copy(path, source / path.name)
    (source / "cli.md").write_text("\n".join(_command_line()))
    (source / "api.md").write_text("\n".join(_functions()))
    builder = "linkcheck" if "--links" in arguments else "html"
    return build_main(["-q", "-W", "--keep-going", "-b", builder, str(source), str(SITE / builder)])


def _command_line() -> Iterator[str]:
    yield "# Command line\n"
    parser = build_parser()
    yield f"```\n{parser.format_help()}```\n"
    own = parser._subparsers
    assert own is not None
    choices = own._group_actions[0].choices
    assert isinstance(choices, dict)
    for verb in VERBS:
        yield f"## {verb}\n\n```\n{choices[verb].format_help()}```\n"


def _functions() -> Iterator[str]:
    yield "# Python\n\n```{eval-rst}"
    for module in (snapmig, snapmig.backup):
        yield f".. module:: {module.__name__}\n"
        for name in module.__all__:
            value = getattr(module, name)
            if isinstance(value, type):
                yield f".. autoclass:: {module.__name__}.{name}\n   :members:\n"
            elif callable(value):
                yield f".. autofunction:: {module.__name__}.{name}\n"
    yield "```\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
