"""Plays SMS providers: they repeat what was not answered 200, and so nothing is sent before its time."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from random import Random
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList, TimeoutError, gatherResults
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionClosed
from twisted.internet.task import deferLater
from twisted.web._newclient import RequestNotSent, RequestTransmissionFailed
from twisted.web.client import Agent, FileBodyProducer, HTTPConnectionPool, ResponseFailed, readBody
from twisted.web.http_headers import Headers

from tests.chaos.calls import Call, Errand, call
from tests.chaos.history import NO_ANSWER, History
from tests.chaos.plan import Composition, Conversation, composition, forgery

PATIENCE_SECONDS = 8.0
HASTE_SECONDS = 1.0
"""After which a hasty provider repeats, on another connection, what may still be answered."""
_HASTY_AT_ONCE = 3
_AGAIN_SECONDS = (0.2, 1.0)
_NEXT_PART_SECONDS = 0.1
_OK = 200
_NO_ANSWER_CAME = (
    ResponseFailed,
    RequestNotSent,
    RequestTransmissionFailed,
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
        await self._pause(random.uniform(0, conversation.pause))
        while not self._stopped:
            number += 1
            composed = composition(self._seed, conversation, number)
            if composed is not None:
                number = await self._in_parts(conversation, number, composed)
            else:
                await self._forge(conversation, number, agent)
                errand = Errand(conversation=conversation, number=number)
                await self._until_answered(errand, agent, random)
            await self._pause(random.expovariate(1 / conversation.pause))

    async def _forge(self, conversation: Conversation, number: int, agent: Agent) -> None:
        """Somebody else sends an SMS in the sender's name first, where the plan has it; once."""
        forged = forgery(self._seed, conversation, number)
        if forged is not None:
            await self._request(Errand(conversation=conversation, number=-number, forgery=forged), agent)

    async def _in_parts(self, conversation: Conversation, number: int, composed: Composition) -> int:
        """Send the parts one after the other, without waiting for answers to the others; then for all.

        Each comes by any connection. Gives the number of the SMS that was sent last.
        """
        last, sent = number, []
        for place, part in enumerate(composed.sends):
            random = Random(f"{self._seed}/send/{conversation.name}/{number}/{place}")
            if place == composed.interlude:
                last += 1
                between = Errand(conversation=conversation, number=last)
                await self._until_answered(between, random.choice(self._agents), random)
            errand = Errand(conversation=conversation, number=number, part=part, total=composed.total)
            sending = self._until_answered(errand, random.choice(self._agents), random)
            sent.append(Deferred.fromCoroutine(sending))
            await self._pause(random.uniform(0, _NEXT_PART_SECONDS))
        await gatherResults(sent, consumeErrors=True)
        return last

    async def _until_answered(self, errand: Errand, agent: Agent, random: Random) -> None:
        while not self._given_up:
            if errand.conversation.habit == "hasty":
                status = await self._hastily(errand, agent)
            else:
                status = await self._request(errand, agent)
            if status == _OK:
                return
            await self._pause(random.uniform(*_AGAIN_SECONDS))

    async def _hastily(self, errand: Errand, agent: Agent) -> int:
        """The first 200 to one of several requests, or what the last of them heard."""
        asked = [self._begin(errand, agent)]
        while True:
            more = len(asked) < _HASTY_AT_ONCE
            status = await _first(self._wire.reactor, asked, HASTE_SECONDS if more else PATIENCE_SECONDS)
            if status == _OK or (not more and all(d.called for d in asked)):
                return status
            if more:
                asked.append(self._begin(errand, agent))

    def _begin(self, errand: Errand, agent: Agent) -> Deferred[int]:
        d = Deferred.fromCoroutine(self._request(errand, agent))
        self._open.add(d)

        def ended(status: int) -> int:
            self._open.discard(d)
            return status

        return d.addCallback(ended)

    async def _request(self, errand: Errand, agent: Agent) -> int:
        """Make one request; NO_ANSWER where none came."""
        called = call(errand)
        request = self._wire.history.begin("request", **errand.known())
        answering = Deferred.fromCoroutine(self._ask(agent, called))
        answering.addTimeout(PATIENCE_SECONDS, self._wire.reactor)
        try:
            status, id = await answering
        except _NO_ANSWER_CAME as error:
            self._wire.history.end(request, status=NO_ANSWER, error=type(error).__name__)
            return NO_ANSWER
        self._wire.history.end(request, status=status, id=id)
        return status

    async def _ask(self, agent: Agent, called: Call) -> tuple[int, str | None]:
        headers = Headers({name: [value] for name, value in called.headers.items()})
        body = FileBodyProducer(BytesIO(called.body)) if called.body else None
        url = f"{self._wire.url}{called.path}"
        response: Any = await agent.request(called.method.encode(), url.encode(), headers, body)
        await readBody(response)
        ids = response.headers.getRawHeaders("SMS-Message-Id", [None])
        return response.code, ids[0]

    def _pause(self, seconds: float) -> Deferred[None]:
        return deferLater(self._wire.reactor, seconds)


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
