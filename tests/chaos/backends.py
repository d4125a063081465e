"""Plays the targets' backends, as badly as their character is, and writes down every attempt."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from typing import IO, Any, cast

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from tests.chaos.history import History
from tests.chaos.plan import Behaviour, Target, absences, behaviour
from tests.chaos.processes import free_port
from tests.chaos.texts import read_text


class Backend:
    """One target's HTTP server."""

    def __init__(self, *, target: Target, reactor: Any, history: History, seed: int) -> None:
        self.target, self._reactor = target, reactor
        self._port = free_port()
        self._attempts = _Attempts(target, reactor, history, seed)
        site = Site(self._attempts)
        site.noisy = False
        self._factory = WrappingFactory(site)
        self._factory.noisy = False
        self._listening: Any = None
        self._absences: Iterator[tuple[float, float]] = absences(seed)
        self._leaving: Deferred[None] | None = None
        self._gone: Deferred[Any] | None = None
        """Fires when the port is free again."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/sms"

    def start(self) -> None:
        while self._listening is None:
            try:
                self._listen()
            except CannotListenError:  # somebody, perhaps another of these, was quicker
                self._port = free_port()
        if self.target.character == "leaving":
            self._leaving = Deferred.fromCoroutine(self._come_and_go())
            self._leaving.addErrback(lambda failure: failure.trap(CancelledError) and None)
            self._leaving.addErrback(_report)

    async def stay(self) -> None:
        """From now on it is there."""
        if self._leaving is not None:
            self._leaving.cancel()
        if self._listening is None:
            assert self._gone is not None
            await self._gone
            self._listen()

    async def close(self) -> None:
        if self._listening is not None:
            await self._listening.stopListening()
        self._cut()

    async def _come_and_go(self) -> None:
        for there, away in self._absences:
            await deferLater(self._reactor, there)
            listening, self._listening = self._listening, None
            self._cut()
            self._gone = maybeDeferred(listening.stopListening)
            await deferLater(self._reactor, away)
            self._listen()

    def _listen(self) -> None:
        self._listening = self._reactor.listenTCP(self._port, self._factory, interface="127.0.0.1")

    def _cut(self) -> None:
        """End all connections; an answer that was written still arrives."""
        for request in list(self._attempts.under_way):
            request.transport.abortConnection()
        for connection in list(self._factory.protocols):
            connection.loseConnection()


class _Attempts(Resource):
    """Where attempts come in."""

    isLeaf = True

    def __init__(self, target: Target, reactor: Any, history: History, seed: int) -> None:
        super().__init__()
        self._target, self._reactor, self._history, self._seed = target, reactor, history, seed
        self._times: Counter[tuple[str, int]] = Counter()
        self.under_way: set[Any] = set()
        """The requests that have no answer yet."""

    def render_POST(self, request: Request) -> int:
        data = json.loads(cast(IO[bytes], request.content).read())["data"]
        said = read_text(data["text"])
        self._times[said.conversation, said.number] += 1
        attempt = self._history.begin(
            "attempt",
            target=self._target.name,
            delivery=data["delivery"],
            id=data["id"],
            conversation=said.conversation,
            number=said.number,
            pieces=said.pieces,
            parts=data["parts"],
            missing=data.get("parts_missing", []),
            attempt=data["attempt"],
        )
        times = self._times[said.conversation, said.number]
        planned = behaviour(self._seed, self._target, said.conversation, said.number, times)
        answering = self._reactor.callLater(planned.delay, self._answer, request, attempt, planned)
        gone: Deferred[None] = request.notifyFinish()
        gone.addErrback(self._closed, request, attempt, answering)
        self.under_way.add(request)
        return NOT_DONE_YET

    def _answer(self, request: Request, attempt: int, planned: Behaviour) -> None:
        self.under_way.discard(request)
        if planned.status is None:
            self._history.end(attempt, end="dropped")
            request.loseConnection()
            return
        # Written down first: the next attempt may begin before this function returns.
        self._history.end(attempt, end="answered", status=planned.status)
        request.setResponseCode(planned.status)
        if planned.retry_after is not None:
            request.setHeader(b"Retry-After", b"%d" % planned.retry_after)
        if planned.status == 200 and self._target.onward:
            request.write(json.dumps({"route": {"acd_group": self._target.onward}}).encode())
        request.finish()

    def _closed(self, _: Failure, request: Request, attempt: int, answering: Any) -> None:
        self.under_way.discard(request)
        if answering.active():
            answering.cancel()
            self._history.end(attempt, end="closed")


def _report(failure: Failure) -> None:
    failure.printTraceback(sys.stdout)
