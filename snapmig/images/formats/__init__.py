"""
Formats of guest RAM images, a module each; a new format is a new module here.

A module has the name of its format with ``_`` for ``-``, so that the names of all formats are known
before any of them is imported: a save or restore needs one, and each takes milliseconds. It has
``NAME``, ``open_image(file)`` for a save, and ``plan_image(content)`` for a restore. The mark of
its files stands in :mod:`snapmig.file_kinds`. If its images are files beside others in directories,
it recognises both, and finds the file with the pages in a directory.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from snapmig.errors import SnapmigError, UnsupportedError, UsageError
from snapmig.file_kinds import HEAD_SIZE, FileKind, identify
from snapmig.geometry import PAGE_SIZE
from snapmig.images.file import ImageFile, Report, closed_on_error, opened_files
from snapmig.images.plan import Content, ImagePlan
from snapmig.images.source import ImageSource

__all__ = ("DirectoryFormat", "ImageFormat", "find_format", "format_names", "open_image")

_IN_DIRECTORIES = ("cloud-hypervisor", "firecracker")
"""Those that are :class:`DirectoryFormat`."""
_WRITE_ONLY = ("raw-by-address",)
_ANYWAY = "as format raw anything is saved byte by byte"


class ImageFormat(Protocol):
    """Interface of each module here."""

    NAME: str

    def open_image(self, file: ImageFile) -> ImageSource:
        """Return a file as an image to save; takes ownership of the file."""

    def plan_image(self, content: Content) -> ImagePlan:
        """
        Return the plan for a file of this format from a snapshot.

        :raises UsageError: the snapshot lacks something needed by the format
        """


@runtime_checkable
class DirectoryFormat(Protocol):
    """Additional interface of modules for formats with directories, whose files have no mark."""

    NAME: str

    def recognises(self, file: ImageFile) -> bool:
        """Return True if the files beside it show that a file is of this format."""

    def recognises_directory(self, path: str) -> bool:
        """Return True if a directory's content is of this format."""

    def file_in_directory(self, path: str) -> str:
        """
        Return the file with the pages; opening it opens the whole image.

        :raises SnapmigError: it is missing, or there are several candidates
        """


@cache
def _names() -> tuple[str, ...]:
    modules = (info.name for info in pkgutil.iter_modules(__path__))
    return tuple(sorted(module.replace("_", "-") for module in modules))


def _directory_formats() -> Iterator[DirectoryFormat]:
    return (cast("DirectoryFormat", find_format(name)) for name in _IN_DIRECTORIES)


def format_names(*, to_save: bool = False) -> tuple[str, ...]:
    """
    Return the names of all formats.

    :param to_save: leave out write-only formats
    """
    return tuple(name for name in _names() if not (to_save and name in _WRITE_ONLY))


def find_format(name: str) -> ImageFormat:
    """
    Return a format by its name.

    :raises UsageError: there is none of this name
    """
    if name not in _names():
        raise UsageError(f"format is {name!r}, expected one of {', '.join(_names())}")
    module = import_module(f"{__name__}.{name.replace('-', '_')}")
    return cast("ImageFormat", module)


def open_image(
    path: str, name: str | None = None, report: Report = lambda _done, _total: None
) -> ImageSource:
    """
    Open an image of a named format, or of the format recognised from its content.

    :param report: called with bytes done and their total while a packed file is unpacked
    :raises UnsupportedError: no format was named, and the file does not look like RAM
    :raises SnapmigError: not a regular file, empty, or not of its format
    """
    named = not Path(path).is_dir()
    if not named:
        directory = _directory_format(path, name)
        path, name = directory.file_in_directory(path), directory.NAME
    # The user named a directory, not the targets of links in it.
    with opened_files([path], follow=named) as (file,):
        file.report = report
        if name is not None:
            return find_format(name).open_image(file)
        kind = identify(file.read(0, min(HEAD_SIZE, file.size)))
        form = _recognise(file, kind)
        if form is None and kind is not None and kind.unpacker:
            return _open_packed(file, kind)
        return (form or _raw_format(file, kind)).open_image(file)


def _recognise(file: ImageFile, kind: FileKind | None) -> ImageFormat | None:
    if kind is not None and kind.format:
        return find_format(kind.format)
    found = next((form.NAME for form in _directory_formats() if form.recognises(file)), None)
    return None if found is None else find_format(found)


def _raw_format(file: ImageFile, kind: FileKind | None) -> ImageFormat:
    # A file passes for raw without being named so only if it is nothing else, and whole pages.
    if kind is not None:
        message = f"this is {kind.name}: {kind.advice}; {_ANYWAY}"
        raise UnsupportedError(message, path=file.shown)
    if file.size % PAGE_SIZE:
        message = f"file has {file.size} bytes, expected whole pages of {PAGE_SIZE}; {_ANYWAY}"
        raise UnsupportedError(message, path=file.shown)
    return find_format("raw")


def _open_packed(file: ImageFile, packed: FileKind) -> ImageSource:
    looked = False

    def refuse_others(plain: ImageFile, size: int) -> None:
        nonlocal looked
        if looked:
            return
        looked = size >= HEAD_SIZE
        kind = identify(plain.read(0, min(HEAD_SIZE, size)))
        if kind is not None and not kind.format:
            message = f"this is {packed.name} with {kind.name} inside: {kind.advice}"
            raise UnsupportedError(message, path=plain.shown)

    from snapmig.images.unpacking import unpack  # noqa: PLC0415 - rare

    with closed_on_error(unpack(file, 0, packed.unpacker, refuse_others)) as plain:
        refuse_others(plain, plain.size)
        form = _recognise(plain, identify(plain.read(0, min(HEAD_SIZE, plain.size))))
        if form is None and plain.size % PAGE_SIZE:
            message = (
                f"this is {packed.name} with {plain.size} bytes inside, expected whole pages of "
                f"{PAGE_SIZE}; {packed.advice} to save it with --format raw"
            )
            raise UnsupportedError(message, path=plain.shown)
        return (form or find_format("raw")).open_image(plain)


def _directory_format(path: str, name: str | None) -> DirectoryFormat:
    if name is not None:
        form = find_format(name)
        if not isinstance(form, DirectoryFormat):
            raise SnapmigError(f"{name} images are files, this is a directory", path=path)
        return form
    found = (each for each in _directory_formats() if each.recognises_directory(path))
    if (known := next(found, None)) is not None:
        return known
    raise SnapmigError("is a directory, and not an image of a known format", path=path)
