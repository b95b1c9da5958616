"""``accelerators``: which engines for deflate this host has, what they can do, and how fast."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from snapmig.checksums import xxh3_128
from snapmig.encodings.coders import Coder, Done, EngineError
from snapmig.encodings.engines import ENGINES
from snapmig.encodings.engines.engine import DeflateSettings, Engine, EngineFacts
from snapmig.geometry import PAGE_SIZE
from snapmig.pages import Bytes

__all__ = ("AcceleratorInfo", "Speed", "accelerators")

SAMPLE_PACKETS = 64
PACKET_PAGES = 128
_SEED = 20


@dataclass(frozen=True, slots=True)
class Speed:
    """
    What an engine does in one process on a sample like guest RAM.

    :param compress: bytes of pages a second
    :param decompress: the same, of its own streams
    :param ratio: stored bytes as a share of the pages
    :param level: at which
    """

    compress: float
    decompress: float
    ratio: float
    level: int


@dataclass(frozen=True, slots=True)
class AcceleratorInfo(EngineFacts):
    """
    An engine on this host.

    :param speed: where it was measured, and the engine works
    :param speed_problem: why it was not
    """

    speed: Speed | None = None
    speed_problem: str | None = None


def accelerators(*, measure: bool = False) -> list[AcceleratorInfo]:
    """
    Return all engines, those that this host can use and those it can't, each with the reason.

    :param measure: also measure those that work, which takes seconds
    """
    sample = _sample() if measure else []
    return [_look_at(engine, sample) for engine in ENGINES.values()]


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
            raise EngineError("what it decompressed is not what it had compressed")
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
    # Pages like those of a guest: text and tables of few different words, with some noise and
    # zeros between them, which deflate brings to about a third.
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
