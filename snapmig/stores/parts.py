"""Parts of an upload on their way: threads that send them from a temporary file."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import threading
import time
from collections import deque
from collections.abc import Mapping

from snapmig.errors import SnapmigError, StoreError
from snapmig.stores.s3 import ObjectClient, SentPart
from snapmig.stores.window import Window
from snapmig.system.files import Buffer
from snapmig.system.libc import punch_hole
from snapmig.system.limits import start_thread
from snapmig.system.signals import raise_if_cancelled

__all__ = ("Parts",)

_END_S = 1.0
"""For parts on their way when an upload is given up; what comes later is dropped by the server."""


class Parts:
    """
    Threads that send parts, as many at once as a window says.

    They are daemons, so that one waiting for the network does not keep the process alive.

    :param fd: a file with the object's bytes at their offsets; the space of what is sent is freed
    :param size: of a part
    :param there: parts that the server has already, by number
    :ivar kept: those of them that needed not be sent
    """

    def __init__(
        self,
        client: ObjectClient,
        upload: str,
        fd: int,
        size: int,
        there: Mapping[int, SentPart],
        window: Window,
    ) -> None:
        self.upload = upload
        self.kept = 0
        self._there = there
        self._client = client
        self._fd = os.dup(fd)
        self._part_size = size
        self._window = window
        self._tags: dict[int, str] = {}
        self._sent = 0
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._queue: deque[tuple[int, int]] = deque()
        self._underway = 0
        self._threads: list[threading.Thread] = []

    @property
    def waiting(self) -> int:
        """
        Number of parts that are not sent yet.

        :raises StoreError: one could not be sent
        """
        with self._changed:
            self._raise()
            return self._sent - len(self._tags)

    def send(self, index: int, length: int) -> None:
        """
        Have a part sent, soon.

        :raises StoreError: another one could not be sent
        """
        with self._changed:
            self._raise()
            self._sent += 1
            self._queue.append((index, length))
            self._changed.notify_all()
            enough = min(self._window.size, self._sent - len(self._tags))
        if len(self._threads) < enough:
            self._start()

    def all_sent(self, count: int) -> list[str]:
        """
        Wait for the last part, and return the ETags of the first ones.

        :raises StoreError: one could not be sent
        """
        with self._changed:
            while len(self._tags) < self._sent and self._error is None:
                raise_if_cancelled()
                self._changed.wait(0.5)
            self._raise()
            return [self._tags[index] for index in range(count)]

    def stop(self) -> None:
        """End the threads, and wait for those that end soon."""
        self.give_up()
        end = time.monotonic() + _END_S
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        if not any(thread.is_alive() for thread in self._threads):
            os.close(self._fd)  # else left open: its number must not become another file's

    def give_up(self) -> None:
        """Begin no more."""
        self._fail(StoreError("the upload was given up"))

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="snapmig-send", daemon=True)
        try:
            start_thread(thread)
        except SnapmigError:
            if not self._threads:
                raise
        else:
            self._threads.append(thread)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if self._error is None:
                self._error = error
            self._changed.notify_all()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (wanted := self._next()) is not None:
            try:
                tag = self._send(*wanted)
            except BaseException as error:  # noqa: BLE001 - the main thread must hear of it
                self._fail(error)
                return
            with self._changed:
                self._underway -= 1
                self._tags[wanted[0]] = tag
                self._changed.notify_all()

    def _next(self) -> tuple[int, int] | None:
        with self._changed:
            while self._error is None:
                if self._queue and self._underway < self._window.size:
                    self._underway += 1
                    return self._queue.popleft()
                self._changed.wait()
            return None

    def _send(self, index: int, length: int) -> str:
        start = index * self._part_size
        with contextlib.closing(
            mmap.mmap(self._fd, length, prot=mmap.PROT_READ, offset=start)
        ) as body:
            tag = self._kept(index + 1, body)
            if tag is None:
                tag, repeated = self._client.put_part(self.upload, index + 1, body)
                self._window.done(length, repeated=repeated)
        if length == self._part_size and index:
            punch_hole(self._fd, start, length)
        return tag

    def _kept(self, number: int, body: Buffer) -> str | None:
        # The tag of a part that the server has with just these bytes.
        part = self._there.get(number)
        if part is None or part.size != len(body):
            return None
        if part.tag.strip('"') != hashlib.md5(body, usedforsecurity=False).hexdigest():
            return None
        with self._changed:
            self.kept += 1
        return part.tag
