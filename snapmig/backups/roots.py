"""
Roots of a guest's snapshots, in a file outside the repository.

A repository can't tell that somebody put an older state of it back, or took a snapshot away. A file
elsewhere can: it has the root of each snapshot that was made, and not yet removed by rules.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from snapmig.backups.stored import Contents
from snapmig.errors import SnapmigError
from snapmig.system.files import read_small
from snapmig.system.partial import write_file

__all__ = ("drop_roots", "keep_root", "root_problems")

_MAX_SIZE = 64 << 20
Roots = dict[str, str]


def keep_root(path: Path | None, name: str, root: str) -> None:
    """
    Keep the root of a new snapshot.

    :param path: the guest's file; None: they are not kept
    :raises SnapmigError: the file is damaged
    :raises OSError: it can't be written
    """
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(path, {**_read(path), name: root})


def drop_roots(path: Path | None, names: Iterable[str]) -> None:
    """Forget the roots of snapshots that the rules removed."""
    gone = set(names)
    if path is not None and gone:
        known = _read(path)
        if gone & set(known):
            _write(path, {name: root for name, root in known.items() if name not in gone})


def root_problems(path: Path | None, contents: Contents) -> Iterator[tuple[str, str]]:
    """Yield each snapshot that is not as it was made, or not there, with a sentence for it."""
    known = {} if path is None else _read(path)
    found = {item.name: item.root.hex() for item in contents.snapshots}
    unreadable = {item.name for item in contents.unreadable}
    for name, root in known.items():
        if name in unreadable:
            continue  # reported as such
        if name not in found:
            yield name, "is gone, and no rule removed it: its root is still kept"
        elif found[name] != root:
            message = f"root is {found[name]}, {root} was kept when it was made: it was replaced"
            yield name, message


def _read(path: Path) -> Roots:
    try:
        content = json.loads(read_small(path, _MAX_SIZE))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise SnapmigError(f"not a file of roots: {error}", path=str(path)) from error
    if not isinstance(content, dict) or not all(isinstance(v, str) for v in content.values()):
        raise SnapmigError("not a file of roots", path=str(path))
    return content


def _write(path: Path, roots: Roots) -> None:
    write_file(path, json.dumps(roots, indent=1).encode() + b"\n", force=True)
