"""Names of targets: a look-up that hangs stands in nobody else's way.

The system's look-up (getaddrinfo) blocks, cannot be cancelled, and takes tens of seconds where a name
server is silent. In the reactor's ten threads, ten attempts at one such target kept all others waiting.
"""

from __future__ import annotations

import socket
from collections import Counter, deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread

from attrs import Factory, define
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.python.failure import Failure

from smsdaemon.errors import TargetUnreachable

AT_ONCE = 64
"""Look-ups, and so threads."""
IN_ONE_ZONE = 4
"""Look-ups at once of names that end alike, and so are likely to hang together."""

LookUp = Callable[[str], Sequence[str]]
"""Gives the addresses of a name, none where it has none; may block."""


class LookUpReactor(IReactorTime, IReactorFromThreads):
    """The parts of a reactor that look-ups need."""


def system_look_up(host: str) -> Sequence[str]:
    """Addresses by the system's ways (/etc/hosts, DNS, …), those to try first in front."""
    return _addresses(host, 0)


def _addresses(host: str, flags: int) -> Sequence[str]:
    try:
        # As bytes: Python would have its IDNA codec look at text.
        found = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror:
        return ()
    return [str(sockaddr[0]) for _, _, _, _, sockaddr in found]


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
        self._closed = False

    def addresses(self, host: str) -> Deferred[Sequence[str]]:
        """Find at least one; fails with TargetUnreachable. Who cancels it does not end the look-up."""
        literal = _addresses(host, socket.AI_NUMERICHOST)
        if literal:
            return succeed(literal)
        if self._closed:
            return fail(TargetUnreachable("this process stops"))
        look_up = self._of.get(host)
        if look_up is None:
            look_up = self._of[host] = _LookUp(host, _zone(host))
            self._queue.append(look_up)
        elif look_up.began_at is not None and self._age(look_up.began_at) >= self._patience:
            return fail(TargetUnreachable("the look-up of its name hangs"))
        d: Deferred[Sequence[str]] = Deferred(lambda d: self._forget(look_up, d))
        look_up.waiting.append(d)
        self._begin_some()
        return d

    def close(self) -> None:
        """Begin no more; what hangs is left to its thread, which does not keep the process alive."""
        self._closed = True
        self._threads.end()

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
            self._ended(look_up, Failure(TargetUnreachable("the system has no thread for the look-up")))

    def _ended(self, look_up: _LookUp, found: Sequence[str] | Failure) -> None:
        self._threads.busy -= 1
        self._in_zone[look_up.zone] -= 1
        if not self._in_zone[look_up.zone]:
            del self._in_zone[look_up.zone]
        del self._of[look_up.host]
        if not found:
            found = Failure(TargetUnreachable("the name does not resolve"))
        waiting, look_up.waiting = look_up.waiting, []
        for d in waiting:
            if not d.called:  # cancelled by what another was told
                d.callback(found)  # a failure too
        if not self._closed:
            self._begin_some()


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
