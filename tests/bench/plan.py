"""The runs of a benchmark, and their order in the rounds."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.bench.codecs import PACKET
from tests.bench.contestants import MAIN, OWN, SNAPMIG, STARTUP, VARIANTS, Contestant
from tests.bench.limits import Limit
from tests.bench.rounds import in_turn

OPERATIONS = ("save", "restore")
SETTINGS = ("window", "packet_size", "layout")


@dataclass(frozen=True)
class Config:
    """
    The choices of a user.

    :param destinations: names of the places that outputs go to, and their folders
    :param job_counts: how many processes or threads, one number unless it is about scaling
    :param variant_rounds: rounds that also run snapmig with other settings
    :param operations: which of saving and restoring
    :param warm_restores: restores have a warm-up too, and not only the saves that they read
    """

    image: Path
    output_folder: Path
    destinations: dict[str, Path]
    job_counts: tuple[int, ...]
    rounds: int
    variant_rounds: int
    scaling: bool
    operations: tuple[str, ...] = OPERATIONS
    warm_restores: bool = True

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
        found: dict[str, Any] = dict.fromkeys(("compression", "level", *SETTINGS))
        if isinstance(self.what, Contestant):
            found |= {"compression": self.what.compression, "level": self.what.level}
            found |= self.what.parameters
        elif isinstance(self.what, Limit):
            found["packet_size"] = PACKET
            if codec := self.what.codec:
                found |= {"compression": codec.compression, "level": codec.level}
                found["window"] = codec.window
        return {
            "role": self.role,
            "operation": self.operation,
            "name": self.name,
            "jobs": self.jobs,
            "destination": self.destination or None,
            **found,
        }


def items(config: Config, contestants: Sequence[Contestant], limits: Sequence[Limit]) -> list[Item]:
    """Everything that a full round measures."""
    wanted = [limit for limit in limits if limit.operation in config.operations]
    planned = [item for jobs in config.job_counts for item in _with_jobs(config, jobs, contestants)]
    planned += [item for jobs in config.job_counts for item in _limit_items(config, jobs, wanted)]
    if not config.scaling:
        jobs = config.job_counts[0]
        place = config.first_destination
        if config.variant_rounds and "save" in config.operations and MAIN in contestants:
            planned += [Item("variant", "save", one.name, jobs, place, one) for one in VARIANTS]
        planned += [Item("startup", "start", name, 1, "", words) for name, words in STARTUP.items()]
    return planned


def warm_ups(planned: Iterable[Item], *, restores: bool = True) -> list[Item]:
    """Each contestant once with each operation; a restore finds what its own save left."""
    found: dict[tuple[str, str], Item] = {}
    for item in planned:
        if isinstance(item.what, Contestant) and item.role != "variant":
            found.setdefault(("save", item.name), replace(item, operation="save"))
            if restores:
                found.setdefault((item.operation, item.name), item)
    return list(found.values())


def rotated(planned: Sequence[Item], number: int, config: Config) -> Iterator[Item]:
    """Yield a round's items."""
    for item in in_turn(planned, number, config.rounds):
        if item.role != "variant" or number < config.variant_rounds:
            yield item


def _with_jobs(config: Config, jobs: int, contestants: Sequence[Contestant]) -> Iterator[Item]:
    for operation in config.operations:
        for one in contestants:
            if config.scaling and not one.threads(operation):
                continue
            role = SNAPMIG if one in OWN else "peer"
            for place in config.destinations:
                yield Item(role, operation, one.name, jobs, place, one)


def _limit_items(config: Config, jobs: int, limits: Sequence[Limit]) -> Iterator[Item]:
    for limit in limits:
        for place in config.destinations if limit.on_destination else ("",):
            yield Item("limit", limit.operation, limit.name, jobs, place, limit)
