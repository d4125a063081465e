"""All that is known of a run, as the checker looks at it; pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import cached_property

from attrs import define, field, frozen

from tests.chaos import kinds
from tests.chaos.history import NEVER, Attempt, Events, Fault, Request, Row

Sms = tuple[str, int]

OK = 200
JOURNAL_SECONDS = 0.4
"""An answer that takes longer may come from the journal: PostgreSQL committed nothing for so long."""
RECOVERY_SECONDS = 2.0
"""After a fault was undone, what it had begun may still show."""
THAW_SECONDS = 1.0
"""For a process that goes on to do what it was about to do when it was stopped."""
CLOSING_SECONDS = 0.1
"""By which the end of a connection may come later than the next attempt, which has another one."""
_EMPTY_JOURNAL = (*kinds.OF_POSTGRES, *kinds.OF_THE_DAEMON)
"""While none of these happens, an SMS is in PostgreSQL when it is answered."""


@frozen(kw_only=True)
class Terms:
    """What the daemon was told, and where SMS were to go."""

    lease: float
    timeout: float
    concatenation: float
    """How long parts are waited for."""
    chains: Mapping[str, Sequence[str]]
    """The targets of each conversation, in order of hops."""


@define(kw_only=True)
class Run:
    """All that is known of a run."""

    events: Events
    rows: Sequence[Row]
    terms: Terms
    aliases: Mapping[str, str] = field(factory=dict)
    """Ids that providers heard and that are no row's, to the id that the public command resolves them to."""

    @cached_property
    def requests_of(self) -> Mapping[Sms, list[Request]]:
        """By SMS, and of providers only."""
        genuine = [request for request in self.events.requests if not request.forged]
        return grouped(genuine, lambda request: request.sms)

    @cached_property
    def forged(self) -> Container[Sms]:
        return {request.sms for request in self.events.requests if request.forged}

    @cached_property
    def in_parts(self) -> Mapping[Sms, Mapping[int, list[Request]]]:
        """The requests that brought each part of concatenated SMS."""
        return {
            sms: grouped(requests, lambda request: request.part)
            for sms, requests in self.requests_of.items()
            if requests[0].total
        }

    @cached_property
    def rows_of(self) -> Mapping[Sms, list[Row]]:
        return grouped(self.rows, lambda row: row.sms)

    @cached_property
    def row_of(self) -> Mapping[str, Row]:
        """By id."""
        return {row.id: row for row in self.rows}

    @cached_property
    def attempts_of(self) -> Mapping[str, list[Attempt]]:
        """By delivery, in the order in which they began."""
        return grouped(sorted(self.events.attempts, key=_began), lambda attempt: attempt.delivery)

    @cached_property
    def conversations(self) -> Mapping[tuple[str, str], list[Attempt]]:
        """The attempts of each at each target, in the order in which they began."""
        attempts = sorted(self.events.attempts, key=_began)
        return grouped(attempts, lambda attempt: (attempt.conversation, attempt.target))

    @cached_property
    def first_attempt(self) -> Mapping[str, float]:
        """When that of an SMS began, by its id."""
        ordered = sorted(self.events.attempts, key=_began, reverse=True)
        return {attempt.id: attempt.began for attempt in ordered}

    @cached_property
    def heard(self) -> Container[str]:
        """The ids of stored SMS that a provider heard of."""
        return {self.resolved(request.id) for request in self.events.requests if request.id is not None}

    def resolved(self, id: str) -> str:
        return self.aliases.get(id, id)

    def is_whole(self, row: Row | Attempt) -> bool:
        """Whether no part of it is missing."""
        requests = self.requests_of.get(row.sms)
        return not requests or set(row.pieces) >= set(range(1, requests[0].total + 1))

    def faults(self, among: Container[str], since: float, until: float) -> list[Fault]:
        """Those that may show in what happened between these times."""
        return [
            fault
            for fault in self.events.faults
            if fault.kind in among and fault.began <= until and fault.ended + RECOVERY_SECONDS >= since
        ]

    @cached_property
    def _troubled(self) -> list[tuple[float, float]]:
        """The times when the journal may hold something; they do not touch each other."""
        times: list[tuple[float, float]] = []
        faults = [fault for fault in self.events.faults if fault.kind in _EMPTY_JOURNAL]
        for fault in sorted(faults, key=_began):
            began, ended = fault.began, fault.ended + RECOVERY_SECONDS
            if times and began <= times[-1][1]:
                began, ended = times[-1][0], max(ended, times.pop()[1])
            times.append((began, ended))
        return times

    def in_postgres_by(self, request: Request) -> float:
        """When what this request brought was there for certain: it may have been journaled before."""
        if request.status != OK:
            return NEVER
        slow = request.ended - request.sent > JOURNAL_SECONDS
        by = request.ended + RECOVERY_SECONDS if slow else request.ended
        place = bisect_right(self._troubled, (by, NEVER))
        if place and self._troubled[place - 1][1] >= request.sent:
            return max(by, self._troubled[place - 1][1])
        return by

    def freeze_before(self, attempt: Attempt) -> Fault | None:
        """That of the process which may just have woken up to make this attempt."""
        for fault in self.events.faults:
            woken = fault.ended if fault.kind in kinds.FREEZES else float("-inf")
            if woken - CLOSING_SECONDS <= attempt.began <= woken + THAW_SECONDS:
                return fault
        return None

    def lost_its_lease_before(self, attempt: Attempt) -> bool:
        """Whether it was sent by a process that woke up after another had taken over its delivery.

        It had ended, by contract 5, before it arrived: the later one bears a higher number.
        """
        overtaken = any(
            other.attempt > attempt.attempt and other.began < attempt.began
            for other in self.attempts_of[attempt.delivery]
        )
        return overtaken and self.freeze_before(attempt) is not None


def grouped(items: Iterable, key: Callable) -> Mapping:  # type: ignore[type-arg]
    groups = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def _began(happening: Attempt | Fault) -> float:
    return happening.began


def name_of(sms: Sms) -> str:
    return f"SMS {sms[1]} of conversation {sms[0]}"


def of_part(part: int, sms: Sms) -> str:
    return f"part {part} of {name_of(sms)}"
