"""Tools that a test needs: without them it skips, or fails where they should be installed."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def requires(tool: str) -> None:
    """
    Skip a test that needs a program, or "root", which is not there.

    With SNAPMIG_REQUIRE_TOOLS=1 it fails instead: a machine that should have everything does.
    """
    there = os.geteuid() == 0 if tool == "root" else shutil.which(tool) is not None
    if not there:
        lacks(tool)


def lacks(tool: str) -> NoReturn:
    """Skip a test for what it needs and has not, or fail as :func:`requires` says."""
    if os.environ.get("SNAPMIG_REQUIRE_TOOLS") == "1":
        pytest.fail(f"needs {tool}, and SNAPMIG_REQUIRE_TOOLS=1 says that it is here")
    pytest.skip(f"needs {tool}")
