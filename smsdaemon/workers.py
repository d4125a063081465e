"""Who accepts and delivers: one worker in this process, or several in processes of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IProtocolFactory

from smsdaemon.doors import utc_now
from smsdaemon.listening import Listening
from smsdaemon.settings import Settings
from smsdaemon.worker import Worker
from smsdaemon.worker_state import LiveWorker


def count(settings: Settings) -> int:
    """How many workers there are to be; "auto": one for each core that this process may use."""
    return len(os.sched_getaffinity(0)) if settings.workers == "auto" else settings.workers


class Crew(Protocol):
    """All workers of this daemon."""

    factories: Mapping[str, IProtocolFactory]
    """By the key of the listeners: what the public ports are to be bound with."""

    def bound(self, public: Listening) -> None:
        """The ports are there; nothing runs yet. Raises ConfigurationError."""
        ...

    def start(self, on_hopeless: Callable[[str], object]) -> None:
        """Begin with what needs no PostgreSQL.

        ``on_hopeless`` is told why, once, when there is no point in going on.
        """
        ...

    def database_ready(self) -> None:
        """PostgreSQL has the schema."""
        ...

    def workers(self) -> Sequence[LiveWorker]:
        """How each of them is."""
        ...

    def wind_down(self) -> None:
        """The end is near: be ready for no more."""
        ...

    def stop(self) -> Deferred[None]:
        """End in order, after the ports were closed; fires when nobody works any more."""
        ...


class Alone:
    """The one worker of a daemon that needs no supervisor."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._since: datetime = utc_now()
        self.factories: Mapping[str, IProtocolFactory] = worker.door.factories

    def bound(self, public: Listening) -> None:
        """The ports were made with the worker's own factories: there is nothing to do."""

    def start(self, on_hopeless: Callable[[str], object]) -> None:
        self._worker.start()

    def database_ready(self) -> None:
        self._worker.database_ready()

    def workers(self) -> Sequence[LiveWorker]:
        return [
            LiveWorker(
                number=1,
                pid=os.getpid(),
                since=self._since,
                restarts=0,
                silent_seconds=0.0,
                stalled=False,
                state=self._worker.state(),
            )
        ]

    def wind_down(self) -> None:
        self._worker.wind_down()

    def stop(self) -> Deferred[None]:
        return ensureDeferred(self._worker.stop())
