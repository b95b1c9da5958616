"""Failures of a server or of the connection to it, as one sentence."""

from __future__ import annotations

from typing import Any

from snapmig.errors import StoreError
from snapmig.stores.location import ObjectUrl

__all__ = ("REPLACED", "RefusedError", "explain")

_KEYS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the profile"

REPLACED = "was replaced by another object while it was being read"

_CODES = {
    "NoSuchKey": "there is no such object",
    "404": "there is no such object",
    "PreconditionFailed": REPLACED,
    "AccessDenied": "access is denied to these credentials",
    "403": "access is denied to these credentials",
    "InvalidAccessKeyId": f"the server does not know the access key: {_KEYS}",
    "SignatureDoesNotMatch": f"the secret key is wrong: {_KEYS}",
    "ExpiredToken": "the credentials have expired",
    "ExpiredTokenException": "the credentials have expired",
    "RequestTimeTooSkewed": "this host's clock and the server's differ too much",
    "NoSuchUpload": "the upload was aborted by someone else",
    "EntityTooLarge": "is larger than the server takes",
}

_BROKEN = {
    "ConnectTimeoutError": "{endpoint} does not answer",
    "ReadTimeoutError": "{endpoint} stopped answering",
    "ConnectionClosedError": "{endpoint} closed the connection",
    "ResponseStreamingError": "{endpoint} closed the connection",
    "IncompleteReadError": "{endpoint} closed the connection",
    "SSLError": "{endpoint} has no certificate that is trusted here",
    "ProxyConnectionError": "the proxy does not answer",
}


class RefusedError(StoreError):
    """
    A refusal by the server.

    :param code: the protocol's error code
    """

    def __init__(self, message: str, *, path: str | None = None, code: str = "") -> None:
        super().__init__(message, path=path)
        self.code = code


def explain(error: Any, url: ObjectUrl, endpoint: str, attempts: int) -> StoreError:
    """
    Return an error of the client library in words.

    :param error: has ``response``, like ClientError, if the server answered
    """
    reply = getattr(error, "response", None)
    if isinstance(reply, dict):
        code = str(reply.get("Error", {}).get("Code", ""))
        words = str(reply.get("Error", {}).get("Message", ""))
        if code == "NoSuchBucket":
            return RefusedError(f"there is no bucket {url.bucket}", path=str(url), code=code)
        known = _CODES.get(code) or f"the server says {code}: {words}"
        return RefusedError(known, path=str(url), code=code)
    kind = type(error).__name__
    if kind in ("NoCredentialsError", "PartialCredentialsError"):
        return StoreError(f"no credentials found: {_KEYS}", path=str(url))
    if kind == "EndpointConnectionError":
        return StoreError(f"can't connect to {endpoint}, {_times(attempts)}", path=str(url))
    if kind in _BROKEN:
        words = _BROKEN[kind].format(endpoint=endpoint)
        return StoreError(f"{words}, {_times(attempts)}", path=str(url))
    return StoreError(" ".join(str(error).split()), path=str(url))


def _times(attempts: int) -> str:
    return "after 1 attempt" if attempts == 1 else f"after {attempts} attempts"
