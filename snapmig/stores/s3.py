"""
S3: requests, retries, and failures in words. The only module that imports botocore.

Credentials, profile and region come from where AWS's own programs take them. Python's botocore and
not a faster client: workers are forked, and a client with threads of its own hangs in a child of a
process that has used it; and only a full client can end a multipart upload on the condition that
there is no such object.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Iterator
from functools import cache
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, IncompleteReadError
from botocore.exceptions import HTTPClientError as TransferError

from snapmig.errors import DestinationExistsError, StoreError, UsageError
from snapmig.stores.failures import REPLACED, RefusedError, explain
from snapmig.stores.location import ObjectUrl
from snapmig.system.files import Buffer

__all__ = ("FoundObject", "ObjectClient", "check_object", "settings")

TIMEOUT_S = 30.0
"""Without a byte for so long, a connection counts as broken; SNAPMIG_S3_TIMEOUT overrides it."""
ATTEMPTS = 5
"""Of each request, with growing pauses; AWS_MAX_ATTEMPTS overrides it."""

_TOKEN = "snapmig-upload"
_STEP = 1 << 20
_DROP_STEP = 64 << 20
"""Bytes that may arrive for each further broken connection of a long answer."""
_MAX_PAUSE_S = 5.0


class FoundObject(NamedTuple):
    """What an object's first bytes came with; ``token`` is what our upload named itself."""

    size: int
    version: str
    token: str
    start: bytes


class ObjectClient:
    """
    Requests about one object; a process needs its own.

    :param url: the object, or any place in the bucket
    :param patient: retry what may pass; else give up early
    :ivar endpoint: the server's address
    :raises UsageError: the endpoint would send a guest's memory unencrypted over a network
    """

    def __init__(self, url: ObjectUrl, *, patient: bool = True) -> None:
        self.url = url
        self._attempts = _attempts() if patient else 1
        timeout = _timeout() if patient else 5.0
        self._client = _make_client(os.getpid(), settings(), self._attempts, timeout)
        self.endpoint = self._client.meta.endpoint_url
        _check_endpoint(self.endpoint)

    def start(self, length: int) -> FoundObject:
        """
        Return an object's size and version with its first bytes, in one request.

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
        Give bytes of a version piece by piece, going on where a connection broke.

        :raises StoreError: it is another version now, or can't be read
        """
        self._stream(offset, length, version, take)

    def begin(self, token: str) -> str:
        """Begin an upload in parts; return its id."""
        reply = self._call("create_multipart_upload", Metadata={_TOKEN: token})
        return str(reply["UploadId"])

    def put_part(self, upload: str, number: int, body: Buffer) -> str:
        """Send a part, numbered from 1; return its ETag."""
        reply = self._call("upload_part", UploadId=upload, PartNumber=number, Body=body)
        return str(reply["ETag"])

    def complete(self, upload: str, tags: list[str], *, create: bool) -> None:
        """Make the object of its parts, atomically."""
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

    def neighbours(self, limit: int) -> Iterator[ObjectUrl]:
        """Yield the objects under the same prefix, up to a number of them."""
        found = 0
        more: dict[str, str] = {}
        while found < limit:
            page = self._request(
                "list_objects_v2", Prefix=self.url.prefix, Delimiter="/", MaxKeys=1000, **more
            )
            for item in page.get("Contents", ())[: limit - found]:
                found += 1
                yield ObjectUrl(self.url.bucket, item["Key"])
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

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
                if breaks >= self._attempts + done // _DROP_STEP:
                    raise explain(error, self.url, self.endpoint, breaks) from error
                time.sleep(min(_MAX_PAUSE_S, random.random() * 0.2 * 2**breaks))
            else:
                return reply

    def _call(self, name: str, **arguments: Any) -> dict[str, Any]:
        return self._request(name, Key=self.url.key, **arguments)

    def _request(self, name: str, **arguments: Any) -> dict[str, Any]:
        try:
            reply: dict[str, Any] = getattr(self._client, name)(Bucket=self.url.bucket, **arguments)
        except (BotoCoreError, ClientError) as error:
            raise explain(error, self.url, self.endpoint, self._attempts) from error
        return reply


def check_object(url: ObjectUrl, *, force: bool) -> None:
    """
    Refuse a destination that can't become a new object, as far as can be known before.

    :raises DestinationExistsError: it exists and ``force`` is not set
    :raises StoreError: no such bucket, wrong credentials, no answer
    """
    try:
        ObjectClient(url).start(1)
    except RefusedError as error:
        # Who may write only is told that access is denied, whether there is an object or not.
        if error.code not in ("NoSuchKey", "404", "AccessDenied", "403"):
            raise
    else:
        if not force:
            message = "exists already, -f overwrites it"
            raise DestinationExistsError(message, path=str(url))


Settings = tuple[tuple[str, str], ...]


def settings() -> Settings:
    """Return what the environment says of servers, and of the way to them."""
    names = {"SNAPMIG_S3_TIMEOUT", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
    return tuple(
        sorted(
            (name, value)
            for name, value in os.environ.items()
            if name.startswith("AWS_") or name.upper() in names
        )
    )


@cache
def _session(_settings: Settings) -> Any:
    # One for all clients, also of forked workers: it takes 100 ms to read its descriptions.
    return botocore.session.get_session()


@cache
def _make_client(_process: int, chosen: Settings, attempts: int, timeout: float) -> Any:
    # One for all threads; a forked process must not share its parent's connections.
    try:
        return _session(chosen).create_client(
            "s3",
            region_name=_region(_session(chosen)),
            config=Config(
                connect_timeout=min(timeout, 10.0),
                read_timeout=timeout,
                retries={"total_max_attempts": attempts, "mode": "standard"},
                max_pool_connections=16,
                s3=_addressing(_session(chosen)),
                # Many servers know no other checksums than the signature's; packets have their own.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                user_agent_extra="snapmig",
            ),
        )
    except (BotoCoreError, ValueError) as error:
        raise UsageError(f"S3 settings make no sense: {error}") from error


def _region(session: Any) -> str:
    # botocore does not know AWS_REGION, as all other clients do. Servers of one's own have none.
    found = os.environ.get("AWS_REGION") or session.get_config_variable("region")
    return str(found or "us-east-1")


def _addressing(session: Any) -> dict[str, str] | None:
    # A server of one's own seldom has a host name for each bucket.
    own = any(os.environ.get(f"AWS_ENDPOINT_URL{end}") for end in ("", "_S3"))
    return (
        {"addressing_style": "path"} if own and not session.get_scoped_config().get("s3") else None
    )


def _check_range(reply: dict[str, Any], offset: int, url: ObjectUrl) -> None:
    if not re.fullmatch(rf"bytes {offset}-\d+/\d+", str(reply.get("ContentRange", ""))):
        raise StoreError("the server does not give ranges of an object", path=str(url))


def _check_endpoint(endpoint: str) -> None:
    parts = urlsplit(endpoint)
    if parts.scheme == "https" or os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true"):
        return
    name = parts.hostname or ""
    try:
        local = ip_address(name).is_loopback
    except ValueError:
        local = name == "localhost"
    if not local:
        message = (
            f"endpoint is {endpoint}, and a snapshot holds every secret of its guest: "
            "expected https, or AWS_ALLOW_HTTP=true"
        )
        raise UsageError(message)


def _timeout() -> float:
    text = os.environ.get("SNAPMIG_S3_TIMEOUT", "")
    try:
        seconds = float(text) if text else TIMEOUT_S
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 86400:
        raise UsageError(f"SNAPMIG_S3_TIMEOUT is {text!r}, expected seconds")
    return seconds


def _attempts() -> int:
    text = os.environ.get("AWS_MAX_ATTEMPTS", "")
    return min(int(text), 100) if text.isdigit() and int(text) else ATTEMPTS


def _is_refusal(error: StoreError, *codes: str) -> bool:
    return isinstance(error, RefusedError) and error.code in codes
