"""How many file descriptors this process may have, and how many of them peers may take."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.logger import ILogFilterPredicate, LogEvent, PredicateResult
from zope.interface import implementer

MOST_PEERS = 10_000
"""Connections of peers at once, however many descriptors there are: each costs memory as well."""
FILES = 64
"""For the log, the journal, listeners, threads that look up names, and what else is open."""

QUIET_SECONDS = 60.0

_ENOUGH = 65_536


@frozen(kw_only=True)
class PeerRoom:
    """Connections of peers at once."""

    connections: int
    """That are served."""
    told_connections: int
    """That are told, on top, that there are too many."""


def raise_limit() -> int:
    """Let this process have as many descriptors as it may, within reason; how many that is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return _ENOUGH if soft == resource.RLIM_INFINITY else soft


def peer_room(descriptors: int, others: int) -> PeerRoom:
    """What peers may take of so many descriptors where so many may be needed for others.

    ``others``: connections to PostgreSQL and to targets. Peers get half of what is scarce: the targets
    seldom need all that they may.
    """
    room = min(MOST_PEERS, max(descriptors - FILES - others, descriptors // 2))
    told = max(1, room // 20)
    return PeerRoom(connections=max(1, room - told), told_connections=told)


@implementer(ILogFilterPredicate)
class OnceAMinute:
    """Lets a line a minute pass of what Twisted says while there are no descriptors left.

    It closes the connections that come then, which keeps the listener from spinning, and says so in up to
    three lines for each: a peer could fill a disk with that.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        """``seconds``: a clock that never goes back."""
        self._seconds = seconds
        self._quiet_until = seconds()

    def __call__(self, event: LogEvent) -> Any:
        if event.get("log_namespace") != "twisted.internet.tcp.Port":
            return PredicateResult.maybe
        now = self._seconds()
        if now < self._quiet_until:
            return PredicateResult.no
        self._quiet_until = now + QUIET_SECONDS
        return PredicateResult.maybe
