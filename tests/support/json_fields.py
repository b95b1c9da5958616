"""The fields of results as JSON, as docs/json.md has them."""

from __future__ import annotations

import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "json.md"


def documented() -> dict[str, set[str]]:
    """Return the fields of each section's table; an entry may name several."""
    found = {}
    for section in re.split(r"^## ", DOCUMENT.read_text(), flags=re.M)[1:]:
        rows = re.findall(r"^\| (`.*?) \| .* \|$", section, re.M)
        found[section.split("\n")[0]] = {
            name for row in rows for name in re.findall(r"`(\w+)`", row)
        }
    return found | dict.fromkeys(("merge", "rebase", "repack"), found["save"])
