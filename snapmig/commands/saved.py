"""Output of the verbs for making a snapshot."""

from __future__ import annotations

import argparse

from snapmig.commands.output import percent, print_json, print_warnings, rate, say
from snapmig.geometry import PAGE_SIZE
from snapmig.operations.options.save import SaveResult
from snapmig.units import format_count, format_duration, format_size

__all__ = ("print_saved",)

_DONE = {
    "save": "saved",
    "receive": "received",
    "merge": "merged",
    "rebase": "rebased",
    "repack": "repacked",
}


def print_saved(
    options: argparse.Namespace, verb: str, result: SaveResult, share: str | None = None
) -> None:
    """
    Print warnings, and the result as lines for people or as JSON.

    :param share: ``K/N`` for one part of a snapshot yet to be committed
    """
    print_warnings(result.warnings)
    if options.json:
        print_json(verb, result)
    elif share is not None and not result.ram_size:
        why = "it has no packets, the guest is too small for so many shares"
        say(f"share {share} of {result.snapshot} is done: {why}")
    else:
        _print(verb, result, share)


def _print(verb: str, result: SaveResult, share: str | None) -> None:
    data_size = min(result.data_pages * PAGE_SIZE, result.ram_size)
    jobs = format_count(result.jobs, "job")
    say(f"{_DONE[verb]} {rate(result.ram_size, result.seconds)}, {jobs}")
    say(
        f"not zero  {format_size(data_size)} of {format_size(result.ram_size)} "
        f"({percent(data_size, result.ram_size)})"
    )
    if result.parent is not None:
        same, delta = result.same_pages * PAGE_SIZE, result.delta_pages * PAGE_SIZE
        say(
            f"parent    has {format_size(same)} ({percent(same, data_size)}), "
            f"{format_size(delta)} stored as differences"
        )
    say(
        f"stored    {format_size(result.stored_size)}, "
        f"{percent(result.stored_size, data_size)} of that"
    )
    if result.kept_packets is not None:
        say(f"kept      {format_count(result.kept_packets, 'packet')} of an interrupted run")
    if result.kept_parts is not None:
        say(f"kept      {format_count(result.kept_parts, 'part')} of an interrupted upload")
    say(f"by        {_coding(result)}")
    if result.via is not None:
        say(f"via       {_way(result)}")
    if result.pause_seconds is not None:
        paused = format_duration(result.pause_seconds)
        if result.changed_packets is not None:
            paused += f", {format_count(result.changed_packets, 'packet')} again"
        say(f"paused    {paused}")
    size = f"{format_size(result.disk_size)} on disk"
    if share is None:
        say(f"snapshot  {result.snapshot}, {size}")
    else:
        say(f"share     {share} of {result.snapshot}, with the others {size} so far")


def _way(result: SaveResult) -> str:
    if result.rounds is None:
        return str(result.via)
    again = format_size(result.rewritten_size or 0)
    return f"{result.via}, {format_count(result.rounds, 'round')}, {again} written again"


def _coding(result: SaveResult) -> str:
    # What compressed, in words: "zlib level 1 (isal)"; where nothing was, at no level. Of several
    # codecs their parts: "auto: 83 % zstd level 1, 17 % zstd level 3".
    shown = {name.replace(" ", " level "): size for name, size in result.codecs.items()}
    if len(shown) > 1 or (shown and result.compression == "auto"):
        total = sum(shown.values())
        parts = ", ".join(f"{percent(size, total)} {name}" for name, size in shown.items())
        words = f"{result.compression}: {parts}"
    else:
        words = next(iter(shown), result.compression)
    shows = result.accelerator and "zlib" in words
    return f"{words} ({result.accelerator})" if shows else words
