"""A release: its version, its tag and its chapter."""

import re
from pathlib import Path

import snapmig
from tests.support import program

ROOT = Path(__file__).parents[2]
CHECK_TAG = ROOT / ".ci" / "check-tag"


def test_a_tag_of_the_version_is_accepted():
    """The changelog has a chapter for the version in the package."""
    program.call([CHECK_TAG, f"v{snapmig.__version__}"]).ok(err="")


def test_another_tag_is_refused():
    """A tag that was set before the version was changed does not release the old one again."""
    program.call([CHECK_TAG, "v99.0"]).fails(
        1, f"the tag is v99.0, and snapmig/version.py says {snapmig.__version__}"
    )


def test_chapters_of_the_changelog_are_in_order():
    """What is not released stands first, then each version with its day, the newest first."""
    text = (ROOT / "CHANGELOG.md").read_text()
    first, *chapters = re.findall(r"^## (.*)$", text, re.MULTILINE)
    parts = [
        re.fullmatch(r"(\d+)\.(\d+)\.(\d+) - \d{4}-\d\d-\d\d", chapter) for chapter in chapters
    ]
    versions = [tuple(map(int, part.groups())) for part in parts]

    assert first == "Unreleased"
    assert versions == sorted(versions, reverse=True)
    assert chapters[0].startswith(f"{snapmig.__version__} - ")
