"""
Clients of S3 servers, configured by the environment. Besides s3 the only importer of botocore.

Credentials, profile and region come from the places that AWS's own programs use. botocore was
chosen over faster clients for two reasons: workers are forked, and a client with threads of its own
hangs in the child of a process that has used it; and only a full client can complete a multipart
upload on the condition that no such object exists.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from snapmig.errors import UsageError
from snapmig.stores.failures import explain
from snapmig.stores.location import ObjectUrl

__all__ = ("BucketClient", "settings")

TIMEOUT_S = 30.0
"""Without a byte for so long, a connection counts as broken; SNAPMIG_S3_TIMEOUT overrides it."""
ATTEMPTS = 5
"""Of each request, with growing pauses; AWS_MAX_ATTEMPTS overrides it."""

_making = threading.Lock()


class BucketClient:
    """
    Requests to a bucket. Each process needs its own.

    :param url: any place in the bucket
    :param patient: retry transient errors; otherwise give up early
    :ivar endpoint: address of the server
    :ivar attempts: tries per request
    :ivar repeated: requests that took more than one, or whose answers broke off
    :raises UsageError: the endpoint would send guest memory over a network unencrypted
    """

    def __init__(self, url: ObjectUrl, *, patient: bool = True) -> None:
        self.url = url
        self.attempts = _attempts() if patient else 1
        self.repeated = 0
        timeout = _timeout() if patient else 5.0
        with _making:  # botocore makes one client at a time
            self._client = _make_client(os.getpid(), settings(), self.attempts, timeout)
        self.endpoint: str = self._client.meta.endpoint_url
        _check_endpoint(self.endpoint)

    def request(self, name: str, **arguments: Any) -> dict[str, Any]:
        """
        Make a request by botocore's name for it.

        :raises StoreError: it failed or was refused
        """
        try:
            reply: dict[str, Any] = getattr(self._client, name)(Bucket=self.url.bucket, **arguments)
        except (BotoCoreError, ClientError) as error:
            raise explain(error, self.url, self.endpoint, self.attempts) from error
        self.repeated += bool(reply["ResponseMetadata"].get("RetryAttempts"))
        return reply


Settings = tuple[tuple[str, str], ...]


def settings() -> Settings:
    """Return the environment's settings of servers and of the way to them."""
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
    # One for all clients, also in forked workers: reading its descriptions takes 100 ms.
    session = botocore.session.get_session()
    # Times in answers are of no use here. To leave them as text, and our own arguments unchecked,
    # saves a tenth of the calls that a request makes.
    parsers = session.get_component("response_parser_factory")
    parsers.set_parser_defaults(timestamp_parser=lambda value: value)
    return session


@cache
def _make_client(_process: int, chosen: Settings, attempts: int, timeout: float) -> Any:
    # One for all threads. A forked process must not share its parent's connections.
    try:
        return _session(chosen).create_client(
            "s3",
            region_name=_region(_session(chosen)),
            config=Config(
                parameter_validation=False,
                connect_timeout=min(timeout, 10.0),
                read_timeout=timeout,
                retries={"total_max_attempts": attempts, "mode": "standard"},
                max_pool_connections=32,
                s3=_addressing(_session(chosen)),
                # Many servers support no checksum but the signature's; packets have their own.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                user_agent_extra="snapmig",
            ),
        )
    except (BotoCoreError, ValueError) as error:
        raise UsageError(f"S3 settings make no sense: {error}") from error


def _region(session: Any) -> str:
    # botocore ignores AWS_REGION, unlike all other clients. Private servers have no region.
    found = os.environ.get("AWS_REGION") or session.get_config_variable("region")
    return str(found or "us-east-1")


def _addressing(session: Any) -> dict[str, str] | None:
    # Private servers seldom have a host name per bucket.
    own = any(os.environ.get(f"AWS_ENDPOINT_URL{end}") for end in ("", "_S3"))
    return (
        {"addressing_style": "path"} if own and not session.get_scoped_config().get("s3") else None
    )


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
