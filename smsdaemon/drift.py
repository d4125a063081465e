"""Drift: the requests of a provider for a connector are not what they were.

What a request looks like is the set of its fields' names. What a connector's requests looked like so far is
learned from those that were accepted, so that strangers teach nothing; what differs later is flagged until it
has become normal, or somebody has acknowledged it. Only names are kept, never values.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from attrs import define, frozen
from twisted.logger import Logger

from smsdaemon.domain.masking import masked_number
from smsdaemon.domain.model import Connector
from smsdaemon.domain.shapes import FALLBACK, MAX_NEW_NAMES, Shape
from smsdaemon.samples import Samples

DriftKind = Literal["unknown field", "missing field", "charset", "signature", "unreadable"]

LOOK_SECONDS = 0.2
"""After that a connector's requests are looked at this seldom."""
LOOKS_PER_SECOND = 50
"""Of all connectors together: what it costs at most."""
FAILURES = 10
"""Signatures (or requests of a provider that cannot be read) in a row, without a good one between."""
MAX_WATCHED = 1000
"""Connectors with their providers."""
MAX_FLAGGED = 100
"""That are told of one by one."""
FORGET_SECONDS = 7 * 86400.0
"""A connector without requests, and a new name that does not come again, are forgotten after this."""
GRACE_SECONDS = 86400.0
"""What is remembered at a start is kept for this long at least."""


@frozen(kw_only=True)
class DriftState:
    """One connector's requests from one provider differ, in one way."""

    connector: str
    """Its number; empty: it cannot be told, as the requests cannot be read."""
    provider: str
    kind: DriftKind
    names: tuple[str, ...]
    """Of fields; what could not be read, or why a signature was refused."""
    since: float
    """Seconds since 1970."""


@define
class _Run:
    """Failures in a row."""

    number: str
    count: int = 0
    why: str = ""
    since: float = 0.0


_Key = tuple[int, str]
_NOBODY = 0
"""In place of a connector's id, for requests that cannot be read."""


class DriftWatch:
    """Told of requests by the public site; tells what has changed. One for each worker."""

    def __init__(self, *, seconds: Callable[[], float], utc_now: Callable[[], datetime]) -> None:
        """``seconds``: a clock that only goes forward, as a reactor's."""
        self._seconds, self._utc_now = seconds, utc_now
        self._shapes: dict[_Key, Shape] = {}
        self._looked: dict[_Key, float] = {}
        self._runs: dict[_Key, _Run] = {}
        self._second, self._left = -1, LOOKS_PER_SECOND
        self._samples = Samples(seconds)
        self._log = Logger(namespace="smsdaemon.drift")
        self.changed = False
        """Whether there is something to write down."""

    # --- told by the site -----------------------------------------------------------------------

    def due(self, connector: Connector, provider: str) -> bool:
        """Whether this request, which was accepted, should be looked at. Called for every SMS."""
        key = (connector.id, provider)
        if self._runs:
            self._good(key)
        now = self._seconds()
        looked = self._looked.get(key)
        if looked is not None and looked <= now < looked + LOOK_SECONDS:
            return False
        if int(now) != self._second:
            self._second, self._left = int(now), LOOKS_PER_SECOND
        if not self._left or (key not in self._shapes and len(self._shapes) >= MAX_WATCHED):
            return False
        self._left -= 1
        return True

    def look(self, connector: Connector, provider: str, names: Collection[str], fallback: bool) -> None:
        """This is what a request that was accepted looks like."""
        key = (connector.id, provider)
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = Shape(connector.number)
        seen = {*names, FALLBACK} if fallback else names
        unknown, missing = shape.look(seen, self._now())
        if shape.learning or unknown or missing:
            self.changed = True
        if not shape.learning:
            self._looked[key] = self._seconds()
        if FALLBACK in unknown:
            unknown.remove(FALLBACK)
            self._say("charset", connector.number, provider, "text that is not UTF-8")
        if unknown:
            self._say("unknown field", connector.number, provider, ", ".join(unknown))
        if missing:
            self._say("missing field", connector.number, provider, ", ".join(missing))

    def refused(self, connectors: Collection[Connector], provider: str, why: str) -> None:
        """A request's signature or token is wrong. ``why``: without any value of the request."""
        for connector in connectors:
            self._bad((connector.id, provider), connector.number, "signature", why)

    def unreadable(self, provider: str, why: str) -> None:
        """A provider's request could not be read. ``why``: without any value of the request."""
        self._bad((_NOBODY, provider), "", "unreadable", why)

    def _bad(self, key: _Key, number: str, kind: DriftKind, why: str) -> None:
        run = self._runs.get(key)
        if run is None:
            if len(self._runs) >= MAX_WATCHED:
                return
            run = self._runs[key] = _Run(number, since=self._now())
        run.count += 1
        run.why = why
        if run.count == FAILURES:
            self._say(kind, number, key[1], f"{FAILURES} in a row: {why}")

    def _good(self, key: _Key) -> None:
        self._runs.pop(key, None)
        self._runs.pop((_NOBODY, key[1]), None)

    def _say(self, kind: DriftKind, number: str, provider: str, what: str) -> None:
        more = self._samples.take(kind)
        if more is not None:
            self._log.warn(
                "the requests of {provider} for {connector} are not what they were: {kind}: {what}"
                " ({more} more since the last such line)",
                provider=provider,
                connector=masked_number(number) if number else "any connector",
                kind=kind,
                what=what,
                more=more,
            )

    # --- told to operators ----------------------------------------------------------------------

    def states(self) -> tuple[DriftState, ...]:
        """What is flagged, the newest first, and not all of too many."""
        found = []
        for (_, provider), shape in self._shapes.items():
            if shape.new or shape.absent:
                found += _flagged(shape, provider)
        for (connector, provider), run in self._runs.items():
            if run.count >= FAILURES:
                kind: DriftKind = "signature" if connector else "unreadable"
                found.append(_state(run.number, provider, kind, [run.why], run.since))
        found.sort(key=lambda state: state.since, reverse=True)
        return tuple(found[:MAX_FLAGGED])

    def acknowledge(self) -> None:
        """What is flagged is normal from now on."""
        for shape in self._shapes.values():
            shape.acknowledge()
        self._runs.clear()
        self.changed = True

    def forget(self) -> None:
        """What has not been there for a long time."""
        before = self._now() - FORGET_SECONDS
        gone = [key for key, shape in self._shapes.items() if shape.seen_at < before]
        for key in gone:
            del self._shapes[key]
            self._looked.pop(key, None)
        for shape in self._shapes.values():
            shape.forget(before)
        self._runs = {key: run for key, run in self._runs.items() if run.since >= before}

    # --- from start to start --------------------------------------------------------------------

    def memory(self) -> list[dict[str, Any]]:
        """What is known, as JSON; signatures are not: they begin anew."""
        return [
            {
                "connector": connector,
                "provider": provider,
                "number": shape.number,
                "looks": shape.looks,
                "known": sorted(shape.known),
                "always": sorted(shape.always),
                "new": shape.new,
                "absent": shape.absent,
                "seen_at": shape.seen_at,
            }
            for (connector, provider), shape in self._shapes.items()
        ]

    def remember(self, memory: list[dict[str, Any]]) -> None:
        """Raises ValueError, KeyError or TypeError where it is no memory()."""
        # A process that was killed has not written down what it saw last: nobody is forgotten for that.
        seen_at = self._now() - FORGET_SECONDS + GRACE_SECONDS
        for row in memory[:MAX_WATCHED]:
            shape = Shape(
                number=str(row["number"]),
                looks=int(row["looks"]),
                known=set(map(str, row["known"])),
                always=set(map(str, row["always"])),
                new=_counts(row["new"]),
                absent=_counts(row["absent"]),
                seen_at=max(seen_at, float(row["seen_at"])),
            )
            self._shapes[int(row["connector"]), str(row["provider"])] = shape

    def _now(self) -> float:
        return self._utc_now().timestamp()


def _counts(raw: Mapping[str, Any]) -> dict[str, tuple[int, float]]:
    return {str(name): (int(count), float(since)) for name, (count, since) in raw.items()}


def _flagged(shape: Shape, provider: str) -> list[DriftState]:
    found = []
    unknown = {name: since for name, (_, since) in shape.new.items()}
    fallback = unknown.pop(FALLBACK, None)
    if fallback is not None:
        found.append(_state(shape.number, provider, "charset", ["text that is not UTF-8"], fallback))
    kinds: list[tuple[DriftKind, dict[str, float]]] = [
        ("unknown field", unknown),
        ("missing field", shape.missing()),
    ]
    for kind, names in kinds:
        if names:
            found.append(_state(shape.number, provider, kind, sorted(names), min(names.values())))
    return found


def _state(number: str, provider: str, kind: DriftKind, names: list[str], since: float) -> DriftState:
    return DriftState(
        connector=number, provider=provider, kind=kind, names=tuple(names[:MAX_NEW_NAMES]), since=since
    )


def merged(states: Collection[DriftState]) -> list[DriftState]:
    """What several workers tell, as one: each has seen a part of the requests."""
    found: dict[tuple[str, str, DriftKind], DriftState] = {}
    for state in states:
        key = (state.connector, state.provider, state.kind)
        other = found.get(key)
        names = sorted({*state.names, *(other.names if other else ())})
        since = min(state.since, other.since) if other else state.since
        found[key] = _state(state.connector, state.provider, state.kind, names, since)
    return sorted(found.values(), key=lambda state: (state.provider, state.connector, state.kind))


def since_text(state: DriftState) -> str:
    """``2026-11-22T16:43:42Z``."""
    return f"{datetime.fromtimestamp(state.since, UTC):%Y-%m-%dT%H:%M:%SZ}"
