"""A relay that puts a source's plain connections into TLS, each when it is made."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from pathlib import Path
from typing import Self

_MOMENT_S = 0.05
_SEND_S = 20.0
_STEP = 1 << 16


def client_context(folder: Path | None, *, certificate: bool = True) -> ssl.SSLContext:
    """
    Return the settings of a client, with a folder as of QEMU's ``tls-creds-x509``.

    :param folder: None to trust any server
    :param certificate: show the client's own
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if folder is None:
        context.verify_mode = ssl.CERT_NONE
        return context
    context.load_verify_locations(folder / "ca-cert.pem")
    if certificate:
        context.load_cert_chain(folder / "client-cert.pem", folder / "client-key.pem")
    return context


class SecureRelay:
    """
    Listens for plain connections, and has one with TLS for each; a context manager.

    :param target: host and port of the server
    :param contexts: settings of the first connection, the second and so on; the last one's are for
        all further ones; None for one without TLS
    :param says_bye: end a connection as TLS wants it; else cut it
    :ivar failures: errors of handshakes
    """

    def __init__(
        self, target: tuple[str, int], *contexts: ssl.SSLContext | None, says_bye: bool = True
    ) -> None:
        self.failures: list[str] = []
        self._target, self._contexts, self._says_bye = target, contexts, says_bye
        self._server = socket.create_server(("127.0.0.1", 0))
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    @property
    def address(self) -> str:
        """Where the source connects to."""
        return f"tcp:127.0.0.1:{self._server.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._over.set()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(2 * _SEND_S)
            assert not thread.is_alive(), "the relay hangs"
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            for number in range(1000):
                plain, _ = self._server.accept()
                context = self._contexts[min(number, len(self._contexts) - 1)]
                try:
                    end = self._connect(context)
                except OSError as error:
                    self.failures.append(str(error))
                    plain.close()
                    continue
                thread = threading.Thread(target=self._carry, args=(plain, end), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _connect(self, context: ssl.SSLContext | None) -> socket.socket:
        end = socket.create_connection(self._target, _SEND_S)
        if context is None:
            return end
        try:
            return context.wrap_socket(end)
        except OSError:
            end.close()
            raise

    def _carry(self, plain: socket.socket, end: socket.socket) -> None:
        with plain, end, contextlib.suppress(OSError):
            while not self._over.is_set():
                ready = select.select([plain, end], [], [], _MOMENT_S)[0]
                if end in ready and not self._back(end, plain):
                    return
                if plain in ready and not self._forth(plain, end):
                    return

    @staticmethod
    def _back(end: socket.socket, plain: socket.socket) -> bool:
        end.settimeout(0)
        try:
            while data := end.recv(_STEP):
                plain.sendall(data)
        except (ssl.SSLWantReadError, BlockingIOError):
            return True
        return False

    def _forth(self, plain: socket.socket, end: socket.socket) -> bool:
        data = plain.recv(_STEP)
        end.settimeout(_SEND_S)
        if data:
            end.sendall(data)
        elif self._says_bye and isinstance(end, ssl.SSLSocket):
            end.settimeout(_MOMENT_S)  # the other end need not answer
            end.unwrap()
        return bool(data)
