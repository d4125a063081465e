"""Requests to ``/SMSReceiver`` in bytes, and what tests that send them share."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from twisted.logger import LogEvent, eventAsText, globalLogPublisher

from smsdaemon.web.bounded import Bounds
from smsdaemon.web.receiver import Receiver
from tests.support.cases import ReactorTest
from tests.support.raw_peer import RawPeer, Response
from tests.support.receivers import Served

GOOD = "receiver=%2B49123123&sender=%2B49789789&message=This+is+a+test"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b"


def get(target: str = f"/SMSReceiver?{GOOD}", *headers: str, method: str = "GET") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: x", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def post(content_type: str | None, body: bytes, *headers: str, target: str = "/SMSReceiver") -> bytes:
    typed = [] if content_type is None else [f"Content-Type: {content_type}"]
    return get(target, *typed, f"Content-Length: {len(body)}", *headers, method="POST") + body


def multipart(fields: dict[str, str]) -> bytes:
    parts = (f'--b\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in fields.items())
    return "".join((*parts, "--b--\r\n")).encode()


def every_way(fields: dict[str, str]) -> dict[str, bytes]:
    return {
        "GET": get(f"/SMSReceiver?{urlencode(fields)}"),
        "form": post(FORM, urlencode(fields).encode()),
        "form without a type": post(None, urlencode(fields).encode()),
        "multipart": post(MULTIPART, multipart(fields)),
        "JSON": post("application/json", json.dumps(fields).encode()),
    }


class PagesTest(ReactorTest):
    """Connections are closed at the end, whatever happened."""

    async def peer(self, served: Served) -> RawPeer:
        peer = await RawPeer.connect(served.port)
        self.addCleanup(peer.close)
        return peer

    async def ask(self, receiver: Receiver, request: bytes, bounds: Bounds | None = None) -> Response:
        """One request to a server of its own."""
        peer = await self.peer(Served(self, receiver, bounds=bounds))
        return await peer.ask(request)

    def log_lines(self) -> list[str]:
        """All that is logged from now on, as it would be written."""
        lines: list[str] = []

        def observe(event: LogEvent) -> None:
            lines.append(eventAsText(event, includeTraceback=True))

        observer: Any = observe
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        return lines
