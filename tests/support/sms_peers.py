"""Peers of a daemon: one that calls as providers do, and many that call all the time."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ssl import SSLContext
from typing import Any
from urllib.parse import quote

from attrs import frozen

from tests.support.processes import until
from tests.support.secrets_in_tests import SENDER_PREFIX, TEXT_MARKER

PATH = "/SMSReceiver"
FORM = "application/x-www-form-urlencoded"
HANG_SECONDS = 30.0
"""Contract 3 says 5; who waits this long has found a bug."""


@frozen
class Answer:
    """What the daemon said to one request."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def id(self) -> str:
        """Of the SMS that was accepted."""
        return self.headers["sms-message-id"]


def query(fields: Mapping[str, str]) -> str:
    """As in a URL or a form; blanks are written as %20, like in the API's examples."""
    return "&".join(f"{quote(name)}={quote(value)}" for name, value in fields.items())


def multipart(fields: Mapping[str, str]) -> tuple[str, bytes]:
    """Content-Type and body."""
    boundary = secrets.token_hex(16)
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    return f"multipart/form-data; boundary={boundary}", "".join([*parts, f"--{boundary}--\r\n"]).encode()


class Peer:
    """One connection to a daemon, opened when it is needed."""

    def __init__(self, port: int, tls: SSLContext | None = None) -> None:
        self._connection = (
            HTTPConnection("127.0.0.1", port, timeout=HANG_SECONDS)
            if tls is None
            else HTTPSConnection("localhost", port, timeout=HANG_SECONDS, context=tls)
        )

    def ask(
        self,
        method: str,
        target: str = PATH,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send any request and read the answer."""
        try:
            self._connection.request(method, target, body, dict(headers or {}))
            response = self._connection.getresponse()
            content = response.read()
        except Exception:
            self._connection.close()
            raise
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, content)

    def get(self, **fields: str) -> Answer:
        return self.ask("GET", f"{PATH}?{query(fields)}")

    def post_form(self, **fields: str) -> Answer:
        return self.ask("POST", body=query(fields).encode(), headers={"Content-Type": FORM})

    def post_multipart(self, **fields: str) -> Answer:
        content_type, body = multipart(fields)
        return self.ask("POST", body=body, headers={"Content-Type": content_type})

    def post_json(self, **fields: Any) -> Answer:
        headers = {"Content-Type": "application/json"}
        return self.ask("POST", body=json.dumps(fields).encode(), headers=headers)

    def close(self) -> None:
        self._connection.close()


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Call ``work(0)``, ``work(1)`` … at once, and raise what any of them raised."""
    with ThreadPoolExecutor(count) as threads:
        for done in [threads.submit(work, n) for n in range(count)]:
            done.result()


class Load:
    """Many peers that send one SMS after the other, each in a conversation of its own, until stopped.

    ``port`` is asked before each new connection: a daemon that was restarted has another one.
    """

    def __init__(self, port: Callable[[], int], receiver: str, peers: int = 8) -> None:
        self._port, self._receiver = port, receiver
        self._stopped = threading.Event()
        self.accepted: list[str] = []
        """The ids in the 200s."""
        self.answers: Counter[int] = Counter()
        """By status; 0 for a connection that broke."""
        self._threads = [
            threading.Thread(target=self._send, args=(f"{SENDER_PREFIX}{n:05d}",), daemon=True)
            for n in range(peers)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def await_more(self, count: int = 50) -> None:
        """Wait until that many more were accepted."""
        reached = len(self.accepted) + count
        until(lambda: len(self.accepted) >= reached, "more SMS that get 200")

    def _send(self, sender: str) -> None:
        peer: Peer | None = None
        count = 0
        while not self._stopped.is_set():
            count += 1
            try:
                peer = peer or Peer(self._port())
                fields = {"sender": sender, "receiver": self._receiver, "message": f"{TEXT_MARKER} {count}"}
                answer = peer.post_form(**fields)
            except (OSError, HTTPException):
                self.answers[0] += 1
                peer = None
                time.sleep(0.02)  # while nobody listens
                continue
            self.answers[answer.status] += 1
            if answer.status == 200:
                self.accepted.append(answer.id)
