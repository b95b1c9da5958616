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
import mmap
import os
import queue
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import IO, ClassVar

from snapmig.errors import DestinationExistsError, SnapmigError, StoreError
from snapmig.stores.failures import RefusedError
from snapmig.stores.location import ObjectUrl
from snapmig.stores.s3 import ObjectClient
from snapmig.system.files import Buffer, pwrite_all, write_error
from snapmig.system.libc import punch_hole
from snapmig.system.limits import start_thread
from snapmig.system.signals import raise_if_cancelled

__all__ = ("PartialObject", "part_size")

MIN_PART = 8 << 20
"""S3 wants 5 MiB at least."""
MAX_PARTS = 10_000
PLANNED_PARTS = 8_000
"""Into which a guest is cut where the least size gives more: attachments need some, too."""
THREADS = 4
QUEUED = 8
"""Complete parts that may wait for a thread; then no more packets are encoded."""
_END_S = 1.0
"""For parts on their way when an upload is given up; what comes later is dropped by the server."""


def part_size(needed: int) -> int:
    """Return the part size for an object of up to this many bytes, in whole MiB."""
    step = 1 << 20
    return max(MIN_PART, -(-needed // (PLANNED_PARTS * step)) * step)


class PartialObject:
    """
    An object in the making, until :meth:`commit` gives it its name.

    Leaving the ``with`` block without a commit drops everything sent so far.

    :param needed: largest possible size in bytes
    :param head: bytes at its start, known only at the end
    :raises StoreError: the upload can't be begun
    """

    remote: ClassVar[bool] = True

    def __init__(self, url: ObjectUrl, needed: int, head: int) -> None:
        self.path = url
        self.shown = f"temporary file of {url} in {tempfile.gettempdir()}"
        self.part_size = part_size(needed)
        self._file: IO[bytes] = tempfile.TemporaryFile(prefix="snapmig-", buffering=0)  # noqa: SIM115
        self.fd = self._file.fileno()
        self.needed = min(needed, head + (QUEUED + THREADS + 2) * self.part_size)
        self._client = ObjectClient(url)
        self._token = secrets.token_hex(16)
        self._next = -(-head // self.part_size)
        self._early = range(self._next, self._next)
        self._parts: _Parts | None = None
        self._size = 0
        self._upload: str | None = self._client.begin(self._token)

    def __enter__(self) -> PartialObject:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self._upload is not None:
            _drop(self._client.url, self._upload, self._parts)
            self._upload = self._parts = None
        self._file.close()

    @property
    def has_room(self) -> bool:
        """
        True if more may be written now.

        :raises StoreError: a part could not be sent
        """
        return self._parts is None or self._parts.waiting < QUEUED

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
            message = f"has {count} parts of {self.part_size} bytes, S3 takes {MAX_PARTS}"
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
        self._upload = self._parts = None
        parts.stop()

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
            return self._client.start(1).token == self._token
        except SnapmigError:
            return False

    def _sender(self) -> _Parts:
        # Its threads start after the workers, because those can't be forked beside threads.
        if self._parts is None:
            upload = str(self._upload)
            self._parts = _Parts(self._client, upload, self.fd, self.part_size)
        return self._parts


def _drop(url: ObjectUrl, upload: str, parts: _Parts | None) -> None:
    # A part under way may arrive after the first request to drop them all.
    impatient = ObjectClient(url, patient=False)
    if parts is not None:
        parts.give_up()
        with contextlib.suppress(SnapmigError):
            impatient.abort(upload)
        parts.stop()
    with contextlib.suppress(SnapmigError):
        impatient.abort(upload)


class _Parts:
    # Threads that send parts. They are daemons, so that one waiting for the network does not keep
    # the process alive.
    def __init__(self, client: ObjectClient, upload: str, fd: int, size: int) -> None:
        self.upload = upload
        self._client = client
        self._fd = os.dup(fd)
        self._part_size = size
        self._tags: dict[int, str] = {}
        self._sent = 0
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._queue: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name="snapmig-send", daemon=True)
            for _ in range(THREADS)
        ]
        for thread in self._threads:
            start_thread(thread)

    @property
    def waiting(self) -> int:
        with self._changed:
            self._raise()
            return self._sent - len(self._tags)

    def send(self, index: int, length: int) -> None:
        with self._changed:
            self._raise()
            self._sent += 1
        self._queue.put((index, length))

    def all_sent(self, count: int) -> list[str]:
        with self._changed:
            while len(self._tags) < self._sent and self._error is None:
                raise_if_cancelled()
                self._changed.wait(0.5)
            self._raise()
            return [self._tags[index] for index in range(count)]

    def stop(self) -> None:
        self.give_up()
        for _ in self._threads:
            self._queue.put(None)
        end = time.monotonic() + _END_S
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        if not any(thread.is_alive() for thread in self._threads):
            os.close(self._fd)  # else left open: its number must not become another file's

    def give_up(self) -> None:
        with self._changed:
            if self._error is None:
                self._error = StoreError("the upload was given up")

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while True:
            wanted = self._queue.get()
            if wanted is None or self._error is not None:
                return
            try:
                tag = self._send(*wanted)
            except BaseException as error:  # noqa: BLE001 - the main thread must hear of it
                with self._changed:
                    if self._error is None:
                        self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._tags[wanted[0]] = tag
                self._changed.notify_all()

    def _send(self, index: int, length: int) -> str:
        start = index * self._part_size
        with contextlib.closing(
            mmap.mmap(self._fd, length, prot=mmap.PROT_READ, offset=start)
        ) as body:
            tag = self._client.put_part(self.upload, index + 1, body)
        if length == self._part_size and index:
            punch_hole(self._fd, start, length)
        return tag
