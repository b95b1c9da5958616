"""Writes the manual pages and the completions: ``make docs``."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

from tests.manual.bash import make_bash
from tests.manual.fish import make_fish
from tests.manual.page import DATE, make_pages
from tests.manual.verbs import read_program
from tests.manual.zsh import make_zsh

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "man"
COMPLETIONS = ROOT / "snapmig" / "commands" / "completions"


def make_completions() -> dict[str, str]:
    """Return the scripts by the names of their files, which are those that shells look for."""
    program = read_program()
    return {
        "snapmig.bash": make_bash(program),
        "_snapmig": make_zsh(program),
        "snapmig.fish": make_fish(program),
    }


def dated(page: str, kept: Path, today: str) -> str:
    """
    Return a page with its date: that of the file, as long as nothing else in it changes.

    :param kept: the page's file, which need not be there
    :param today: the date otherwise
    """
    text = kept.read_text(encoding="utf-8") if kept.exists() else ""
    found = re.search(r'^\.TH \S+ 1 "([0-9-]+)"', text, re.MULTILINE)
    same = found is not None and page.replace(DATE, found[1]) == text
    return text if same else page.replace(DATE, today)


def _main() -> None:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    pages = make_pages()
    _write(COMPLETIONS, make_completions())
    _write(PAGES, {name: dated(text, PAGES / name, today) for name, text in pages.items()})


def _write(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in files:
            path.unlink()  # of a verb that there was
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
        print(folder.relative_to(ROOT) / name)


if __name__ == "__main__":
    _main()
