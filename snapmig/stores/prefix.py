"""Contents of a key prefix: objects, and unfinished uploads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from snapmig.stores.clients import BucketClient
from snapmig.system.limits import start_thread

__all__ = ("PrefixClient", "together")

THREADS = 8
PAGE = 1000
"""Names that a server gives at a time, at most."""

Item = TypeVar("Item")
Made = TypeVar("Made")


class PrefixClient(BucketClient):
    """Requests about all objects with the prefix of the client's object."""

    def entries(self, limit: int) -> Iterator[str]:
        """
        Yield names of objects without the prefix, up to a number of them.

        A name with a slash counts once, up to the slash, like a folder.

        :raises StoreError: they can't be listed
        """
        found = 0
        pages = self._pages("list_objects_v2", "NextContinuationToken", MaxKeys=PAGE)
        for page in pages:
            keys = [item["Key"] for item in page.get("Contents", ())]
            keys += [item["Prefix"] for item in page.get("CommonPrefixes", ())]
            for name in map(self._name, keys):
                if name and found < limit:
                    found += 1
                    yield name
            if found >= limit:
                return

    def uploads(self) -> list[tuple[str, str]]:
        """
        Return name and id of each unfinished upload.

        :raises StoreError: they can't be listed
        """
        names = ("NextKeyMarker", "NextUploadIdMarker")
        return [
            (self._name(item["Key"]), item["UploadId"])
            for page in self._pages("list_multipart_uploads", *names)
            for item in page.get("Uploads", ())
            if item["Key"].startswith(self.url.prefix)  # some servers list all
        ]

    def drop(self, name: str, upload: str) -> None:
        """Drop the parts of an upload."""
        key = self.url.beside(name).key
        self.request("abort_multipart_upload", Key=key, UploadId=upload)

    def _name(self, key: str) -> str:
        return key.removeprefix(self.url.prefix)

    def _pages(self, request: str, *tokens: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        arguments |= {"Prefix": self.url.prefix, "Delimiter": "/"}
        while True:
            page = self.request(request, **arguments)
            yield page
            if not page.get("IsTruncated") or not page.get(tokens[0]):
                return
            next_page = {token: page[token] for token in tokens if page.get(token)}
            arguments |= {token.removeprefix("Next"): at for token, at in next_page.items()}


def together(function: Callable[[Item], Made], items: Sequence[Item]) -> list[Made]:
    """
    Apply a function to each item, several at a time; for slow requests.

    The first error is raised, and items not yet begun are dropped. The threads are daemons, so that
    one waiting for the network does not keep the process alive.
    """
    waiting: SimpleQueue[int] = SimpleQueue()
    ended: SimpleQueue[tuple[int, Made | BaseException, bool]] = SimpleQueue()
    for number in range(len(items)):
        waiting.put(number)

    def work() -> None:
        while True:
            try:
                number = waiting.get_nowait()
            except Empty:
                return
            try:
                ended.put((number, function(items[number]), True))
            except BaseException as error:  # noqa: BLE001 - the caller must hear of it
                ended.put((number, error, False))

    threads = [
        threading.Thread(target=work, name="snapmig-look", daemon=True)
        for _ in range(min(THREADS, len(items)))
    ]
    for thread in threads:
        start_thread(thread)
    made = _gathered(waiting, ended, len(items))
    for thread in threads:
        thread.join()
    return made


def _gathered(
    waiting: SimpleQueue[int],
    ended: SimpleQueue[tuple[int, Made | BaseException, bool]],
    count: int,
) -> list[Made]:
    made: dict[int, Any] = {}
    try:
        while len(made) < count:
            number, result, fine = ended.get()
            if not fine and isinstance(result, BaseException):
                raise result
            made[number] = result
    except BaseException:
        while not waiting.empty():  # nobody wants the others any more
            try:
                waiting.get_nowait()
            except Empty:
                break
        raise
    return [made[number] for number in range(count)]
