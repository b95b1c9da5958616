"""Users of this host, by name or number."""

from __future__ import annotations

import os
import pwd

from snapmig.errors import UsageError

__all__ = ("parse_user",)


def parse_user(user: str | None) -> int:
    """
    Return a user's number.

    :param user: None for our own
    :raises UsageError: there is no such user
    """
    if user is None:
        return os.geteuid()
    if user.isascii() and user.isdigit() and int(user) < (1 << 32) - 1:
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise UsageError(f"there is no user {user!r}") from None
