"""From records to medians and ratios; a ratio is taken inside each round, then the median."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

Record = Mapping[str, Any]
Times = dict[int, float]
"""Seconds by the number of the round."""


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of a figure over the rounds, and its quartiles."""

    median: float
    low: float
    high: float
    lower: float
    upper: float


def spread(values: Iterable[float]) -> Spread | None:
    """Return the spread of values, None when there is none."""
    found = sorted(values)
    if not found:
        return None
    lower, middle, upper = quantiles(found * 2 if len(found) == 1 else found, method="inclusive")
    return Spread(middle, found[0], found[-1], lower, upper)


def ratios(of: Times, to: Times) -> Spread | None:
    """Return the spread over the common rounds of one figure divided by another."""
    return spread(of[number] / to[number] for number in of.keys() & to.keys() if to[number])


def ratio(of: Times, to: Times) -> float | None:
    """Return the median over the common rounds of one figure divided by another."""
    found = ratios(of, to)
    return None if found is None else found.median


def ratio_of_medians(of: Times, to: Sequence[Times]) -> float | None:
    """Return the median of a figure divided by the sum of others' medians, of common rounds."""
    rounds = of.keys()
    for one in to:
        rounds &= one.keys()
    if not rounds:
        return None
    whole = sum(median(one[number] for number in rounds) for one in to)
    return median(of[number] for number in rounds) / whole if whole else None


def added(one: Times, other: Times) -> Times:
    """Return the sums of two figures, round by round."""
    return {number: one[number] + other[number] for number in one.keys() & other.keys()}


@dataclass(frozen=True)
class Context:
    """The subjects of the tables: the facts, the places, the numbers of jobs, the operations."""

    facts: dict[str, Any]
    destinations: dict[str, str]
    job_counts: tuple[int, ...]
    rounds: int
    operations: tuple[str, ...] = ("save", "restore")


class Results:
    """
    The records of a run, to be asked for figures.

    :param records: warm-ups are left out
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self.records = [record for record in records if not record["warm_up"]]

    def disturbance(self, processors: int) -> float:
        """
        Return the share of the processors that others had while commands ran, 0 to 1.

        Limits are left out: their preparation is not in their times.
        """
        runs = [record for record in self.records if record["role"] not in ("limit", "startup")]
        taken = sum(record["others_cpu_s"] + record["stolen_cpu_s"] for record in runs)
        whole = sum(record["wall_s"] for record in runs) * processors
        return min(1.0, taken / whole) if whole else 0.0

    def label(self, name: str) -> str:
        """Return a name, that of another program with its version."""
        field = f"version_{name.partition(' ')[0]}"
        others = [each for each in self.records if each["name"] == name and each["role"] == "peer"]
        found = {each.get(field) for each in others} - {None}
        return f"{name} ({found.pop()})" if found else name

    def rows(self, operation: str, destination: str | None, jobs: int, *roles: str) -> list[str]:
        """Return the names of what was measured, in the order of the plan."""
        return list(
            dict.fromkeys(
                record["name"]
                for record in sorted(self.records, key=lambda record: record["order"])
                if record["operation"] == operation
                and record["destination"] in (destination, None)
                and record["jobs"] == jobs
                and record["role"] in roles
            )
        )

    def times(
        self, operation: str, destination: str | None, name: str, jobs: int, field: str = "wall_s"
    ) -> Times:
        """Return a figure by round; what has no destination stands for each of them."""
        return {
            record["round"]: record[field]
            for record in self.records
            if record["operation"] == operation
            and record["destination"] in (destination, None)
            and record["name"] == name
            and record["jobs"] == jobs
            and record[field] is not None
        }
