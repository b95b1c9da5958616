"""
Requests about one object of S3 storage, repeated as needed after a broken connection.

Other modules get it through :func:`snapmig.stores.opening.load_s3`, so that programs without
objects import nothing of it.
"""

from __future__ import annotations

import random
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from botocore.exceptions import HTTPClientError as TransferError
from botocore.exceptions import IncompleteReadError

from snapmig.errors import DestinationExistsError, StoreError
from snapmig.stores.clients import BucketClient, settings
from snapmig.stores.failures import REPLACED, RefusedError, explain
from snapmig.stores.location import ObjectUrl
from snapmig.stores.prefix import PrefixClient, together
from snapmig.system.files import Buffer

__all__ = (
    "FoundObject",
    "ObjectClient",
    "PrefixClient",
    "SentPart",
    "check_object",
    "settings",
    "together",
)

_TOKEN = "snapmig-upload"
_STEP = 1 << 20
_DROP_STEP = 64 << 20
"""Bytes that may arrive for each further broken connection of a long answer."""
_MAX_PAUSE_S = 5.0


class FoundObject(NamedTuple):
    """The first bytes of an object and its properties; ``token`` is the mark of our own upload."""

    size: int
    version: str
    token: str
    start: bytes


class SentPart(NamedTuple):
    """A part on the server; its ETag is the MD5 of its bytes, unless the server encrypts it."""

    tag: str
    size: int


class ObjectClient(BucketClient):
    """Requests about the client's object."""

    def start(self, length: int) -> FoundObject:
        """
        Return an object's size, version and first bytes, in one request.

        :raises StoreError: there is none, or it can't be read
        """
        data = bytearray()
        reply: dict[str, Any] = {}
        try:
            reply = self._stream(0, length, None, data.extend)
        except StoreError as error:
            if not _is_refusal(error, "InvalidRange", "416"):
                raise
            return FoundObject(0, "", "", b"")  # nothing at all has no first byte
        size = int(reply["ContentRange"].rpartition("/")[2])
        token = reply.get("Metadata", {}).get(_TOKEN, "")
        return FoundObject(size, reply["ETag"], token, bytes(data))

    def stream(
        self, offset: int, length: int, version: str, take: Callable[[bytes], object]
    ) -> None:
        """
        Yield bytes of a version in pieces, resuming after a broken connection.

        :raises StoreError: it is another version now, or can't be read
        """
        self._stream(offset, length, version, take)

    def begin(self, token: str) -> str:
        """Begin a multipart upload. Return its id."""
        reply = self._call("create_multipart_upload", Metadata={_TOKEN: token})
        return str(reply["UploadId"])

    def earlier(self) -> tuple[str, dict[int, SentPart]] | None:
        """
        Return the id and the parts of an unfinished upload of this object, that with most of them.

        None if there is none, or these rights do not show it.
        """
        try:
            uploads = [
                each for name, each in PrefixClient(self.url).uploads() if name == self.url.name
            ]
            found = [(upload, self._parts(upload)) for upload in uploads]
        except RefusedError as error:
            if error.code not in ("AccessDenied", "403", "NotImplemented", "NoSuchUpload"):
                raise
            return None
        return max(found, key=lambda item: len(item[1]), default=None)

    def _parts(self, upload: str) -> dict[int, SentPart]:
        parts: dict[int, SentPart] = {}
        more: dict[str, Any] = {}
        while True:
            page = self._call("list_parts", UploadId=upload, **more)
            for part in page.get("Parts", ()):
                parts[int(part["PartNumber"])] = SentPart(str(part["ETag"]), int(part["Size"]))
            if not page.get("IsTruncated") or not page.get("NextPartNumberMarker"):
                return parts
            more = {"PartNumberMarker": page["NextPartNumberMarker"]}

    def put_part(self, upload: str, number: int, body: Buffer) -> tuple[str, bool]:
        """Send a part, numbered from 1. Return its ETag, and True if it took several attempts."""
        reply = self._call("upload_part", UploadId=upload, PartNumber=number, Body=body)
        return str(reply["ETag"]), bool(reply["ResponseMetadata"].get("RetryAttempts"))

    def complete(self, upload: str, tags: list[str], *, create: bool) -> None:
        """Make the object from its parts, atomically."""
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
        condition = {"IfNoneMatch": "*"} if create else {}
        self._call(
            "complete_multipart_upload",
            UploadId=upload,
            MultipartUpload={"Parts": parts},
            **condition,
        )

    def abort(self, upload: str) -> None:
        """Drop an upload's parts."""
        self._call("abort_multipart_upload", UploadId=upload)

    def put(self, content: bytes, *, create: bool) -> None:
        """
        Make a small object, whole or not at all, in the same way as large ones.

        :param create: only if there is none
        :raises RefusedError: there is one, or our own after its answer was lost
        """
        upload = self.begin(secrets.token_hex(16))
        try:
            self.complete(upload, [self.put_part(upload, 1, content)[0]], create=create)
        except BaseException:
            with suppress(StoreError):
                self.abort(upload)
            raise

    def remove(self) -> None:
        """Remove the object. A missing object is no error."""
        self._call("delete_object")

    def is_there(self) -> bool:
        """
        Return whether the object exists, as far as these rights tell.

        :raises StoreError: no such bucket, wrong credentials, no answer
        """
        try:
            self.start(1)
        except RefusedError as error:
            # With write permission only, access is denied whether the object exists or not.
            if error.code not in ("NoSuchKey", "404", "AccessDenied", "403"):
                raise
            return False
        return True

    def neighbours(self, limit: int) -> Iterator[ObjectUrl]:
        """Yield the objects under the same prefix, up to a number of them."""
        for name in PrefixClient(self.url).entries(limit):
            if not name.endswith("/"):
                yield self.url.beside(name)

    def _stream(
        self, offset: int, length: int, version: str | None, take: Callable[[bytes], object]
    ) -> dict[str, Any]:
        condition = {} if version is None else {"IfMatch": version}
        done = breaks = 0
        while True:
            where = f"bytes={offset + done}-{offset + length - 1}"
            reply = self._call("get_object", Range=where, **condition)
            _check_range(reply, offset + done, self.url)
            if condition and reply["ETag"] != condition["IfMatch"]:  # a server that ignores it
                raise StoreError(REPLACED, path=str(self.url))
            condition = {"IfMatch": reply["ETag"]}
            try:
                while piece := reply["Body"].read(_STEP):
                    take(piece)
                    done += len(piece)
            except (TransferError, IncompleteReadError) as error:
                breaks += 1
                self.repeated += 1
                if breaks >= self.attempts + done // _DROP_STEP:
                    raise explain(error, self.url, self.endpoint, breaks) from error
                time.sleep(min(_MAX_PAUSE_S, random.random() * 0.2 * 2**breaks))
            else:
                return reply

    def _call(self, name: str, **arguments: Any) -> dict[str, Any]:
        return self.request(name, Key=self.url.key, **arguments)


def check_object(url: ObjectUrl, *, force: bool) -> None:
    """
    Refuse a destination that can't become a new object, as far as this is known beforehand.

    :raises DestinationExistsError: it exists and ``force`` is not set
    :raises StoreError: no such bucket, wrong credentials, no answer
    """
    if ObjectClient(url).is_there() and not force:
        raise DestinationExistsError("exists already", path=str(url))


def _check_range(reply: dict[str, Any], offset: int, url: ObjectUrl) -> None:
    if not re.fullmatch(rf"bytes {offset}-\d+/\d+", str(reply.get("ContentRange", ""))):
        raise StoreError("the server does not give ranges of an object", path=str(url))


def _is_refusal(error: StoreError, *codes: str) -> bool:
    return isinstance(error, RefusedError) and error.code in codes
