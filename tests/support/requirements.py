"""Tools required by tests: without them a test skips, or fails where they should be installed."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def requires(tool: str) -> None:
    """
    Skip a test if a required program, or "root", is missing.

    With SNAPMIG_REQUIRE_TOOLS=1 it fails instead, for machines that should have everything.
    """
    there = os.geteuid() == 0 if tool == "root" else shutil.which(tool) is not None
    if not there:
        lacks(tool)


def lacks(tool: str) -> NoReturn:
    """Skip a test for a missing requirement, or fail as in :func:`requires`."""
    if os.environ.get("SNAPMIG_REQUIRE_TOOLS") == "1":
        pytest.fail(f"needs {tool}, and SNAPMIG_REQUIRE_TOOLS=1 says that it is here")
    pytest.skip(f"needs {tool}")
