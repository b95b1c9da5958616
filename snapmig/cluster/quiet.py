"""Suppression of library log lines beside our own messages."""

from __future__ import annotations

import logging

__all__ = ("Quiet",)


class Quiet:
    """Silence Dask's log of lost connections inside a ``with`` block."""

    def __enter__(self) -> None:
        loggers = [logging.getLogger(name) for name in ("distributed", "tornado", "asyncio")]
        loggers += [
            logging.getLogger(name)
            for name in list(logging.root.manager.loggerDict)
            if name.startswith(("distributed.", "tornado."))
        ]
        self._before = [(logger, logger.level) for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)

    def __exit__(self, *_exc: object) -> None:
        for logger, level in self._before:
            logger.setLevel(level)
