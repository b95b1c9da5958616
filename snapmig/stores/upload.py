"""
An object in the making: a temporary file whose parts are sent as soon as they are complete.

Workers write into it as into any file. Once all bytes of a part are final, a thread sends the part
and frees its space in the file, so that the file stays small. Parts known only at the end, with the
superblock, the index and page digests, go last. All parts but the last have the same size, as some
servers require. The object appears in one step when the server joins the parts. This holds for a
single part, too: some servers keep a truncated object when a plain put breaks off.

Only the thread that owns the save waits for the server, at its beginning and at its end. Everything
in between may be called by a thread that serves other jobs, too, and never waits.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from typing import IO, ClassVar

from snapmig.errors import DestinationExistsError, SnapmigError, StoreError
from snapmig.stores.failures import RefusedError
from snapmig.stores.location import ObjectUrl
from snapmig.stores.parts import Parts
from snapmig.stores.s3 import ObjectClient
from snapmig.stores.window import FIRST, LEAST, Window
from snapmig.system.files import Buffer, pwrite_all, write_error
from snapmig.system.signals import remark
from snapmig.units import format_size

__all__ = ("PartialObject", "part_size")

MIN_PART = 8 << 20
"""S3 wants 5 MiB at least."""
MAX_PARTS = 10_000
PLANNED_PARTS = 8_000
"""Into which a guest is cut where the least size gives more: attachments need some, too."""
MOST = 32
"""Parts that may be under way: S3 gives a connection some 90 MB/s."""
QUEUED = 4
"""Complete parts that may wait besides; then no more packets are encoded."""
ROOM = 4
"""Parts under way and waiting take no more than this part of what is free for temporary files."""
_START = 4096
"""Bytes by which our own object is known: its superblock, with a random id."""


def part_size(needed: int) -> int:
    """Return the part size for an object of up to this many bytes, in whole MiB."""
    step = 1 << 20
    return max(MIN_PART, -(-needed // (PLANNED_PARTS * step)) * step)


class PartialObject:
    """
    An object in the making, until :meth:`commit` gives it its name.

    Leaving the ``with`` block without a commit drops everything sent so far, unless it is to be
    gone on with.

    :param needed: largest possible size in bytes
    :param head: bytes at its start, known only at the end
    :param resume: keep what is sent; do not send again what an earlier upload sent
    :ivar window: how many parts may be under way
    :raises StoreError: the upload can't be begun
    """

    remote: ClassVar[bool] = True
    resumed = dropped = False

    def __init__(self, url: ObjectUrl, needed: int, head: int, *, resume: bool = False) -> None:
        self.path = url
        self.shown = f"temporary file of {url} in {tempfile.gettempdir()}"
        self.part_size = part_size(needed)
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="snapmig-", buffering=0)  # noqa: SIM115
        self.fd = self._file.fileno()
        self.window = Window(FIRST, LEAST, self._most())
        self.needed = min(needed, head + (QUEUED + LEAST + 2) * self.part_size)
        self._client = ObjectClient(url)
        self._token = secrets.token_hex(16)
        self._next = -(-head // self.part_size)
        self._early = range(self._next, self._next)
        self._parts: Parts | None = None
        self._size = 0
        self._resume = resume
        upload, self._there = (self._client.earlier() if resume else None) or ("", {})
        self._upload: str | None = upload or self._client.begin(self._token)

    def __enter__(self) -> PartialObject:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._upload is not None and self._resume:
            if self._parts is not None:
                self._parts.stop()
        elif self._upload is not None:
            _drop(self._client.url, self._upload, self._parts)
            remark(exc[1:2] and exc[1], f"what was sent of {self.path} was dropped")
        self._upload = None
        self._file.close()

    @property
    def has_room(self) -> bool:
        """
        True if more may be written now.

        :raises StoreError: a part could not be sent
        """
        return self._parts is None or self._parts.waiting < self.window.size + QUEUED

    def advance(self, end: int) -> None:
        """
        Declare everything between the head and an offset final.

        :raises StoreError: a part could not be sent
        """
        stop = max(end // self.part_size, self._next)
        if stop > self._next:
            parts = self._sender()
            for index in range(self._next, stop):
                parts.send(index, self.part_size)
            self._early = range(self._early.start, stop)
            self._next = stop

    def write(self, data: Buffer, offset: int) -> None:
        """Write at an offset."""
        try:
            pwrite_all(self.fd, data, offset)
        except OSError as error:
            raise write_error(error, self.shown, self.needed) from error
        self._size = max(self._size, offset + memoryview(data).nbytes)

    def resize(self, size: int) -> None:
        """Set the length."""
        self._file.truncate(size)
        self._size = size

    def sync(self) -> None:
        """Do nothing: the server makes a part durable before it answers."""

    def commit(self, *, force: bool) -> None:
        """
        Send the rest, and make the object appear.

        :raises DestinationExistsError: an object appeared there meanwhile, and ``force`` is not set
        :raises StoreError: it could not be sent
        """
        count = -(-self._size // self.part_size)
        if count > MAX_PARTS:
            size = format_size(self.part_size)
            message = f"has {count} parts of {size}, S3 takes {MAX_PARTS}"
            raise StoreError(message, path=str(self.path))
        parts = self._sender()
        left = [index for index in range(count) if index not in self._early]
        for index in reversed(left):  # the superblock's at last
            start = index * self.part_size
            parts.send(index, min(self.part_size, self._size - start))
        tags = parts.all_sent(count)
        # The condition at the end decides. This check is for servers that ignore it: there, an
        # object that appeared meanwhile is safe except for the moment between the two requests.
        if not force and self._client.is_there():
            raise self._taken()
        with self._once(force=force):
            self._client.complete(parts.upload, tags, create=not force)
        self._upload = None
        parts.stop()

    @property
    def kept_parts(self) -> int:
        """Parts that the server had already."""
        return 0 if self._parts is None else self._parts.kept

    @contextlib.contextmanager
    def _once(self, *, force: bool) -> Iterator[None]:
        # After a lost answer and a repeated request, our own object is in the way, or the upload is
        # gone.
        try:
            yield
        except RefusedError as error:
            if error.code not in (
                "PreconditionFailed",
                "ConditionalRequestConflict",
                "NoSuchUpload",
            ):
                raise
            if self._is_ours():
                return
            if force or error.code == "NoSuchUpload":
                raise
            raise self._taken() from error

    def _taken(self) -> DestinationExistsError:
        message = "was created by someone else meanwhile"
        return DestinationExistsError(message, path=str(self.path))

    def _is_ours(self) -> bool:
        try:
            found = self._client.start(_START)
            return found.token == self._token or found.start == os.pread(self.fd, _START, 0)
        except SnapmigError:
            return False

    def _sender(self) -> Parts:
        # Its threads start after the workers, because those can't be forked beside threads.
        if self._parts is None:
            upload = str(self._upload)
            self._parts = Parts(
                self._client, upload, self.fd, self.part_size, self._there, self.window
            )
        return self._parts

    def _most(self) -> int:
        space = os.fstatvfs(self.fd)
        parts = space.f_bavail * space.f_frsize // ROOM // self.part_size
        return max(LEAST, min(parts - QUEUED, MOST))


def _drop(url: ObjectUrl, upload: str, parts: Parts | None) -> None:
    # A part under way may arrive after the first request to drop them all.
    impatient = ObjectClient(url, patient=False)
    if parts is not None:
        parts.give_up()
        with contextlib.suppress(SnapmigError):
            impatient.abort(upload)
        parts.stop()
    with contextlib.suppress(SnapmigError):
        impatient.abort(upload)
