"""Host names, of targets and of PostgreSQL: a look-up that hangs stands in nobody else's way.

The system's look-up (getaddrinfo) blocks, cannot be cancelled, and takes tens of seconds where a name
server is silent. In the reactor's ten threads, ten attempts at one such target kept all others waiting;
libpq looks its hosts up in the reactor's own thread.
"""

from __future__ import annotations

import socket
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any

from attrs import Factory, define
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.python.failure import Failure

from smsdaemon.errors import NameNotFound

AT_ONCE = 64
"""Look-ups, and so threads."""
IN_ONE_ZONE = 4
"""Look-ups at once of names that end alike, and so are likely to hang together."""

LATE_SECONDS = 60.0
"""How long an answer is kept that came when nobody waited for it any more."""

LookUp = Callable[[str], Sequence[str]]
"""Gives the addresses of a name, none where it has none; may block, and raise OSError."""


class LookUpReactor(IReactorTime, IReactorFromThreads):
    """The parts of a reactor that look-ups need."""


def system_look_up(host: str) -> Sequence[str]:
    """Addresses by the system's ways (/etc/hosts, DNS, …), those to try first in front."""
    return _addresses(host, 0)


def _addresses(host: str, flags: int) -> Sequence[str]:
    # As bytes: Python would have its IDNA codec look at text.
    found = socket.getaddrinfo(host.encode(), None, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys(_address(sockaddr) for _, _, _, _, sockaddr in found))


def _literal(host: str) -> Sequence[str]:
    """The address that it is, and not the name of; none where it is a name."""
    try:
        return _addresses(host, socket.AI_NUMERICHOST)
    except socket.gaierror:
        return ()


def _address(sockaddr: tuple[Any, ...]) -> str:
    scope = sockaddr[3] if len(sockaddr) == 4 else 0
    return f"{sockaddr[0]}%{scope}" if scope and "%" not in sockaddr[0] else str(sockaddr[0])


@define(eq=False)
class _LookUp:
    host: str
    zone: str
    began_at: float | None = None
    """None while it waits for its turn."""
    waiting: list[Deferred[Sequence[str]]] = Factory(list)


class Names:
    """One look-up at a time for each name, whoever waits for it; few for each zone, and a bound for all."""

    def __init__(self, *, reactor: LookUpReactor, look_up: LookUp, patience: float) -> None:
        """``patience``: seconds after which nobody waits for a look-up any more."""
        self._reactor, self._look_up, self._patience = reactor, look_up, patience
        self._threads = _Threads()
        self._of: dict[str, _LookUp] = {}
        self._queue: deque[_LookUp] = deque()
        self._in_zone: Counter[str] = Counter()
        self._late: OrderedDict[str, tuple[float, Sequence[str]]] = OrderedDict()
        """When, and which, for who asks next: a server that is slower than anybody waits is of use too."""
        self._closed = False

    def addresses(self, host: str) -> Deferred[Sequence[str]]:
        """Find at least one; fails with NameNotFound. Who cancels it does not end the look-up."""
        known = _literal(host) or self._came_late(host)
        if known:
            return succeed(known)
        if self._closed:
            return fail(NameNotFound("this process stops"))
        look_up = self._of.get(host)
        if look_up is None:
            look_up = self._of[host] = _LookUp(host, _zone(host))
            self._queue.append(look_up)
        elif look_up.began_at is not None and self._age(look_up.began_at) >= self._patience:
            return fail(NameNotFound("the look-up of its name hangs"))
        d: Deferred[Sequence[str]] = Deferred(lambda d: self._forget(look_up, d))
        look_up.waiting.append(d)
        self._begin_some()
        return d

    def close(self) -> None:
        """Begin no more; what hangs is left to its thread, which does not keep the process alive."""
        self._closed = True
        self._threads.end()

    def _came_late(self, host: str) -> Sequence[str]:
        at, found = self._late.pop(host, (0.0, ()))
        return found if self._age(at) < LATE_SECONDS else ()

    def _age(self, began_at: float) -> float:
        return self._reactor.seconds() - began_at

    def _forget(self, look_up: _LookUp, d: Deferred[Sequence[str]]) -> None:
        if d in look_up.waiting:  # else it is being answered
            look_up.waiting.remove(d)
        if look_up.began_at is None and not look_up.waiting:
            self._queue.remove(look_up)
            del self._of[look_up.host]

    def _begin_some(self) -> None:
        for look_up in tuple(self._queue):
            if self._threads.busy >= AT_ONCE:
                return
            if self._in_zone[look_up.zone] < IN_ONE_ZONE:
                self._queue.remove(look_up)
                self._begin(look_up)

    def _begin(self, look_up: _LookUp) -> None:
        look_up.began_at = self._reactor.seconds()
        self._in_zone[look_up.zone] += 1

        def work() -> None:
            try:
                found: Sequence[str] | Failure = self._look_up(look_up.host)
            except Exception:  # noqa: BLE001 (whatever it is, it is theirs who wait)
                found = Failure()
            self._reactor.callFromThread(self._ended, look_up, found)

        try:
            self._threads.do(work)
        except RuntimeError:
            self._ended(look_up, Failure(NameNotFound("the system has no thread for the look-up")))

    def _ended(self, look_up: _LookUp, found: Sequence[str] | Failure) -> None:
        self._threads.busy -= 1
        self._in_zone[look_up.zone] -= 1
        if not self._in_zone[look_up.zone]:
            del self._in_zone[look_up.zone]
        del self._of[look_up.host]
        if not found:
            found = Failure(NameNotFound("the name does not resolve"))
        elif isinstance(found, Failure) and found.check(OSError):
            found = Failure(NameNotFound(f"the name does not resolve: {_reason(found)}"))
        waiting, look_up.waiting = look_up.waiting, []
        if not waiting and not isinstance(found, Failure):
            self._late[look_up.host] = (self._reactor.seconds(), found)
            if len(self._late) > AT_ONCE:
                self._late.popitem(last=False)
        for d in waiting:
            if not d.called:  # cancelled by what another was told
                d.callback(found)  # a failure too
        if not self._closed:
            self._begin_some()


def _reason(failure: Failure) -> str:
    error = failure.value
    return getattr(error, "strerror", None) or type(error).__name__


def _zone(host: str) -> str:
    """The last two labels: more than that share name servers, but not much more."""
    return ".".join(host.lower().removesuffix(".").split(".")[-2:])


class _Threads:
    """As many as there was ever to do at once. The process' end does not wait for them."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._count = 0
        self.busy = 0
        """How much has been given to them; whoever hears of its end counts it down."""

    def do(self, work: Callable[[], None]) -> None:
        self.busy += 1
        if self.busy > self._count:
            Thread(target=self._run, name="look-ups", daemon=True).start()
            self._count += 1
        self._work.put(work)

    def end(self) -> None:
        """Each ends when it has nothing to do."""
        for _ in range(self._count):
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
