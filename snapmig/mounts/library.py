"""The FUSE library and its helper program, with clear errors where one of them is missing."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path
from typing import Any

from snapmig.errors import SnapmigError

__all__ = ("HELPER", "check_device", "load_fuse")

HELPER = "fusermount3"

_DEVICE = "/dev/fuse"
_BROKEN = ("3.17.0", "3.17.1", "3.17.2")


def load_fuse() -> Any:
    """
    Return mfusepy with libfuse 3.

    :raises SnapmigError: one of them is missing, or a version that can't be used
    """
    try:
        import mfusepy  # noqa: PLC0415 - an extra
    except ImportError as error:
        message = "mounts need the Python package mfusepy: pip install 'snapmig[fuse]'"
        raise SnapmigError(message) from error
    except (AttributeError, OSError) as error:  # its words for a missing or an ancient library
        raise _no_library() from error
    if mfusepy.fuse_version_major != 3:
        raise _no_library()
    version = _exact_version(mfusepy)
    if version in _BROKEN:
        message = (
            f"libfuse is {version}, which ends programs that map a file of the mount: expected "
            "3.17.3 or newer, or 3.16"
        )
        raise SnapmigError(message)
    return mfusepy


def check_device() -> None:
    """
    Check that this user can mount.

    :raises SnapmigError: the helper program or the kernel's device is missing, or not for us
    """
    if shutil.which(HELPER) is None:
        raise SnapmigError(f"mounts need {HELPER}, which is not installed: apt install fuse3")
    if not Path(_DEVICE).exists():
        message = "is not there: the kernel module fuse is not loaded, or the container hides it"
        raise SnapmigError(message, path=_DEVICE)


def _no_library() -> SnapmigError:
    return SnapmigError("mounts need libfuse 3, which is not installed: apt install fuse3")


def _exact_version(library: Any) -> str:
    try:
        function = library._libfuse.fuse_pkgversion
    except AttributeError:  # before 3.0.2
        return ""
    function.restype = ctypes.c_char_p
    return (function() or b"").decode("ascii", "replace")
