"""Facts about the tutorial: its commands work, in their order, in an empty directory."""

import os
import re
import sys
from pathlib import Path

import pytest

from tests.support import program
from tests.support.requirements import requires

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"


def blocks():
    """Return the indented blocks, but for that which installs."""
    text = TUTORIAL.read_text().partition("\n## A guest\n")[2]
    found = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", text, re.M)
    return [re.sub(r"^ {4}", "", block, flags=re.M) for block in found]


@pytest.mark.guest
def test_the_commands_work(tmp_path):
    """A shell that ends at the first failure comes to the end, without a word of warning."""
    requires("qemu-system-x86_64")
    (tmp_path / "bin").mkdir()
    for name, words in {"snapmig": "-m snapmig", "python3": ""}.items():
        script = tmp_path / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {words} "$@"\n')
        script.chmod(0o755)
    path = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "PYTHONPATH": str(TUTORIAL.parents[1])}
    ends = "trap 'for f in *.pid; do [ ! -e $f ] || kill $(cat $f); done' EXIT\n"
    done = program.call(
        ["bash", "-euc", ends + "\n".join(blocks())],
        cwd=tmp_path, env={**os.environ, **path}, timeout=100,
    )  # fmt: skip

    done.ok("web: saved", err="")
    assert (tmp_path / "backups.html").exists()
