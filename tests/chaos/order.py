"""The order of a conversation: what is known of when each SMS took its place in it; pure.

An SMS takes its place when it is accepted; one that is sent in parts when the last of them is, and one that
is given up when it is (docs/guarantees.md, ADR 11). Two SMS whose times overlap have no order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import define, frozen

from tests.chaos.evidence import OK, Run, name_of
from tests.chaos.history import NEVER, Attempt, Request

_LONG_AGO = float("-inf")


@frozen(kw_only=True)
class Place:
    """When an SMS took it: between ``earliest`` and ``by``."""

    given_up: bool
    earliest: float
    by: float
    in_postgres_by: float
    """What is given up is so in PostgreSQL: among such SMS others have their place from then on."""


def out_of_order(run: Run) -> Iterator[str]:
    """Attempts of what was accepted earlier that began after an attempt of what was accepted later.

    Of copies that no provider heard of nobody knows when they were accepted; they are not compared.
    """
    for (conversation, target), attempts in run.conversations.items():
        places: dict[str, Place] = {}
        accepted, given_up = _Reached(), _Reached()
        for attempt in attempts:
            if attempt.id not in run.heard or attempt.sms not in run.requests_of:
                continue
            if attempt.id not in places:
                places[attempt.id] = _place_of(run, attempt)
            place = places[attempt.id]
            before = accepted.beyond(place.by) or given_up.beyond(place.in_postgres_by)
            if before and not run.lost_its_lease_before(attempt):
                yield f"{name_of((conversation, attempt.number))} to {target} began after SMS {before}"
            (given_up if place.given_up else accepted).reach(place.earliest, attempt.number)


@define
class _Reached:
    """The latest place of what has begun."""

    earliest: float = _LONG_AGO
    number: int = 0

    def beyond(self, by: float) -> int:
        """The number of the SMS that came after this time; 0: none did."""
        return self.number if self.earliest > by else 0

    def reach(self, earliest: float, number: int) -> None:
        if earliest > self.earliest:
            self.earliest, self.number = earliest, number


def _place_of(run: Run, attempt: Attempt) -> Place:
    sms = attempt.sms
    if sms not in run.in_parts:
        return _accepted(run, [run.requests_of[sms]], copies=False)
    parts = run.in_parts[sms]
    brought = [parts[piece] for piece in attempt.pieces if piece in parts]
    if not run.is_whole(attempt):
        began = run.first_attempt[attempt.id]
        earliest = min((_first_sent(requests) for requests in brought), default=began)
        return Place(
            given_up=True, earliest=earliest + run.terms.concatenation, by=began, in_postgres_by=began
        )
    return _accepted(run, brought, copies=len(run.rows_of[sms]) > 1)


def _accepted(run: Run, brought: Sequence[Sequence[Request]], copies: bool) -> Place:
    """Of one that was complete with the last of these; each was brought by one request or several.

    ``copies``: it was given up once, and made whole by repeats, of which it is not known when they counted.
    """
    by = max(min(_answered(requests), default=NEVER) for requests in brought)
    stored = max(min(map(run.in_postgres_by, requests)) for requests in brought)
    return Place(
        given_up=False,
        earliest=max(map(_first_sent, brought)),
        by=NEVER if copies else by,
        in_postgres_by=NEVER if copies else stored,
    )


def _first_sent(requests: Sequence[Request]) -> float:
    return min(request.sent for request in requests)


def _answered(requests: Sequence[Request]) -> Iterator[float]:
    return (request.ended for request in requests if request.status == OK)
