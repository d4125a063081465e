"""A request as twisted.web reads it, whose body is bounded, and which is answered with one write."""

# mypy: allow-untyped-calls

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import server

from smsdaemon.errors import SmsDaemonError
from smsdaemon.web.answers import Answer, refused, wants_json
from smsdaemon.web.errors import BodyTooLarge, UrlTooLong, detail, refusal
from smsdaemon.web.heads import head_lines

if TYPE_CHECKING:
    from smsdaemon.web.bounded import BoundedChannel, BoundedSite

Observe = Callable[[int, float], object]
"""Told the status of an answer and the seconds that it took."""

_AUTHORITY = re.compile(rb"(?i)https?://[^/?#]*")


class BoundedRequest(server.Request):
    """A request that parses neither arguments nor cookies, and whose body is bounded."""

    channel: BoundedChannel
    site: BoundedSite
    _log = Logger()
    gone = False
    """The peer hung up before it was answered."""
    body_too_large = False
    _observe: Observe | None = None

    def __init__(self, channel: BoundedChannel, *args: object, **kw: object) -> None:
        super().__init__(channel, *args, **kw)
        self._bounds = channel.site.bounds
        self._chunks: list[bytes] = []
        self._body_bytes = 0
        self.query = b""
        self.received_at = 0.0

    def __repr__(self) -> str:
        """Without the URL, which may hold a token."""
        return f"<{type(self).__name__} {self.method.decode('latin-1')} at {id(self):#x}>"

    # --- what twisted.web calls ---------------------------------------------------------------

    def gotLength(self, length: int | None) -> None:
        """No file for the body: it is small, or it is refused."""

    def handleContentChunk(self, data: bytes) -> None:
        if self.body_too_large:
            return
        self._body_bytes += len(data)
        if self._body_bytes > self._bounds.max_body_bytes:
            self.refuse_body()
            self.channel.body_exceeded()
        else:
            self._chunks.append(data)

    def refuse_body(self) -> None:
        """From now on body() raises."""
        self.body_too_large = True
        self._chunks.clear()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        self.method, self.uri, self.clientproto = command, path, version
        if not path.startswith(b"/"):
            path = _AUTHORITY.sub(b"", path, count=1)
        self.path, _, self.query = path.partition(b"?")
        self.received_at = self.channel.site.clock.seconds()
        self.process()

    def process(self) -> None:
        self.site = self.channel.site
        self.prepath, self.postpath = [], [unquote_to_bytes(self.path)]
        try:
            self.render(self.site.resource)
        except Exception:  # noqa: BLE001 - whatever it is, the peer is answered and the log has it
            self.processingFailed(Failure())

    def finish(self) -> None:
        """Also called by Klein after an error handler that has answered already."""
        if not (self.gone or self.finished):
            super().finish()

    def getRequestHostname(self) -> bytes:
        """Not what the peer claims: werkzeug, under Klein, fails on some host names."""
        return b"localhost"

    def connectionLost(self, reason: Failure) -> None:
        self.gone = True
        super().connectionLost(reason)

    def processingFailed(self, reason: Failure) -> Failure:
        """Tell the peer of an error of ours; a bug is logged, under a number that the peer hears too."""
        error = reason.value or RuntimeError("a failure without an exception")
        row = refusal(error)
        if isinstance(error, SmsDaemonError):
            text = detail(error, row)
        else:
            incident = secrets.token_hex(4)
            self._log.failure("request failed, incident {incident}", failure=reason, incident=incident)
            text = f"something went wrong here (incident {incident}), please send it again"
        self.answer(refused(row, text, self.wants_json()))
        return reason

    # --- what resources call ------------------------------------------------------------------

    def check_url(self) -> None:
        """Raises UrlTooLong."""
        if len(self.uri) > self._bounds.max_url_bytes:
            raise UrlTooLong(f"the URL is longer than {self._bounds.max_url_bytes} bytes")

    def body(self) -> bytes:
        """The whole body; raises BodyTooLarge, also where not all of it was read yet."""
        if self.body_too_large:
            raise BodyTooLarge(f"the body is larger than {self._bounds.max_body_bytes} bytes")
        return b"".join(self._chunks)

    def header(self, name: bytes) -> bytes:
        """The first such header, b"" where there is none."""
        values = self.requestHeaders.getRawHeaders(name)
        return values[0] if values else b""

    def wants_json(self) -> bool:
        """Whether the peer would rather be answered in JSON than in text."""
        accept = self.requestHeaders.getRawHeaders(b"Accept")
        return accept is not None and wants_json(b",".join(accept))

    def observed_by(self, observe: Observe) -> None:
        """Have ``observe`` told when and how this request is answered."""
        self._observe = observe

    def answer(self, answer: Answer) -> None:
        """Write the whole response at once; does nothing where the peer is gone."""
        if self.gone or self.finished:
            return
        self.code, self.startedWriting = answer.status, 1
        if self.site.winding_down:
            self.channel.persistent = False
        head = head_lines(answer, self.site.date_line(), closes=not self.channel.persistent)
        # One write: each one is a trip through the transport, and TLS makes a record of each.
        self.channel.write(head if self.method == b"HEAD" else head + answer.body)
        observe, seconds = self._observe, self.site.clock.seconds() - self.received_at
        self.finish()
        if observe is not None:
            observe(answer.status, seconds)
