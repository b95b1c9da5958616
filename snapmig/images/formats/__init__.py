"""
Formats of guest RAM images, a module each; a new format is a new module here.

Each module has ``NAME``, ``recognises(file)`` by content, ``open_image(file)`` for a save, and
``plan_image(content)`` for a restore. If its images can be directories, it also recognises those
and finds the file with the pages in them.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from snapmig.errors import SnapmigError, UnsupportedError, UsageError
from snapmig.file_kinds import HEAD_SIZE, identify
from snapmig.geometry import PAGE_SIZE
from snapmig.images.file import ImageFile, opened_files
from snapmig.images.plan import Content, ImagePlan
from snapmig.images.source import ImageSource

__all__ = ("DirectoryFormat", "ImageFormat", "find_format", "format_names", "open_image")

_ANYWAY = "as format raw anything is saved byte by byte"


class ImageFormat(Protocol):
    """Interface of each module here."""

    NAME: str

    def recognises(self, file: ImageFile) -> bool:
        """Return True if a file's content is of this format."""

    def open_image(self, file: ImageFile) -> ImageSource:
        """Return a file as an image to save; takes ownership of the file."""

    def plan_image(self, content: Content) -> ImagePlan:
        """
        Return the plan for a file of this format from a snapshot.

        :raises UsageError: the snapshot lacks something needed by the format
        """


@runtime_checkable
class DirectoryFormat(Protocol):
    """Additional interface of modules for formats with directories."""

    NAME: str

    def recognises_directory(self, path: str) -> bool:
        """Return True if a directory's content is of this format."""

    def file_in_directory(self, path: str) -> str:
        """
        Return the file with the pages; opening it opens the whole image.

        :raises SnapmigError: it is missing, or there are several candidates
        """


@cache
def _formats() -> dict[str, ImageFormat]:
    modules = [import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    return {module.NAME: cast("ImageFormat", module) for module in modules}


def format_names(*, to_save: bool = False) -> tuple[str, ...]:
    """
    Return the names of all formats.

    :param to_save: leave out write-only formats
    """
    formats = _formats()
    names = [name for name in formats if not (to_save and hasattr(formats[name], "WRITE_ONLY"))]
    return tuple(sorted(names))


def find_format(name: str) -> ImageFormat:
    """
    Return a format by its name.

    :raises UsageError: there is none of this name
    """
    if name not in _formats():
        message = f"format is {name!r}, expected one of {', '.join(format_names())}"
        raise UsageError(message)
    return _formats()[name]


def open_image(path: str, name: str | None = None) -> ImageSource:
    """
    Open an image of a named format, or of the format recognised from its content.

    :raises UnsupportedError: no format was named, and the file does not look like RAM
    :raises SnapmigError: not a regular file, empty, or not of its format
    """
    named = not Path(path).is_dir()
    if not named:
        directory = _directory_format(path, name)
        path, name = directory.file_in_directory(path), directory.NAME
    # The user named a directory, not the targets of links in it.
    with opened_files([path], follow=named) as (file,):
        form = _format_of(file) if name is None else find_format(name)
        return form.open_image(file)


def _format_of(file: ImageFile) -> ImageFormat:
    for form in _formats().values():
        if form.recognises(file):
            return form
    # A file passes for raw without being named so only if it is nothing else, and whole pages.
    kind = identify(file.read(0, min(HEAD_SIZE, file.size)))
    if kind is not None:
        message = f"this is {kind.name}: {kind.advice}; {_ANYWAY}"
        raise UnsupportedError(message, path=file.shown)
    if file.size % PAGE_SIZE:
        message = f"file has {file.size} bytes, expected whole pages of {PAGE_SIZE}; {_ANYWAY}"
        raise UnsupportedError(message, path=file.shown)
    return _formats()["raw"]


def _directory_format(path: str, name: str | None) -> DirectoryFormat:
    if name is not None:
        form = find_format(name)
        if not isinstance(form, DirectoryFormat):
            raise SnapmigError(f"{name} images are files, this is a directory", path=path)
        return form
    for form in _formats().values():
        if isinstance(form, DirectoryFormat) and form.recognises_directory(path):
            return form
    raise SnapmigError("is a directory, and not an image of a known format", path=path)
