"""
Engines for deflate: programs and devices for either end of the same streams.

An engine is a module or a class with the interface of
:class:`~snapmig.encodings.engines.engine.Engine`; :data:`ENGINES` names them all.
"""

from __future__ import annotations

from collections.abc import Sequence

from snapmig.encodings.coders import EngineError
from snapmig.encodings.engines.engine import Engine, TrainableEngine
from snapmig.encodings.engines.qat.engine import QatEngine
from snapmig.encodings.engines.qpl.engine import QplEngine, QplSoftwareEngine
from snapmig.encodings.engines.software import ISAL, ZLIB
from snapmig.system.files import Buffer

__all__ = ("ENGINES", "SOFTWARE", "TRUSTED", "find_engine", "train")

SOFTWARE: Engine = ISAL
"""What does the work that another engine could not do."""

TRUSTED: tuple[Engine, ...] = (SOFTWARE, ZLIB)
"""The software of reference, which has all levels."""

ENGINES: dict[str, Engine] = {
    engine.name: engine for engine in (*TRUSTED, QplEngine(), QplSoftwareEngine(), QatEngine())
}
"""All engines by name; of those for devices, ``auto`` takes the first that is there and fits."""


def find_engine(name: str) -> Engine:
    """Return the engine of a checked name."""
    return ENGINES[name]


def train(name: str, samples: Sequence[Buffer]) -> bytes:
    """
    Return a histogram of samples, the basis of an engine's Huffman table.

    :raises EngineError: it failed, or makes none
    """
    engine = find_engine(name)
    if not isinstance(engine, TrainableEngine):
        raise EngineError("it has no tables to train")
    return engine.train(samples)
