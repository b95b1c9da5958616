"""
Engines for deflate: programs and devices for either end of the same streams.

An engine is a module or a class with the interface of
:class:`~snapmig.encodings.engines.engine.Engine`; :data:`ENGINES` names them all. Those of devices,
which few hosts have, are imported when one is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from snapmig.encodings.coders import EngineError
from snapmig.encodings.engines.engine import Engine, TrainableEngine
from snapmig.encodings.engines.software import ISAL, ZLIB
from snapmig.system.files import Buffer

__all__ = ("ENGINES", "SIGNS", "SOFTWARE", "TRUSTED", "find_engine", "train")

SOFTWARE: Engine = ISAL
"""What does the work that another engine could not do."""

TRUSTED: tuple[Engine, ...] = (SOFTWARE, ZLIB)
"""The software of reference, which has all levels."""


def _qpl() -> Engine:
    from snapmig.encodings.engines.qpl.engine import QplEngine  # noqa: PLC0415

    return QplEngine()


def _qpl_software() -> Engine:
    from snapmig.encodings.engines.qpl.engine import QplSoftwareEngine  # noqa: PLC0415

    return QplSoftwareEngine()


def _qat() -> Engine:
    from snapmig.encodings.engines.qat.engine import QatEngine  # noqa: PLC0415

    return QatEngine()


ENGINES: dict[str, Callable[[], Engine]] = {
    "isal": lambda: ISAL,
    "python": lambda: ZLIB,
    "qpl": _qpl,
    "qpl:software": _qpl_software,
    "qat": _qat,
}
"""All engines by name."""

SIGNS = {"qpl": ("/sys/bus/dsa/devices",), "qat": ("/dev/vfio", "/dev/qat_adf_ctl")}
"""
Paths, one of which exists if an engine's device is present; ``auto`` takes the first engine that is
there and fits.
"""


def find_engine(name: str) -> Engine:
    """Return the engine of a checked name."""
    return ENGINES[name]()


def train(name: str, samples: Sequence[Buffer]) -> bytes:
    """
    Return a histogram of samples, the basis of an engine's Huffman table.

    :raises EngineError: it failed, or makes none
    """
    engine = find_engine(name)
    if not isinstance(engine, TrainableEngine):
        raise EngineError("it has no tables to train")
    return engine.train(samples)
