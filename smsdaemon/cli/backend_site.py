"""The backend that `smsdaemon sink` plays: what it notes of each delivery, and what it answers."""

from __future__ import annotations

import binascii
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

from attrs import Factory as make
from attrs import define, field, frozen
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

REFUSED_STATUS, WRONG_STATUS = 503, 401


@frozen(kw_only=True)
class Attempt:
    """One attempt as it came; what is missing in it is "" or 0."""

    at: datetime
    id: str
    delivery: str
    number: int
    receiver: str
    sender: str = field(repr=False)
    text: str = field(repr=False)
    target: str
    signature_ok: bool | None
    """None: no secret was given to check it with."""
    duplicate: bool
    """The same delivery was answered with 2xx before."""
    late: bool
    """An SMS of the same conversation that was received after this one was delivered before it."""
    status: int


@define(kw_only=True)
class Counts:
    """What came in all."""

    attempts: int = 0
    delivered: int = 0
    duplicates: int = 0
    late: int = 0
    wrong: int = 0


@define
class Record:
    """Tells repeats and disorder; keeps one entry for each delivery and each conversation."""

    counts: Counts = make(Counts)
    _delivered: set[str] = make(set)
    _latest: dict[tuple[str, str, str], str] = make(dict)

    def note(self, at: datetime, payload: dict[str, Any], signature_ok: bool | None, status: int) -> Attempt:
        data = _table(payload.get("data"))
        delivery = str(data.get("delivery", ""))
        target = str(_table(data.get("target")).get("name", ""))
        conversation = (str(data.get("connector", "")), str(data.get("sender", "")), target)
        received_at = str(data.get("received_at", ""))
        duplicate = delivery in self._delivered
        late = not duplicate and received_at < self._latest.get(conversation, "")
        if 200 <= status < 300 and not duplicate:
            self._delivered.add(delivery)
            self._latest[conversation] = max(received_at, self._latest.get(conversation, ""))
            self.counts.delivered += 1
        self.counts.attempts += 1
        self.counts.duplicates += duplicate
        self.counts.late += late
        self.counts.wrong += signature_ok is False
        attempt = data.get("attempt")
        return Attempt(
            at=at,
            id=str(data.get("id", "")),
            delivery=delivery,
            number=attempt if isinstance(attempt, int) else 0,
            receiver=str(data.get("receiver", "")),
            sender=str(data.get("sender", "")),
            text=str(data.get("text", "")),
            target=target,
            signature_ok=signature_ok,
            duplicate=duplicate,
            late=late,
            status=status,
        )


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def signature_ok(secrets: Sequence[Webhook], body: bytes, headers: dict[str, str]) -> bool | None:
    """Whether one of the secrets has signed it; None where there is none to ask."""
    if not secrets:
        return None
    for secret in secrets:
        try:
            secret.verify(body, headers, json_parse=False)
        except (WebhookVerificationError, ValueError):  # what cannot be decoded is a ValueError
            continue
        return True
    return False


def webhook(secret: str) -> Webhook:
    """The verifier of a ``whsec_…`` secret; raises ValueError."""
    try:
        if secret.startswith("whsec_"):
            return Webhook(secret)
    except binascii.Error:
        pass
    raise ValueError("not whsec_ and base64")


@frozen(kw_only=True)
class Behaviour:
    """How the backend answers."""

    statuses: Iterator[int]
    """Of each attempt, one after the other."""
    fails: Callable[[], bool]
    """Whether this attempt is refused, whatever its status would be."""
    delay: float = 0.0
    retry_after: str | None = None
    route: dict[str, str] | None = None
    """Where a routing application sends the SMS on to, as in ``{"acd_group": "support"}``."""

    def status(self, signature: bool | None) -> int:
        """The answer to the next attempt."""
        if signature is False:
            return WRONG_STATUS
        return REFUSED_STATUS if self.fails() else next(self.statuses)


class BackendResource(Resource):
    """Takes deliveries at any path."""

    isLeaf = True

    def __init__(
        self,
        *,
        behaviour: Behaviour,
        secrets: Sequence[Webhook],
        clock: IReactorTime,
        now: Callable[[], datetime],
        on_attempt: Callable[[Attempt], None],
    ) -> None:
        """``on_attempt`` is called when an answer is due."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.record = Record()
        self._behaviour = behaviour
        self._secrets = secrets
        self._clock = clock
        self._now = now
        self._on_attempt = on_attempt

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"Content-Type", b"text/plain")
        return b"smsdaemon sink: deliveries come as POST\n"

    def render_POST(self, request: Request) -> int:
        due = self._clock.callLater(self._behaviour.delay, self._answer, request)

        def gone(_: Failure) -> None:
            if due.active():
                due.cancel()

        request.notifyFinish().addErrback(gone)
        return NOT_DONE_YET

    def _answer(self, request: Request) -> None:
        body = request.content.read() if request.content is not None else b""
        headers = {
            name.decode("latin-1"): values[-1].decode("latin-1")
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        signature = signature_ok(self._secrets, body, headers)
        status = self._behaviour.status(signature)
        attempt = self.record.note(self._now(), _payload(body), signature, status)
        request.setResponseCode(status)
        answer = b""
        if 200 <= status < 300 and self._behaviour.route is not None:
            request.setHeader(b"Content-Type", b"application/json")
            answer = json.dumps({"route": self._behaviour.route}).encode()
        if status >= 300 and self._behaviour.retry_after is not None:
            request.setHeader(b"Retry-After", self._behaviour.retry_after.encode())
        if status not in (204, 304):
            request.setHeader(b"Content-Length", b"%d" % len(answer))
            request.write(answer)
        self._on_attempt(attempt)
        request.finish()


def _payload(body: bytes) -> dict[str, Any]:
    try:
        return _table(json.loads(body))
    except (ValueError, RecursionError):
        return {}
