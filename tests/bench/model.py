"""
A model of saves by many processors, and by several hosts, from times measured on few.

The start of each worker takes the parent some time. Then three things go on at once, and the
slowest counts: the workers' work, shared evenly; the parent's, a task at a time; and the reading of
the RAM, at a bandwidth that is an assumption. Workers end half a last batch apart. The commit is
the parent's alone again. A destination that is slower than this is left out.
"""

from dataclasses import dataclass
from typing import NamedTuple

from snapmig.container.format import DEFAULT_PACKET_SIZE
from snapmig.handlers.batch_size import SMALLEST, batch_packets

CODEC, MEMORY, PARENT, START = "codec", "memory", "parent", "start"
LINK = "link"


@dataclass(frozen=True)
class Costs:
    """
    Seconds, each measured.

    :param packet_s: of a worker for a packet with pages
    :param task_s: of the parent for a task
    :param start_s: of the parent for the start of a worker
    :param finish_s: of the parent for a packet, at the commit
    :param command_s: of the command itself, before its workers and after them
    """

    packet_s: float
    task_s: float
    start_s: float
    finish_s: float
    command_s: float = 0.0


class Predicted(NamedTuple):
    """
    A save by the model.

    :param limit: what takes longest
    """

    seconds: float
    limit: str


def task_count(packets: int, workers: int) -> int:
    """Return how many tasks a save of so many packets has, none of them in a hole."""
    tasks = 0
    while packets > 0:
        size, half = (
            batch_packets(left, DEFAULT_PACKET_SIZE, workers=workers)
            for left in (packets, packets // 2)
        )
        same = max(1, (packets - packets // 2) // size) if size == half else 1
        tasks += same
        packets -= same * size
    return tasks


def pass_seconds(costs: Costs, packets: int, workers: int, bandwidth: float) -> dict[str, float]:
    """
    Return what each part takes by itself while workers work.

    :param bandwidth: bytes of RAM that all of them together read in a second
    """
    last = min(SMALLEST // DEFAULT_PACKET_SIZE, packets) * costs.packet_s
    return {
        CODEC: packets * costs.packet_s / workers + last / 2,
        MEMORY: packets * DEFAULT_PACKET_SIZE / bandwidth,
        PARENT: task_count(packets, workers) * costs.task_s,
    }


def save_seconds(costs: Costs, packets: int, workers: int, bandwidth: float) -> Predicted:
    """Return the time of a whole save, and its limit."""
    parts = pass_seconds(costs, packets, workers, bandwidth)
    start = workers * costs.start_s
    rest = costs.command_s + start + packets * costs.finish_s
    parts[START] = start
    limit = max(parts, key=lambda name: parts[name])
    del parts[START]
    return Predicted(max(parts.values()) + rest, limit)


def shares_seconds(
    costs: Costs, packets: int, hosts: int, workers: int, bandwidth: float, link: float, size: float
) -> Predicted:
    """
    Return the time of a save in shares, one for each host, and of the commit of all of them.

    :param link: bytes a second from each host to the filesystem that all of them have
    :param size: bytes of a packet in the snapshot
    """
    each = -(-packets // hosts)
    share = save_seconds(costs, each, workers, bandwidth)
    moved = each * size / link
    found = Predicted(moved, LINK) if moved > share.seconds else share
    commit = costs.command_s + packets * costs.finish_s
    return Predicted(found.seconds + commit, found.limit)
