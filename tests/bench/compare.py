"""
Compares two files of results: python -m tests.bench.compare OLD NEW.

For each contestant of each question the medians of its figures, new over old, and whether they are
apart: the halves of the rounds in the middle, from one quartile to the other, have nothing in
common.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.bench.records import read_records
from tests.bench.summary import Record, Results, Spread, spread
from tests.bench.tables import text_table

FEWEST = 3
"""Rounds: of fewer, quartiles say nothing."""
UNITS = ("_s", "_us", "_bytes")
ABOUT_THE_MACHINE = ("image_", "machine_", "others_", "stolen_")
FACTS = ("machine_", "version_", "image_", "git_commit")
IDENTITY = ("operation", "destination", "name", "jobs")


class Change(NamedTuple):
    """A figure of a contestant in both files."""

    who: tuple[object, ...]
    figure: str
    old: Spread
    new: Spread
    rounds: int

    @property
    def ratio(self) -> float | None:
        """The new median over the old one."""
        return self.new.median / self.old.median if self.old.median else None

    @property
    def verdict(self) -> str:
        """Whether it grew by more than the rounds differ among themselves."""
        if self.rounds < FEWEST:
            return "too few rounds"
        if self.new.lower > self.old.upper:
            return "more"
        return "less" if self.new.upper < self.old.lower else "within the spread"


def main(arguments: Sequence[str]) -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.compare", description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args(arguments)
    try:
        old, new = (read_records([path]) for path in (options.old, options.new))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(comparison(old, new)))
    return 0


def comparison(old: Sequence[Record], new: Sequence[Record]) -> list[str]:
    """Return the lines about two runs: facts that differ, then figures."""
    rows = [["", "figure", "old", "new", "new / old", ""]]
    for change in changes(old, new):
        relative = "-" if change.ratio is None else f"{change.ratio:.3f}"
        middles = (f"{found.median:.6g}" for found in (change.old, change.new))
        who = ", ".join(str(word) for word in change.who if word is not None)
        rows.append([who, change.figure, *middles, relative, change.verdict])
    alone = [f"only in one of the files: {who}" for who in _alone(old, new)]
    return [*_differences(old, new), *text_table(rows), *alone]


def changes(old: Sequence[Record], new: Sequence[Record]) -> Iterator[Change]:
    """Yield all figures that both have, in the order of the old one."""
    before, after = _figures(old), _figures(new)
    for key, values in before.items():
        others = after.get(key, [])
        first, second = spread(values), spread(others)
        if first and second:
            yield Change(*key, first, second, min(len(values), len(others)))


def _figures(records: Sequence[Record]) -> dict[tuple[tuple[object, ...], str], list[float]]:
    found: dict[tuple[tuple[object, ...], str], list[float]] = {}
    for record in Results(records).records:
        who = _who(record)
        for name, value in record.items():
            if (
                name.endswith(UNITS)
                and not name.startswith(ABOUT_THE_MACHINE)
                and value is not None
            ):
                found.setdefault((who, name), []).append(value)
    return found


def _who(record: Record) -> tuple[object, ...]:
    jobs = record["jobs"]
    return (*(record[name] for name in IDENTITY[:-1]), f"{jobs} job{'s' if jobs != 1 else ''}")


def _alone(old: Sequence[Record], new: Sequence[Record]) -> list[str]:
    one, other = (dict.fromkeys(_who(record) for record in records) for records in (old, new))
    only = [who for who in (*one, *other) if (who in one) != (who in other)]
    return [", ".join(str(word) for word in who if word is not None) for who in only]


def _differences(old: Sequence[Record], new: Sequence[Record]) -> Iterator[str]:
    if not old or not new:
        return
    first, second = old[0], new[0]
    for name in sorted(first.keys() | second.keys()):
        one, other = first.get(name), second.get(name)
        if name.startswith(FACTS) and one != other:
            yield f"{name}: {one} before, {other} now"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
