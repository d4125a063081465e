"""Compares what providers, backends and the adversary saw with what the database holds; pure.

What must be true is written in contract sections 3 and 5. Each invariant is a function that gives a line
for each thing that is wrong; no line of any of them holds a text or a number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

from tests.chaos import concatenated, kinds
from tests.chaos.evidence import (
    CLOSING_SECONDS,
    JOURNAL_SECONDS,
    OK,
    Run,
    Terms,
    name_of,
    of_part,
)
from tests.chaos.history import NO_ANSWER, Attempt, Events, Request, Row
from tests.chaos.order import out_of_order

ANSWER_SECONDS = 5.0
"""Contract 3: a 500 comes within this, never by hanging."""
SLACK_SECONDS = 0.5
"""By which a claim may be older than the arrival of its attempt at the backend."""
_GONE, _UNAVAILABLE, _REFUSED = 410, 500, 401


# --- stored once, delivered ---------------------------------------------------------------------


def lost(run: Run) -> Iterator[str]:
    """What was answered 200 and is not there, or did not arrive although its target was there in the end."""
    for sms, requests in run.requests_of.items():
        rows = run.rows_of.get(sms, [])
        if sms not in run.in_parts:
            yield from _not_stored(run, name_of(sms), requests, rows)
            continue
        for part, brought in run.in_parts[sms].items():
            holding = [row for row in rows if part in row.pieces]
            yield from _not_stored(run, of_part(part, sms), brought, holding)
    arrived = {(a.id, a.target) for a in run.events.attempts if a.taken}
    gone = {a.id for a in run.events.attempts if a.status == _GONE}
    for row in run.rows:
        if row.state == "dead" and row.id in gone:
            continue
        if row.state != "delivered":
            yield f"{name_of(row.sms)} is {row.state}, not delivered"
            continue
        for target in run.terms.chains[row.conversation]:
            if (row.id, target) not in arrived:
                yield f"{name_of(row.sms)} is said to be delivered, but {target} never took it"


def _not_stored(run: Run, name: str, requests: Sequence[Request], rows: Sequence[Row]) -> Iterator[str]:
    ids = {row.id for row in rows}
    heard = {request.id for request in requests if request.status == OK}
    if heard and not ids:
        yield f"{name} was answered 200 and is not stored"
    elif nameless := {id for id in heard if id is None or run.resolved(id) not in ids}:
        yield f"{name} was answered 200 with {len(nameless)} ids that name nothing"


def stored_twice(run: Run) -> Iterator[str]:
    """What is stored more often than its provider can have caused."""
    for sms, rows in run.rows_of.items():
        requests = run.requests_of.get(sms, [])
        if sms in run.forged:
            continue  # see forged()
        if not requests:
            yield f"{name_of(sms)} is stored and was never sent"
        elif sms in run.in_parts:
            yield from concatenated.stored_twice(run, sms, rows)
        elif requests[0].identified and len(rows) > 1:
            yield f"{name_of(sms)} is stored {len(rows)} times although it had a message_id"
        elif len(rows) > 1 + len([request for request in requests if request.status != OK]):
            yield f"{name_of(sms)} is stored {len(rows)} times: more than were sent again"
    for sms, requests in run.requests_of.items():
        heard = [request for request in requests if request.status == OK]
        ids = {request.id for request in heard}
        if len(ids) < 2 or not heard[0].identified or sms in run.in_parts:
            continue
        since, until = min(r.sent for r in heard), max(r.ended for r in heard)
        away = any(r.ended - r.sent > JOURNAL_SECONDS for r in heard)
        if not away and not run.faults(kinds.OF_POSTGRES, since, until):
            yield f"{name_of(sms)} was given {len(ids)} ids although PostgreSQL was there"


# --- order --------------------------------------------------------------------------------------


def overlapping(run: Run) -> Iterator[str]:
    """Attempts of one conversation at one target of which one began before the other had ended."""
    for (conversation, target), attempts in run.conversations.items():
        under_way: list[Attempt] = []
        for after in attempts:
            under_way = [before for before in under_way if before.ended > after.began]
            for before in under_way:
                if not _had_ended(run, before, after):
                    yield (
                        f"{name_of((conversation, after.number))} to {target} began"
                        f" {after.began - before.began:.3f} s after SMS {before.number}, which was under way"
                    )
            under_way.append(after)


def _had_ended(run: Run, before: Attempt, after: Attempt) -> bool:
    """Whether ``before`` had ended for the daemon, although its backend was not yet through with it."""
    if before.end == "closed" and before.ended - after.began <= CLOSING_SECONDS:
        return True
    if run.lost_its_lease_before(before) or run.lost_its_lease_before(after):
        return True
    freeze = run.freeze_before(before)
    leased_by = before.began if freeze is None else min(before.began, freeze.began)
    return after.began >= leased_by + run.terms.lease - SLACK_SECONDS


# --- again and again ----------------------------------------------------------------------------


def endless_redelivery(run: Run) -> Iterator[str]:
    """What was attempted again after a 2xx (or a 410) that came in time, more often than faults explain.

    A fault makes an outcome unknown once. One more is allowed: a daemon that is busy may see an answer
    too late that its backend gave in time.
    """
    for attempts in run.attempts_of.values():
        again = [(before, after) for before, after in pairwise(attempts) if _settles(before, run.terms)]
        if not again:
            continue
        first, last = again[0][0], again[-1][1]
        explained = run.faults(kinds.LOSE_OUTCOMES, first.began, last.began)
        if len(again) > len(explained) + 1:
            yield (
                f"{name_of(last.sms)} to {last.target} was attempted {len(again)} times again,"
                f" which {len(explained)} faults do not explain"
            )


def _settles(attempt: Attempt, terms: Terms) -> bool:
    in_time = attempt.ended - attempt.began < terms.timeout - SLACK_SECONDS
    return in_time and (attempt.taken or (attempt.end == "answered" and attempt.status == _GONE))


# --- what providers hear ------------------------------------------------------------------------


def unexpected_statuses(run: Run) -> Iterator[str]:
    """Whatever is not 200, unless the daemon itself was hurt, or the journal's disk full; and what hung.

    What bears a wrong signature is to hear 401, also where nothing can be stored.
    """
    for request in run.events.requests:
        hurt = request.status == NO_ANSWER or request.ended - request.sent > ANSWER_SECONDS
        expected = _REFUSED if request.forged else OK
        if request.status == expected and not hurt:
            continue
        excuse: tuple[str, ...] = ()
        if request.status in (expected, _UNAVAILABLE, NO_ANSWER):
            excuse = kinds.OF_THE_DAEMON
        if request.status == _UNAVAILABLE and not hurt and not request.forged:
            excuse += (kinds.DISK_FULL,)
        if not run.faults(excuse, request.sent, request.ended):
            heard = f"{request.status or 'no answer'} {request.error}".strip()
            yield f"{name_of(request.sms)} heard {heard} after {request.ended - request.sent:.3f} s"


def forged(run: Run) -> Iterator[str]:
    """What bore a wrong signature, or none, and was stored or delivered all the same, or answered 200."""
    for request in run.events.requests:
        if request.forged and request.status == OK:
            yield f"{name_of(request.sms)} was forged and answered 200"
    for row in run.rows:
        if row.sms in run.forged:
            yield f"{name_of(row.sms)} was forged and is stored"
    for attempt in run.events.attempts:
        if attempt.sms in run.forged:
            yield f"{name_of(attempt.sms)} was forged and sent to {attempt.target}"


# --- all of it ----------------------------------------------------------------------------------

INVARIANTS: Mapping[str, Callable[[Run], Iterator[str]]] = {
    "lost": lost,
    "stored twice": stored_twice,
    "out of order": out_of_order,
    "overlapping": overlapping,
    "endless redelivery": endless_redelivery,
    "unexpected statuses": unexpected_statuses,
    "wrongly joined": concatenated.wrongly_joined,
    "forged": forged,
}


def check(run: Run) -> dict[str, list[str]]:
    """What is wrong, by invariant; every list is empty where all is as promised."""
    return {name: list(invariant(run)) for name, invariant in INVARIANTS.items()}


def missing_kinds(events: Events, wanted: Sequence[str]) -> list[str]:
    """What the adversary did not get to do."""
    happened = {fault.kind for fault in events.faults if fault.happened}
    return [kind for kind in wanted if kind not in happened]


def figures(run: Run) -> dict[str, float | int]:
    """What was counted, for the table."""
    requests, rows = run.events.requests, run.rows
    accepted = [request for request in requests if request.status == OK]
    undisturbed = [
        request.ended - request.sent
        for request in accepted
        if not run.faults(kinds.OF_THE_DAEMON, request.sent, request.ended)
    ]
    return {
        "SMS sent": len(run.requests_of),
        "requests": len(requests),
        **concatenated.figures(run),
        "signed requests": len([r for r in requests if r.profile == "twilio" and not r.forged]),
        "forged requests": len([request for request in requests if request.forged]),
        "answered 200": len({request.sms for request in accepted}),
        "stored": len(rows),
        "delivered": len([row for row in rows if row.state == "delivered"]),
        "dead by 410": len([row for row in rows if row.state == "dead"]),
        "attempts": len(run.events.attempts),
        "repeats without message_id stored again": sum(
            len(rows) - 1 for sms, rows in run.rows_of.items() if sms not in run.in_parts
        ),
        "attempts after the lease was lost": len(
            [attempt for attempt in run.events.attempts if run.lost_its_lease_before(attempt)]
        ),
        "worst accept seconds": round(max((r.ended - r.sent for r in accepted), default=0.0), 3),
        "worst accept seconds, daemon unhurt": round(max(undisturbed, default=0.0), 3),
    }
