"""Names of places: a path, or ``s3://BUCKET/KEY`` for an object."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from snapmig.errors import UsageError

__all__ = (
    "Location",
    "ObjectUrl",
    "beside",
    "is_near",
    "is_url",
    "parse_folder",
    "parse_location",
    "parse_new",
    "relative_name",
    "same_location",
)

_SCHEME = "s3://"
_BUCKET = r"[A-Za-z0-9._-]{1,255}"


class ObjectUrl(NamedTuple):
    """
    The place of an object.

    :param key: its name in the bucket, slashes included
    """

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{_SCHEME}{self.bucket}/{self.key}"

    @property
    def prefix(self) -> str:
        """Common start of its neighbours' keys: empty, or up to the last slash."""
        folder, slash, _name = self.key.rpartition("/")
        return folder + slash

    @property
    def name(self) -> str:
        """The key after the prefix."""
        return self.key.removeprefix(self.prefix)

    def beside(self, name: str) -> ObjectUrl:
        """Return the place of a neighbour."""
        return ObjectUrl(self.bucket, self.prefix + name)

    def inside(self, name: str) -> ObjectUrl:
        """Return a place below this name, as if it were a folder."""
        return ObjectUrl(self.bucket, f"{self.key}/{name}" if self.key else name)


Location = Path | ObjectUrl
"""Where a snapshot is, or is to be."""


def parse_location(text: str | os.PathLike[str] | ObjectUrl) -> Location:
    """
    Return a place by its name.

    :raises UsageError: ``s3://`` without a bucket or a key
    """
    if isinstance(text, ObjectUrl):
        return text
    name = os.fspath(text)
    if not name.startswith(_SCHEME):
        return Path(name)
    bucket, _slash, key = name.removeprefix(_SCHEME).partition("/")
    if not re.fullmatch(_BUCKET, bucket) or not key or key.endswith("/"):
        raise UsageError("expected s3://BUCKET/KEY, the name of an object", path=name)
    return ObjectUrl(bucket, key)


def parse_new(text: str | os.PathLike[str] | ObjectUrl) -> Location:
    """
    Return the place of a snapshot to make, by its name.

    :raises UsageError: as listed for :func:`check_new_name` and :func:`parse_location`
    """
    if not isinstance(text, ObjectUrl):
        check_new_name(os.fspath(text))
    return parse_location(text)


def check_new_name(text: str) -> None:
    """
    Refuse a name valid for a file, but apparently meant as something else.

    :raises UsageError: it is empty, a directory's, or begins like a URL or a guest
    """
    scheme, colon, rest = text.partition(":")
    if colon and scheme in ("s3", "qmp", "libvirt") and not text.startswith(_SCHEME):
        expected = "s3://BUCKET/KEY" if scheme == "s3" else "a file or s3://BUCKET/KEY"
        message = f"expected {expected}, or ./{scheme}:{rest} for a file of that name"
        raise UsageError(message, path=text)
    if not text or (text.endswith("/") and not is_url(text)):
        raise UsageError("expected the name of a file", path=text or "''")


def is_url(text: str) -> bool:
    """Tell if a name is, or is meant to be, the URL of an object."""
    return text.startswith(_SCHEME)


def parse_folder(text: str) -> Location:
    """
    Return a directory by its name, or the prefix of ``s3://BUCKET/PREFIX`` with a slash.

    :raises UsageError: ``s3://`` without a bucket
    """
    if not is_url(text):
        if text.startswith("s3:"):
            raise UsageError("expected s3://BUCKET/PREFIX", path=text)
        return Path(text)
    bucket, _slash, prefix = text.removeprefix(_SCHEME).partition("/")
    if not re.fullmatch(_BUCKET, bucket):
        raise UsageError("expected s3://BUCKET/PREFIX", path=text)
    return ObjectUrl(bucket, prefix.strip("/"))


def same_location(one: Location, other: Location) -> bool:
    """Tell if two names denote the same existing file, or the same object."""
    if isinstance(one, ObjectUrl) or isinstance(other, ObjectUrl):
        return one == other
    try:
        return one.samefile(other)
    except OSError:
        return False


def relative_name(location: Location, place: Location) -> str:
    """Return a snapshot's name as stored in one at ``place``: relative if near, else in full."""
    name = str(location if isinstance(location, ObjectUrl) else location.absolute())
    return _name_from(place, name) or name


def is_near(place: Location, name: str) -> bool:
    """
    Tell if a name leads no further than beside or below a place.

    Beside means in the same folder of a file, or under the same prefix of an object.

    :param name: as returned by :func:`relative_name`
    """
    return _name_from(place, name) is not None


def _name_from(place: Location, name: str) -> str | None:
    # A name relative to a place, None of what is not near it.
    if isinstance(place, ObjectUrl):
        start = f"{_SCHEME}{place.bucket}/{place.prefix}"
    else:
        start = f"{place.absolute().parent}/".replace("//", "/")
    rest = name.removeprefix(start)
    if rest.startswith((_SCHEME, "/")) or {"", ".", ".."} & set(rest.split("/")):
        return None
    return rest


def beside(place: Location, name: str) -> Location:
    """
    Return the place named by :func:`relative_name`.

    :raises UsageError: a malformed URL
    """
    if name.startswith((_SCHEME, "/")):
        return parse_location(name)
    if isinstance(place, ObjectUrl):
        return place.beside(name)
    return place.absolute().parent / name
