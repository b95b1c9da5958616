"""Errors of backups, beside those of :mod:`snapmig.errors`."""

from __future__ import annotations

from snapmig.errors import SnapmigError, UsageError

__all__ = ("ConfigError", "HookError", "LockedError", "RepositoryError")


class ConfigError(UsageError):
    """Invalid configuration; the message has the place."""


class LockedError(SnapmigError):
    """Another run holds the guest's lock and did not release it in time."""

    exit_code = 7


class HookError(SnapmigError):
    """A hook could not be started, failed, or took too long."""


class RepositoryError(SnapmigError):
    """The repository, or the requested part of it, does not exist."""
