"""Which runs there are, and in which order the rounds take them."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.contestants import MAIN, SNAPMIG, STARTUP, VARIANTS, Contestant
from tests.bench.limits import LEVEL, PACKET, Limit

OPERATIONS = ("save", "restore")


@dataclass(frozen=True)
class Config:
    """
    What was asked for.

    :param destinations: names of the places that outputs go to, and their folders
    :param job_counts: how many processes or threads, one number unless it is about scaling
    :param variant_rounds: rounds that also run snapmig with other settings
    """

    image: Path
    output_folder: Path
    destinations: dict[str, Path]
    job_counts: tuple[int, ...]
    rounds: int
    variant_rounds: int
    scaling: bool

    @property
    def first_destination(self) -> str:
        """Where the warm-up and the variants write."""
        return next(iter(self.destinations))


@dataclass(frozen=True)
class Item:
    """
    One thing that each round measures once.

    :param role: ``snapmig``, ``variant``, ``peer``, ``limit`` or ``startup``
    :param what: a contestant, a limit, or a command
    """

    role: str
    operation: str
    name: str
    jobs: int
    destination: str
    what: Contestant | Limit | tuple[str, ...] = field(compare=False)

    @property
    def label(self) -> str:
        """The item in words."""
        where = f" to {self.destination}" if self.destination else ""
        return f"{self.operation}{where}, {self.name}, {self.jobs} jobs"

    @property
    def parameters(self) -> dict[str, Any]:
        """All that identifies the run in the results."""
        found: dict[str, Any] = {"level": None, "window": None, "packet_size": None, "layout": None}
        if isinstance(self.what, Contestant):
            found |= self.what.parameters
        elif isinstance(self.what, Limit):
            found |= {"level": LEVEL, "window": "32k", "packet_size": PACKET}
        return {
            "role": self.role,
            "operation": self.operation,
            "name": self.name,
            "jobs": self.jobs,
            "destination": self.destination or None,
            **found,
        }


def present(contestants: Sequence[Contestant]) -> tuple[list[Contestant], list[str]]:
    """Those whose program is installed, and the programs that are missing."""
    found = [one for one in contestants if shutil.which(one.program)]
    missing = [one.program for one in contestants if one not in found]
    return found, missing


def items(config: Config, peers: Sequence[Contestant], limits: Sequence[Limit]) -> list[Item]:
    """Everything that a full round measures."""
    planned = [item for jobs in config.job_counts for item in _with_jobs(config, jobs, peers)]
    planned += [item for jobs in config.job_counts for item in _limit_items(config, jobs, limits)]
    if not config.scaling:
        jobs = config.job_counts[0]
        place = config.first_destination
        if config.variant_rounds:
            planned += [Item("variant", "save", one.name, jobs, place, one) for one in VARIANTS]
        planned += [Item("startup", "start", name, 1, "", words) for name, words in STARTUP.items()]
    return planned


def rotated(planned: Sequence[Item], number: int, config: Config) -> Iterator[Item]:
    """Yield a round's items; each round begins elsewhere, so that none always follows the same."""
    step = max(1, len(planned) // config.rounds)
    start = number * step % len(planned)
    for item in [*planned[start:], *planned[:start]]:
        if item.role != "variant" or number < config.variant_rounds:
            yield item


def _with_jobs(config: Config, jobs: int, peers: Sequence[Contestant]) -> Iterator[Item]:
    for operation in OPERATIONS:
        for one in (MAIN, *peers):
            if config.scaling and not one.threads(operation):
                continue
            role = SNAPMIG if one is MAIN else "peer"
            for place in config.destinations:
                yield Item(role, operation, one.name, jobs, place, one)


def _limit_items(config: Config, jobs: int, limits: Sequence[Limit]) -> Iterator[Item]:
    for limit in limits:
        for place in config.destinations if limit.on_destination else ("",):
            yield Item("limit", limit.operation, limit.name, jobs, place, limit)
