"""Choice of the deflate engine: the user's, or the best that this host supports."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from snapmig.container.format import Encoding
from snapmig.container.reader import SnapshotFile
from snapmig.encodings.compressions import (
    AUTO_COMPRESSION,
    Codec,
    PacketSettings,
    ReadSettings,
    software_with,
    usable_codecs,
)
from snapmig.encodings.engines import ENGINES, SIGNS, SOFTWARE, find_engine
from snapmig.encodings.engines.engine import DeflateSettings, Engine
from snapmig.errors import SnapmigError, UsageError
from snapmig.operations.options.parse import (
    parse_compression,
    parse_depth,
    parse_level,
    parse_window,
)

if TYPE_CHECKING:
    from snapmig.encodings.engines.facts import EngineFacts

__all__ = ("AUTO", "Coding", "choose_coding", "choose_to_read", "failure_warnings")

AUTO: Final = "auto"


class Coding(NamedTuple):
    """
    The coding of a save's packets.

    :param notes: remarks for the user
    """

    settings: PacketSettings
    notes: tuple[str, ...] = ()


def choose_coding(
    compression: str,
    accelerator: str,
    level: int | str | None,
    window: str | None,
    huffman: str,
    depth: int | None,
) -> Coding:
    """
    Return the coding for a user's options.

    :raises UsageError: an invalid option or combination
    :raises SnapmigError: a requested engine or library can't be used on this host
    """
    if compression == AUTO_COMPRESSION:
        return _follow_destination(accelerator, level, window, huffman, depth)
    known = parse_compression(compression)
    number = parse_level(level, known)
    choices = known.steps if number is None else ()
    wanted = DeflateSettings(
        level=known.default_level if number is None else number,
        window_bits=parse_window(window, known),
        depth=parse_depth(depth),
        huffman=huffman,
    )
    if known.encoding != Encoding.DEFLATE:
        if accelerator != AUTO or huffman != "dynamic":
            raise UsageError(f"accelerators and their tables are for zlib, not for {known.name}")
        return Coding(PacketSettings(known.name, SOFTWARE.name, wanted, choices))
    engine, notes = _engine_to_save(accelerator, wanted)
    if engine is not SOFTWARE or huffman != "dynamic":  # most saves need no facts
        wanted = _within(wanted, engine)
    settings = PacketSettings(known.name, engine.name, wanted, _fitting(choices, engine))
    return Coding(settings, notes)


def _within(wanted: DeflateSettings, engine: Engine) -> DeflateSettings:
    # What an engine can't exceed anyway is recorded, so that its like can read the snapshot.
    facts = engine.facts()
    if wanted.huffman not in facts.huffman:
        names = ", ".join(facts.huffman)
        raise UsageError(f"huffman is {wanted.huffman!r}, {engine.name} has {names}")
    return wanted._replace(window_bits=min(wanted.window_bits, facts.compress_window_bits))


def _fitting(codecs: Sequence[Codec], engine: Engine) -> tuple[Codec, ...]:
    # Without the levels of zlib that neither the engine nor software in its place has.
    return tuple(
        codec
        for codec in codecs
        if codec.encoding != Encoding.DEFLATE or engine.trusted or codec.level in engine.levels
    )


def _follow_destination(
    accelerator: str, level: int | str | None, window: str | None, huffman: str, depth: int | None
) -> Coding:
    if level not in (None, AUTO):
        message = f"level is {level}, and compression auto chooses it: name a compression"
        raise UsageError(message)
    coding = choose_coding("zlib", accelerator, None, window, huffman, depth)
    choices = _fitting(usable_codecs(), find_engine(coding.settings.engine))
    settings = coding.settings._replace(compression=AUTO_COMPRESSION, choices=choices)
    return coding._replace(settings=settings)


def choose_to_read(
    snapshot: SnapshotFile, accelerator: str, depth: int | None = None
) -> tuple[ReadSettings, list[str]]:
    """
    Return the settings for decoding a snapshot's packets, and remarks for the user.

    Engines with a smaller window than the snapshot's streams may need are passed over.

    :raises UsageError: no such engine
    :raises SnapmigError: an engine requested by name can't be used on this host
    """
    window_bits = snapshot.superblock.window_bits
    if not snapshot.has_deflate:
        if accelerator != AUTO:
            _named(accelerator)
        return ReadSettings(window_bits), []
    if accelerator == AUTO:
        return ReadSettings(window_bits, _fastest_to_read(window_bits).name, depth), []
    engine = _named(accelerator)
    facts = engine.facts()
    _check_usable(facts)
    if engine.max_window_bits < window_bits:
        message = (
            f"{accelerator} decodes a window of {1 << engine.max_window_bits >> 10} KiB and the "
            f"snapshot needs {1 << window_bits >> 10} KiB, so {SOFTWARE.name} decodes it"
        )
        return ReadSettings(window_bits), [message]
    return ReadSettings(window_bits, engine.name, depth), list(_note(facts))


def failure_warnings(notes: list[str], packets: int) -> list[str]:
    """Return warnings about packets redone in software, given the reasons."""
    if not packets:
        return list(notes)
    plural = "packet was" if packets == 1 else "packets were"
    return [f"{packets} {plural} done in software: {'; '.join(notes)}"]


def _named(accelerator: str) -> Engine:
    if accelerator not in ENGINES:
        names = ", ".join([AUTO, *ENGINES])
        raise UsageError(f"accelerator is {accelerator!r}, expected one of {names}")
    return find_engine(accelerator)


def _check_usable(facts: EngineFacts) -> None:
    if facts.problem is not None and facts.note is None:
        remedy = f"; {facts.remedy}" if facts.remedy else ""
        raise SnapmigError(f"accelerator {facts.name} can't be used: {facts.problem}{remedy}")


def _note(facts: EngineFacts) -> tuple[str, ...]:
    return () if facts.note is None else (f"{facts.name}: {facts.note}",)


def _engine_to_save(accelerator: str, wanted: DeflateSettings) -> tuple[Engine, tuple[str, ...]]:
    if accelerator == AUTO:
        engine = _fastest_to_save(wanted)
        return engine, _slower_note(engine, wanted.level)
    engine = _named(accelerator)
    facts = engine.facts()
    if wanted.level not in engine.levels:
        message = (
            f"level is {wanted.level}, {accelerator} has {engine.levels[0]} to {engine.levels[-1]}"
        )
        raise UsageError(message)
    _check_usable(facts)
    if facts.compress_window_bits > wanted.window_bits and not facts.keeps_to_window:
        message = f"{accelerator} can't keep to a window of {1 << wanted.window_bits >> 10} KiB"
        raise UsageError(message)
    return engine, _note(facts)


def _slower_note(engine: Engine, level: int) -> tuple[str, ...]:
    # Said where nobody asked for it by name: 2 GiB took 33 s at level 6, and 2.3 s at level 1.
    if not engine.trusted or engine is SOFTWARE:
        return ()
    levels = f"{SOFTWARE.levels[0]} to {SOFTWARE.levels[-1]}"
    words = (
        f"ISA-L has levels {levels} of zlib, so Python's own zlib compresses at level {level}, "
        f"which takes many times as long; accelerator {engine.name} takes it without this warning"
    )
    return (words,)


def _fastest_to_save(wanted: DeflateSettings) -> Engine:
    for engine in _devices():
        facts = engine.facts()
        fits = facts.keeps_to_window or facts.compress_window_bits <= wanted.window_bits
        if wanted.level in engine.levels and wanted.huffman in facts.huffman and fits:
            return engine
    return software_with(wanted.level)


def _fastest_to_read(window_bits: int) -> Engine:
    usable = (engine for engine in _devices() if engine.max_window_bits >= window_bits)
    return next(usable, SOFTWARE)


def _devices() -> list[Engine]:
    # Engines of hardware that is here, ready and open to this user. Most hosts have none, and see
    # so in microseconds, where a look for libraries and devices takes 15 ms.
    present = (name for name, signs in SIGNS.items() if any(map(os.path.exists, signs)))
    known = ((engine, engine.facts()) for engine in map(find_engine, present))
    return [e for e, facts in known if facts.hardware and facts.usable and facts.note is None]
