"""A target's real HTTP server, which records every attempt and answers as a test wants."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from attrs import define, frozen
from standardwebhooks.webhooks import Webhook
from twisted.trial.unittest import SynchronousTestCase

from tests.support.processes import until


@frozen
class Reply:
    """How an attempt is answered."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {}


@define
class Attempt:
    """One POST of the daemon's."""

    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    began: float
    """When it was read; with ``ended``, in seconds of one clock for all backends."""
    ended: float | None = None
    """When its answer was about to be written."""

    @property
    def data(self) -> dict[str, Any]:
        """The payload's ``data``."""
        found: dict[str, Any] = json.loads(self.body)["data"]
        return found

    @property
    def webhook_id(self) -> str:
        return self.headers["webhook-id"]

    def verify(self, secret: str) -> dict[str, Any]:
        """The whole payload; raises where the signature is not that of the secret."""
        payload: dict[str, Any] = Webhook(secret).verify(self.body, dict(self.headers))
        return payload


Answer = Callable[[Attempt], Reply]


def takes_all(_: Attempt) -> Reply:
    return Reply()


class Backend:
    """Listens on 127.0.0.1 until it is closed; one thread for each connection."""

    def __init__(self, answer: Answer = takes_all, tls: ssl.SSLContext | None = None) -> None:
        """``answer`` is called in a connection's thread and may take its time."""
        self.answer = answer
        self.attempts: list[Attempt] = []
        self._server = _Server(self)
        if tls is not None:
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.scheme = "http" if tls is None else "https"
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def url(self, path: str = "/sms", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def await_attempts(self, count: int, path: str | None = None) -> list[Attempt]:
        """Wait until that many were made (to one path), and give all of these."""
        until(lambda: len(self.to(path)) >= count, f"attempt {count}")
        return self.to(path)

    def to(self, path: str | None) -> list[Attempt]:
        return [attempt for attempt in list(self.attempts) if path in (None, attempt.path)]

    def ids(self) -> set[str]:
        """Of the SMS that were taken (or at least tried)."""
        return {attempt.data["id"] for attempt in list(self.attempts)}


def backend(
    test: SynchronousTestCase, answer: Answer = takes_all, tls: ssl.SSLContext | None = None
) -> Backend:
    """One that is closed after the test."""
    made = Backend(answer, tls)
    test.addCleanup(made.close)
    return made


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        super().__init__(("127.0.0.1", 0), _Connection)

    def handle_error(self, *_: object) -> None:
        """Nothing: peers that break connections off, or TLS, are what some tests are about."""


class _Connection(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one segment for an answer, or Nagle's algorithm delays its second half
    timeout = 60

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        attempt = Attempt(self.path, headers, body, time.monotonic())
        self.server.backend.attempts.append(attempt)
        reply = self.server.backend.answer(attempt)
        attempt.ended = time.monotonic()
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, *_: object) -> None:
        """Nothing."""
