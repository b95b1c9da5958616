"""
Facts about what ``snapmig backup`` prints, kept in golden/, one file for each case.

``pytest --update-golden`` writes the files anew; look at what changed before keeping it.
"""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.normal import normal

GOLDEN = Path(__file__).parent / "golden"
TIME = datetime(2026, 11, 1, 12, tzinfo=UTC)

CASES = {
    "run": ["run -v web", "run -v -n", "run -n -q", "run none"],
    "run-json": ["run --json", "run --json -n web"],
    "list": ["list old", "list web"],
    "list-json": ["list --json old"],
    "check": ["check -v old", "check --json old"],
    "prune": ["prune -n old", "prune --json old", "prune old"],
    "restore": [
        "restore -v old OUT",
        "restore -v --before 2026-11-02T00:00:00Z old OUT",
        "restore -f --json --jobs=2 --snapshot 2026-11-01T12-00-00Z old OUT",
        "restore old OUT",
        "restore --before 2020-01-01 old OTHER",
    ],
    "refused": ["run --lock-wait soon", "check --days 0", "list none", "run --json none"],
}
_PATTERNS = (
    (r"20\d\d-\d\d-\d\dT\d\d-\d\d-\d\dZ(_\d)?\.snap(?= *\d{4}-)", "<snapshot>            "),
    (r"(?<!2026-11-0[1-5]T)(?<=saved )20\d\d[-TZ_\d]*\.snap", "<snapshot>"),
    (r'"snapshot": "(?!2026-11-0[1-5]T12)(/[^"]*/)?20[^"]*"', '"snapshot": "<snapshot>"'),
    (r'"time": "(?!2026-11-0[1-5]T12)[^"]*"', '"time": "<time>"'),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d [+-]\d{4})?", "<local time>"),
    (r'"age_seconds": -?\d+', '"age_seconds": "<age>"'),
    (r" +[\d.]+ (B|KiB|MiB) +\d+ (d|h|min|s) ", " <size> <age> "),
    (r", [\d.]+ (B|KiB|MiB) in \d+\.\d\d s", ", <size> in <duration>"),
    (r"about [\d.]+ (B|KiB|MiB)", "about <size>"),
    (r'"(expected_size)": \d+', r'"\1": "<\1>"'),
)


@pytest.fixture
def filled(place):
    """Give a place with a guest that was never saved and one with a chain and damage."""
    place.configure(
        "[retention]\nkeep_daily = 2",
        guests='[guests.old]\nsource = "db.ram"\n[guests.gone]\nsource = "gone"\noptional = true',
    )
    for day, parent in enumerate([None, 1, None, 7, None], 1):
        path = place.put(TIME + timedelta(days=day - 1), day, parent)
        (place.folder / "repo" / "old").mkdir(exist_ok=True)
        path.rename(place.folder / "repo" / "old" / path.name)
    (place.folder / "repo" / "web").rmdir()
    (place.folder / "repo" / "old" / "notes").write_text("mine")
    return place


def _normal(text, folder):
    for pattern, words in _PATTERNS:
        text = re.sub(pattern, words, text)
    return normal(text.replace(str(folder), "<folder>"))


def _told(place, commands):
    lines = []
    for command in commands:
        words = [
            str(place.folder / word.lower()) if word.isalpha() and word.isupper() else word
            for word in command.split()[1:]
        ]
        verb, at = command.split()[0], 0
        while at < len(words) and (words[at].startswith("-") or words[at - 1] in _WITH_VALUE):
            at += 1
        outcome = place.cli("backup", verb, *words[:at], place.config, *words[at:])
        lines += [f"$ snapmig backup {command}\n", _normal(outcome.out, place.folder)]
        lines += [f"! {line}\n" for line in _normal(outcome.err, place.folder).splitlines()]
        lines.append(f"= {outcome.code}\n")
    return "".join(lines)


_WITH_VALUE = ("--before", "--snapshot", "--lock-wait", "--days")


@pytest.mark.parametrize("name", CASES)
def test_output_is_kept(filled, request, name):
    """Output, messages and exit codes are those that were kept."""
    told = _told(filled, CASES[name])
    path = GOLDEN / f"{name}.txt"
    if request.config.getoption("update_golden"):
        path.write_text(told)

    assert path.read_text() == told


def test_every_kept_output_has_its_case():
    """No kept output is left of a case that is gone."""
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)
