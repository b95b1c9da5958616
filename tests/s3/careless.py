"""
An S3 server that ignores conditions: the real one behind a proxy that leaves If-None-Match out.

The signature of a request is over that header, too, so the proxy signs what it sends on itself.
"""

from __future__ import annotations

import http.client
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

_CONDITION = "If-None-Match"
_NOT_SENT_ON = {"authorization", "connection", "expect", "host"}
_OF_A_CONNECTION = {"connection", "content-length", "date", "server", "transfer-encoding"}


class CarelessServer:
    """
    Listens on a free port of loopback.

    :param target: the real server's port
    :param keys: access key and secret key
    :ivar ignored: how many conditions were left out
    :ivar keeps: whether they are kept for now
    :ivar requests: the first lines of all requests, without the version
    """

    def __init__(self, target: int, keys: tuple[str, str]) -> None:
        self.target, self.ignored, self.keeps = target, 0, False
        self.requests: list[str] = []
        self._signer = S3SigV4Auth(Credentials(*keys), "s3", "us-east-1")
        self._held: re.Pattern[str] | None = None
        self.reached, self.go = threading.Event(), threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def hold(self, pattern: str) -> None:
        """Hold the first request that a pattern finds back until ``go`` is set."""
        self._held = re.compile(pattern)

    def close(self) -> None:
        """End it."""
        self.go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def see(self, line: str) -> None:
        """Note a request, and hold it where that is wanted."""
        self.requests.append(line)
        held = self._held
        if held is not None and held.match(line):
            self._held = None
            self.reached.set()
            self.go.wait()

    def headers(self, url: str, given: Any, method: str, body: bytes) -> dict[str, str]:
        """Return the headers to send on, without a condition, with a signature."""
        kept = {name: value for name, value in given.items() if name.lower() not in _NOT_SENT_ON}
        if not self.keeps and kept.pop(_CONDITION, None) is not None:
            self.ignored += 1
        request = AWSRequest(method, url, headers=kept, data=body)
        self._signer.add_auth(request)
        return dict(request.headers.items())


def _handler(server: CarelessServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 20  # so that no thread waits for ever for a client that is done

        def forward(self) -> None:
            server.see(f"{self.command} {self.path}")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            place = f"127.0.0.1:{server.target}"
            url = f"http://{place}{self.path}"
            headers = server.headers(url, self.headers, self.command, body)
            connection = http.client.HTTPConnection(place, timeout=30)
            try:
                connection.request(self.command, self.path, body, headers)
                self._answer(connection.getresponse())
            finally:
                connection.close()

        def _answer(self, answer: http.client.HTTPResponse) -> None:
            content = answer.read()
            self.send_response_only(answer.status, answer.reason)
            for name, value in answer.getheaders():
                if name.lower() not in _OF_A_CONNECTION:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = forward  # noqa: N815 - names that http.server calls

        def log_message(self, *_words: object) -> None:
            """Say nothing."""

    return Handler
