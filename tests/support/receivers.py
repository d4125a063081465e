"""Receivers for the web pages to call, each named after what it does, and a site around them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.ssl import CertificateOptions
from twisted.trial.unittest import TestCase

from smsdaemon.domain.model import Receipt, Submission
from smsdaemon.providers.generic import GenericProvider
from smsdaemon.web.bounded import BoundedSite, Bounds
from smsdaemon.web.receiver import Receiver, ReceiverPages
from tests.support.peers import listen
from tests.support.raw_peer import eventually

reactor: Any = _reactor
MESSAGE_ID = UUID("0192c2a4-0000-7000-8000-000000000001")
RECEIPT = Receipt(id=MESSAGE_ID, duplicate=False)


class RecordingReceiver:
    """Takes everything."""

    def __init__(self) -> None:
        self.submissions: list[Submission] = []

    def receive(self, submission: Submission) -> Deferred[Receipt]:
        self.submissions.append(submission)
        return succeed(RECEIPT)


class SilentReceiver(RecordingReceiver):
    """Never answers by itself; a test may fire what waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Deferred[Receipt]] = []
        self.cancelled: list[Deferred[Receipt]] = []

    def receive(self, submission: Submission) -> Deferred[Receipt]:
        self.submissions.append(submission)
        d: Deferred[Receipt] = Deferred(self.cancelled.append)
        self.waiting.append(d)
        return d

    def answer(self) -> None:
        """Everything that waits is stored now, in the order in which it came."""
        waiting, self.waiting = self.waiting, []
        for d in waiting:
            d.callback(RECEIPT)


class FailingReceiver:
    """Fails, or raises at once."""

    def __init__(self, error: BaseException, *, at_once: bool = False) -> None:
        self._error, self._at_once = error, at_once

    def receive(self, submission: Submission) -> Deferred[Receipt]:
        if self._at_once:
            raise self._error
        return fail(self._error)


class WatchedSite(BoundedSite):
    """Knows its connections, so that a test can wait for their end."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.channels: list[Any] = []

    def buildProtocol(self, addr: Any) -> Any:
        channel = super().buildProtocol(addr)
        self.channels.append(channel)
        return channel

    def open(self) -> int:
        """How many peers are connected."""
        return sum(bool(channel.transport.connected) for channel in self.channels)


class Served:
    """The pages of the public listener around a receiver, on a port of this machine until the test ends."""

    def __init__(
        self,
        test: TestCase,
        receiver: Receiver,
        *,
        bounds: Bounds | None = None,
        clock: IReactorTime | None = None,
        tls: CertificateOptions | None = None,
    ) -> None:
        self.ready = True
        self.observed: list[int] = []
        pages = ReceiverPages(
            receiver=receiver,
            provider=GenericProvider(),
            observe=self._observe,
            ready=lambda: self.ready,
            clock=clock or reactor,
            watch=lambda *_: None,
        )
        self.site = WatchedSite(
            pages.resource(), clock=reactor, bounds=bounds or Bounds(), observe=self._observe
        )
        self.port = listen(test, self.site, tls)
        test.addCleanup(self._until_all_are_gone)

    def _observe(self, status: int, seconds: float) -> None:
        assert 0 <= seconds < 60, seconds
        self.observed.append(status)

    async def _until_all_are_gone(self) -> None:
        await eventually(lambda: self.site.open() == 0)
