"""Compares what providers, backends and the adversary saw with what the database holds; pure.

What must be true is written in contract sections 3 and 5. Each invariant is a function that gives a line
for each thing that is wrong; no line of any of them holds a text or a number.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise

from attrs import define, field, frozen

from tests.chaos import kinds
from tests.chaos.history import NO_ANSWER, Attempt, Events, Fault, Request, Row

Sms = tuple[str, int]

ANSWER_SECONDS = 5.0
"""Contract 3: a 500 comes within this, never by hanging."""
JOURNAL_SECONDS = 0.4
"""An answer that takes longer may come from the journal: PostgreSQL committed nothing for so long."""
RECOVERY_SECONDS = 2.0
"""After a fault was undone, what it had begun may still show."""
THAW_SECONDS = 1.0
"""For a process that goes on to do what it was about to do when it was stopped."""
CLOSING_SECONDS = 0.1
"""By which the end of a connection may come later than the next attempt, which has another one."""
SLACK_SECONDS = 0.5
"""By which a claim may be older than the arrival of its attempt at the backend."""
_OK, _GONE, _UNAVAILABLE = 200, 410, 500


@frozen(kw_only=True)
class Terms:
    """What the daemon was told, and where SMS were to go."""

    lease: float
    timeout: float
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
        return _grouped(self.events.requests, lambda request: request.sms)

    @cached_property
    def rows_of(self) -> Mapping[Sms, list[Row]]:
        return _grouped(self.rows, lambda row: row.sms)

    @cached_property
    def attempts_of(self) -> Mapping[str, list[Attempt]]:
        """By delivery, in the order in which they began."""
        return _grouped(sorted(self.events.attempts, key=_began), lambda attempt: attempt.delivery)

    @cached_property
    def heard(self) -> Container[str]:
        """The ids of stored SMS that a provider heard of."""
        return {self.resolved(request.id) for request in self.events.requests if request.id is not None}

    def resolved(self, id: str) -> str:
        return self.aliases.get(id, id)

    def faults(self, among: Container[str], since: float, until: float) -> list[Fault]:
        """Those that may show in what happened between these times."""
        return [
            fault
            for fault in self.events.faults
            if fault.kind in among and fault.began <= until and fault.ended + RECOVERY_SECONDS >= since
        ]

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


def _grouped(items: Iterable, key: Callable) -> Mapping:  # type: ignore[type-arg]
    groups = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def _began(attempt: Attempt) -> float:
    return attempt.began


def _name(sms: Sms) -> str:
    return f"SMS {sms[1]} of conversation {sms[0]}"


# --- stored once, delivered ---------------------------------------------------------------------


def lost(run: Run) -> Iterator[str]:
    """What was answered 200 and is not there, or did not arrive although its target was there in the end."""
    for sms, requests in run.requests_of.items():
        ids = {row.id for row in run.rows_of.get(sms, ())}
        heard = {request.id for request in requests if request.status == _OK}
        if heard and not ids:
            yield f"{_name(sms)} was answered 200 and is not stored"
        elif nameless := {id for id in heard if id is None or run.resolved(id) not in ids}:
            yield f"{_name(sms)} was answered 200 with {len(nameless)} ids that name nothing"
    arrived = {(a.id, a.target) for a in run.events.attempts if a.taken}
    gone = {a.id for a in run.events.attempts if a.status == _GONE}
    for row in run.rows:
        if row.state == "dead" and row.id in gone:
            continue
        if row.state != "delivered":
            yield f"{_name(row.sms)} is {row.state}, not delivered"
            continue
        for target in run.terms.chains[row.conversation]:
            if (row.id, target) not in arrived:
                yield f"{_name(row.sms)} is said to be delivered, but {target} never took it"


def stored_twice(run: Run) -> Iterator[str]:
    """What is stored more often than its provider can have caused."""
    for sms, rows in run.rows_of.items():
        requests = run.requests_of.get(sms, [])
        if not requests:
            yield f"{_name(sms)} is stored and was never sent"
        elif requests[0].identified and len(rows) > 1:
            yield f"{_name(sms)} is stored {len(rows)} times although it had a message_id"
        elif len(rows) > 1 + len([request for request in requests if request.status != _OK]):
            yield f"{_name(sms)} is stored {len(rows)} times: more than were sent again"
    for sms, requests in run.requests_of.items():
        heard = [request for request in requests if request.status == _OK]
        ids = {request.id for request in heard}
        if len(ids) < 2 or not heard[0].identified:
            continue
        since, until = min(r.sent for r in heard), max(r.ended for r in heard)
        away = any(r.ended - r.sent > JOURNAL_SECONDS for r in heard)
        if not away and not run.faults(kinds.OF_POSTGRES, since, until):
            yield f"{_name(sms)} was given {len(ids)} ids although PostgreSQL was there"


# --- order --------------------------------------------------------------------------------------


def out_of_order(run: Run) -> Iterator[str]:
    """Attempts of what was accepted earlier that began after an attempt of what was accepted later.

    Of copies that no provider heard of nobody knows when they were accepted; they are not compared.
    """
    for (conversation, target), attempts in _by_conversation(run).items():
        highest = 0
        for attempt in attempts:
            if attempt.id not in run.heard:
                continue
            if attempt.number < highest and not run.lost_its_lease_before(attempt):
                yield f"{_name((conversation, attempt.number))} to {target} began after SMS {highest}"
            highest = max(highest, attempt.number)


def overlapping(run: Run) -> Iterator[str]:
    """Attempts of one conversation at one target of which one began before the other had ended."""
    for (conversation, target), attempts in _by_conversation(run).items():
        under_way: list[Attempt] = []
        for after in attempts:
            under_way = [before for before in under_way if before.ended > after.began]
            for before in under_way:
                if not _had_ended(run, before, after):
                    yield (
                        f"{_name((conversation, after.number))} to {target} began"
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


def _by_conversation(run: Run) -> Mapping[tuple[str, str], list[Attempt]]:
    attempts = sorted(run.events.attempts, key=_began)
    return _grouped(attempts, lambda attempt: (attempt.conversation, attempt.target))


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
                f"{_name(last.sms)} to {last.target} was attempted {len(again)} times again,"
                f" which {len(explained)} faults do not explain"
            )


def _settles(attempt: Attempt, terms: Terms) -> bool:
    in_time = attempt.ended - attempt.began < terms.timeout - SLACK_SECONDS
    return in_time and (attempt.taken or (attempt.end == "answered" and attempt.status == _GONE))


# --- what providers hear ------------------------------------------------------------------------


def unexpected_statuses(run: Run) -> Iterator[str]:
    """Whatever is not 200, unless the daemon itself was hurt, or the journal's disk full; and what hung."""
    for request in run.events.requests:
        hurt = request.status == NO_ANSWER or request.ended - request.sent > ANSWER_SECONDS
        if request.status == _OK and not hurt:
            continue
        excuse: tuple[str, ...] = ()
        if request.status in (_OK, _UNAVAILABLE, NO_ANSWER):
            excuse = kinds.OF_THE_DAEMON
        if request.status == _UNAVAILABLE and not hurt:
            excuse += (kinds.DISK_FULL,)
        if not run.faults(excuse, request.sent, request.ended):
            heard = f"{request.status or 'no answer'} {request.error}".strip()
            yield f"{_name(request.sms)} heard {heard} after {request.ended - request.sent:.3f} s"


# --- all of it ----------------------------------------------------------------------------------

INVARIANTS: Mapping[str, Callable[[Run], Iterator[str]]] = {
    "lost": lost,
    "stored twice": stored_twice,
    "out of order": out_of_order,
    "overlapping": overlapping,
    "endless redelivery": endless_redelivery,
    "unexpected statuses": unexpected_statuses,
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
    accepted = [request for request in requests if request.status == _OK]
    undisturbed = [
        request.ended - request.sent
        for request in accepted
        if not run.faults(kinds.OF_THE_DAEMON, request.sent, request.ended)
    ]
    return {
        "SMS sent": len(run.requests_of),
        "requests": len(requests),
        "answered 200": len({request.sms for request in accepted}),
        "stored": len(rows),
        "delivered": len([row for row in rows if row.state == "delivered"]),
        "dead by 410": len([row for row in rows if row.state == "dead"]),
        "attempts": len(run.events.attempts),
        "repeats without message_id stored again": len(rows) - len(run.rows_of),
        "attempts after the lease was lost": len(
            [attempt for attempt in run.events.attempts if run.lost_its_lease_before(attempt)]
        ),
        "worst accept seconds": round(max((r.ended - r.sent for r in accepted), default=0.0), 3),
        "worst accept seconds, daemon unhurt": round(max(undisturbed, default=0.0), 3),
    }
