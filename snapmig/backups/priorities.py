"""Scheduling priorities of backups: this process and its workers step back."""

from __future__ import annotations

import os

from snapmig.backups.config import Config
from snapmig.backups.report import Report
from snapmig.system.libc import set_io_priority

__all__ = ("step_back",)


def step_back(config: Config, report: Report) -> None:
    """Set the configured priorities. A refusal by the system is a warning."""
    if config.nice is not None:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, config.nice)
        except OSError as error:
            report.warn(f"nice = {config.nice}: {error.strerror}")
    if config.ionice is not None:
        try:
            set_io_priority(config.ionice.name, config.ionice.level)
        except OSError as error:
            report.warn(f"ionice = {config.ionice.name!r}: {error.strerror}")
