"""``accelerators``: the engines for deflate on this host, their abilities and their speed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from snapmig.checksums import xxh3_128
from snapmig.encodings.coders import Coder, Done, EngineError
from snapmig.encodings.engines import ENGINES, find_engine
from snapmig.encodings.engines.engine import DeflateSettings, Engine
from snapmig.encodings.engines.facts import EngineFacts
from snapmig.geometry import PAGE_SIZE
from snapmig.pages import Bytes

__all__ = ("AcceleratorInfo", "Speed", "accelerators")

SAMPLE_PACKETS = 64
PACKET_PAGES = 128
_SEED = 20


@dataclass(frozen=True, slots=True)
class Speed:
    """
    The speed of an engine, measured in one process on a sample similar to guest RAM.

    :param compress: bytes of pages per second
    :param decompress: the same, of its own streams
    :param ratio: stored bytes divided by bytes of pages
    :param level: the compression level measured
    """

    compress: float
    decompress: float
    ratio: float
    level: int


@dataclass(frozen=True, slots=True)
class AcceleratorInfo(EngineFacts):
    """
    An engine on this host.

    :param speed: None unless measured and usable
    :param speed_problem: the reason for a failed measurement
    """

    speed: Speed | None = None
    speed_problem: str | None = None


def accelerators(*, measure: bool = False) -> list[AcceleratorInfo]:
    """
    Return all engines, usable on this host or not; the others have a reason.

    :param measure: also measure the usable ones; takes seconds
    :returns: an :class:`AcceleratorInfo` each, with speeds in bytes per second
    """
    sample = _sample() if measure else []
    return [_look_at(find_engine(name), sample) for name in ENGINES]


def _look_at(engine: Engine, sample: Sequence[Bytes]) -> AcceleratorInfo:
    facts = engine.facts()
    known = {name: getattr(facts, name) for name in EngineFacts.__slots__}
    if not sample or not facts.usable:
        return AcceleratorInfo(**known)
    try:
        return AcceleratorInfo(**known, speed=_measure(engine, sample))
    except EngineError as error:
        return AcceleratorInfo(**known, speed_problem=str(error))


def _measure(engine: Engine, sample: Sequence[Bytes]) -> Speed:
    level = 1 if 1 in engine.levels else engine.levels[0]
    window_bits = min(15, engine.facts().compress_window_bits)
    settings = DeflateSettings(level=level, window_bits=window_bits)
    plain = sum(data.nbytes for data in sample)
    coder = engine.compressor(settings)
    started = time.perf_counter()
    done = _run(coder, [(data, 2 * data.nbytes) for data in sample])
    compress_s = time.perf_counter() - started
    coder = engine.decompressor(window_bits)
    started = time.perf_counter()
    back = _run(coder, [(done[n], data.nbytes) for n, data in enumerate(sample)])
    decompress_s = time.perf_counter() - started
    for data, result in zip(sample, back, strict=True):
        if xxh3_128(result) != xxh3_128(data.data):
            raise EngineError("decompressing its own output gives other bytes")
    stored = sum(map(len, done))
    return Speed(plain / compress_s, plain / decompress_s, stored / plain, level)


def _run(coder: Coder, jobs: Sequence[tuple[object, int]]) -> list[bytes]:
    results = [b""] * len(jobs)

    def take(done: Done) -> None:
        if done.error is not None or done.result is None:
            raise EngineError(f"failed on a sample: {done.error or 'no result'}")
        results[done.key] = bytes(done.result)

    flying = 0
    for key, (data, size) in enumerate(jobs):
        coder.submit(key, data, size)
        flying += 1
        if flying >= coder.depth:
            take(coder.reap())
            flying -= 1
    for _ in range(flying):
        take(coder.reap())
    return results


def _sample() -> list[Bytes]:
    # Pages like a guest's: text and tables of few different words, with some noise and zeros in
    # between. Deflate shrinks them to about a third.
    random = np.random.default_rng(_SEED)
    words = random.integers(0, 256, (4096, 8), np.uint8)
    words[:, 5:] = 0
    packets = []
    for _ in range(SAMPLE_PACKETS):
        picked = words[random.zipf(1.3, PACKET_PAGES * PAGE_SIZE // 8) % len(words)]
        noise = random.random(len(picked)) < 0.1  # a tenth of the words
        picked[noise] = random.integers(0, 256, (int(noise.sum()), 8), np.uint8)
        packets.append(picked.reshape(PACKET_PAGES, PAGE_SIZE))
    return packets
