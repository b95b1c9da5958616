"""Folders of snapshots, such as a repository of backups, as a tree in which each is a folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from snapmig.mounts.tree import Node
from snapmig.operations.runs.mounted_files import escaped
from snapmig.operations.runs.open_snapshots import OpenSnapshots, ShelvedFolder
from snapmig.stores.location import ObjectUrl
from snapmig.stores.opening import load_s3

__all__ = ("DirectoryFolder", "PrefixFolder")

_SUFFIX = ".snap"
_MOST_OBJECTS = 100_000


class DirectoryFolder:
    """
    A directory: its snapshots, files that end in ``.snap``, and directories; links are left out.

    :param place: the directory
    """

    def __init__(self, place: Path, snapshots: OpenSnapshots) -> None:
        self._place = place
        self._snapshots = snapshots

    @property
    def modified_ns(self) -> int:
        """Time of the directory's last change."""
        return self._place.stat().st_mtime_ns

    def names(self) -> Iterable[str]:
        """Return the names of snapshots, without their suffix, and of directories."""
        for entry in self._place.iterdir():
            if entry.is_symlink() or entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield entry.name
            elif entry.is_file() and entry.name.endswith(_SUFFIX):
                yield entry.name.removesuffix(_SUFFIX)

    def child(self, name: str) -> Node:
        """Return a snapshot, opened now, or a directory."""
        if name.startswith("."):
            raise KeyError(name)
        snapshot, folder = self._place / f"{name}{_SUFFIX}", self._place / name
        if snapshot.is_file() and not snapshot.is_symlink():
            return ShelvedFolder(self._snapshots, str(snapshot))
        if folder.is_dir() and not folder.is_symlink():
            return DirectoryFolder(folder, self._snapshots)
        raise KeyError(name)


class PrefixFolder:
    """
    A key prefix in object storage: its objects that end in ``.snap``, and the prefixes below.

    :param place: the prefix, without a slash at its end
    """

    modified_ns = 0  # a prefix has no time

    def __init__(self, place: ObjectUrl, snapshots: OpenSnapshots) -> None:
        self._place = place
        self._snapshots = snapshots

    def names(self) -> Iterable[str]:
        """Return the names of snapshots, without their suffix, and of prefixes."""
        return self._listed()

    def child(self, name: str) -> Node:
        """Return a snapshot, opened now, or a prefix."""
        found = self._listed()[name]
        if found.endswith("/"):
            return PrefixFolder(self._place.inside(found[:-1]), self._snapshots)
        return ShelvedFolder(self._snapshots, str(self._place.inside(found)))

    def _listed(self) -> dict[str, str]:
        # Names in the tree, and what the server has.
        client = load_s3().PrefixClient(self._place.inside("list"))
        found = {}
        for name in client.entries(_MOST_OBJECTS):
            if name.endswith("/") and not name.startswith("."):
                found[escaped(name[:-1])] = name
            elif name.endswith(_SUFFIX) and not name.startswith("."):
                found[escaped(name.removesuffix(_SUFFIX))] = name
        return found
