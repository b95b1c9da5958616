"""Facts about the package's English: the part of a good style that can be counted."""

import ast
import re
from pathlib import Path

import snapmig

PACKAGE = Path(snapmig.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
OPENER = re.compile(r"\W*(What|Which|Where|Whether|How|By what|Who|Whose|When|Why)\b")
RELATIVE = {"that", "which", "what", "whose", "whether", "who", "whom"}
MOST_RELATIVE = 0.015
"""Docstrings of structlog, httpx, drgn, zarr and msgspec have 0.7 to 1.2 % of these words."""


def docstrings(file):
    """Yield the docstrings of a file with their lines."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


def test_docstrings_are_no_indirect_questions():
    """A docstring opens with a noun phrase or an imperative."""
    questions = [
        f"{file}:{line}: {text.splitlines()[0]}"
        for file in FILES
        for line, text in docstrings(file)
        if OPENER.match(text)
    ]

    assert questions == []


def test_relative_words_are_few():
    """At most 1.5 % of all words in docstrings begin a relative clause or an indirect question."""
    words = [
        word.lower()
        for file in FILES
        for _, text in docstrings(file)
        for word in re.findall(r"[A-Za-z']+", text)
    ]

    assert sum(word in RELATIVE for word in words) <= MOST_RELATIVE * len(words)
