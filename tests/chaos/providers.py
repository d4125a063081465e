"""Plays SMS providers: they repeat what was not answered 200, and so nothing is sent before its time."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any
from urllib.parse import urlencode

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList, TimeoutError
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionClosed
from twisted.internet.task import deferLater
from twisted.web._newclient import RequestNotSent
from twisted.web.client import Agent, HTTPConnectionPool, ResponseFailed, readBody

from tests.chaos.history import NO_ANSWER, History
from tests.chaos.plan import PAUSE_SECONDS, Conversation

PATIENCE_SECONDS = 8.0
HASTE_SECONDS = 1.0
"""After which a hasty provider repeats, on another connection, what may still be answered."""
_HASTY_AT_ONCE = 3
_AGAIN_SECONDS = (0.2, 1.0)
_OK = 200
_NO_ANSWER_CAME = (
    ResponseFailed,
    RequestNotSent,
    ConnectError,
    ConnectionClosed,
    ConnectingCancelledError,
    TimeoutError,
)


@frozen(kw_only=True)
class Wire:
    """How requests go out."""

    reactor: Any
    url: str
    history: History


class Providers:
    """All conversations at once, until ``stop``; each then ends when its last SMS was answered 200."""

    def __init__(self, wire: Wire, conversations: Sequence[Conversation], seed: int) -> None:
        self._wire, self._seed = wire, seed
        self._conversations = conversations
        # One keeps its connections open, one opens one for each request.
        self._keeping = _pool(wire.reactor, persistent=True)
        self._agents = (
            Agent(wire.reactor, pool=self._keeping),
            Agent(wire.reactor, pool=_pool(wire.reactor, persistent=False)),
        )
        self._stopped = False
        self._given_up = False
        self._open: set[Deferred[int]] = set()
        self._running: list[Deferred[None]] = []

    def start(self) -> None:
        self._running = [Deferred.fromCoroutine(self._converse(each)) for each in self._conversations]

    async def stop(self, seconds: float) -> None:
        """Send nothing new; come back when all was answered, or after a while."""
        self._stopped = True
        late = self._wire.reactor.callLater(seconds, setattr, self, "_given_up", True)
        await DeferredList(self._running, fireOnOneErrback=True, consumeErrors=True)
        await DeferredList(list(self._open))
        if late.active():
            late.cancel()
        await self._keeping.closeCachedConnections()

    async def _converse(self, conversation: Conversation) -> None:
        random = Random(f"{self._seed}/provider/{conversation.name}")
        agent = self._agents[random.randrange(len(self._agents))]
        number = 0
        await self._pause(random.uniform(0, PAUSE_SECONDS))
        while not self._stopped:
            number += 1
            await self._until_answered(conversation, number, agent, random)
            await self._pause(random.expovariate(1 / PAUSE_SECONDS))

    async def _until_answered(
        self, conversation: Conversation, number: int, agent: Agent, random: Random
    ) -> None:
        while not self._given_up:
            if conversation.habit == "hasty":
                status = await self._hastily(conversation, number, agent)
            else:
                status = await self._request(conversation, number, agent)
            if status == _OK:
                return
            await self._pause(random.uniform(*_AGAIN_SECONDS))

    async def _hastily(self, conversation: Conversation, number: int, agent: Agent) -> int:
        """The first 200 to one of several requests, or what the last of them heard."""
        asked = [self._begin(conversation, number, agent)]
        while True:
            more = len(asked) < _HASTY_AT_ONCE
            status = await _first(self._wire.reactor, asked, HASTE_SECONDS if more else PATIENCE_SECONDS)
            if status == _OK or (not more and all(d.called for d in asked)):
                return status
            if more:
                asked.append(self._begin(conversation, number, agent))

    def _begin(self, conversation: Conversation, number: int, agent: Agent) -> Deferred[int]:
        d = Deferred.fromCoroutine(self._request(conversation, number, agent))
        self._open.add(d)

        def ended(status: int) -> int:
            self._open.discard(d)
            return status

        return d.addCallback(ended)

    async def _request(self, conversation: Conversation, number: int, agent: Agent) -> int:
        """Make one request; NO_ANSWER where none came."""
        known = {"identified": conversation.identified, "conversation": conversation.name, "number": number}
        request = self._wire.history.begin("request", **known)
        answering = Deferred.fromCoroutine(self._ask(agent, _query(conversation, number)))
        answering.addTimeout(PATIENCE_SECONDS, self._wire.reactor)
        try:
            status, id = await answering
        except _NO_ANSWER_CAME as error:
            self._wire.history.end(request, status=NO_ANSWER, error=type(error).__name__)
            return NO_ANSWER
        self._wire.history.end(request, status=status, id=id)
        return status

    async def _ask(self, agent: Agent, query: str) -> tuple[int, str | None]:
        response: Any = await agent.request(b"GET", f"{self._wire.url}SMSReceiver?{query}".encode())
        await readBody(response)
        ids = response.headers.getRawHeaders("SMS-Message-Id", [None])
        return response.code, ids[0]

    def _pause(self, seconds: float) -> Deferred[None]:
        return deferLater(self._wire.reactor, seconds)


def _query(conversation: Conversation, number: int) -> str:
    fields = {
        "receiver": conversation.receiver,
        "sender": conversation.sender,
        "message": conversation.text(number),
    }
    if conversation.identified:
        fields["message_id"] = f"{conversation.name}/{number}"
    return urlencode(fields)


def _pool(reactor: Any, *, persistent: bool) -> HTTPConnectionPool:
    pool = HTTPConnectionPool(reactor, persistent=persistent)
    pool.retryAutomatically = False  # every request is to be known of
    pool.maxPersistentPerHost = 100
    pool.cachedConnectionTimeout = 5
    return pool


def _first(reactor: Any, asked: Sequence[Deferred[int]], seconds: float) -> Deferred[int]:
    """A 200 as soon as one of these has it; NO_ANSWER when all have ended, or time is up."""
    found: Deferred[int] = Deferred()
    late = reactor.callLater(seconds, found.callback, NO_ANSWER)

    def ended(status: int) -> int:
        if not found.called and (status == _OK or all(d.called for d in asked)):
            late.cancel()
            found.callback(status)
        return status

    for d in asked:
        d.addCallback(ended)
    return found
