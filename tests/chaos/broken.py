"""The daemon with one promise broken, so that it is seen that the checker sees.

Nothing of this is in the product: its parts are replaced before it starts, in a process of its own with
``workers = 1``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater
from twisted.scripts import twistd

from smsdaemon import intake, upkeep
from smsdaemon.domain import concatenation
from smsdaemon.domain.model import Delivered, Delivery, InboundSMS, Postponed, Receipt
from smsdaemon.providers.loaded import LoadedProfile
from smsdaemon.store import concatenations, parts, queries
from smsdaemon.store.deliveries import PostgresDeliveries
from smsdaemon.store.journaled import JournaledMessages
from tests.chaos import kinds


@frozen(kw_only=True)
class Broken:
    """One promise, and what shows that it is not kept."""

    invariant: str
    """Of the checker's, which must find it."""
    kinds: tuple[str, ...]
    """What has to go wrong for that."""
    breaks: Callable[[], None]


def run(name: str, arguments: list[str]) -> None:
    """Break it, and run twistd."""
    BROKEN[name].breaks()
    sys.argv = arguments
    twistd.run()


def _answer_before_the_commit() -> None:
    """200 while the SMS is only in memory."""
    stored = JournaledMessages.accept

    def accept(self: Any, sms: InboundSMS, provider_key: bytes | None, lease: bool) -> Deferred[Receipt]:
        d = deferLater(_reactor(), 0.2, stored, self, sms, provider_key, False)
        d.addErrback(lambda _: None)
        return succeed(Receipt(id=sms.id, duplicate=False))

    JournaledMessages.accept = accept  # type: ignore[method-assign]


def _reactor() -> Any:
    from twisted.internet import reactor

    return reactor


def _take_failures_for_deliveries() -> None:
    """What its target did not take is recorded as delivered."""
    settle = PostgresDeliveries.settle

    def settled(self: Any, delivery: Delivery, outcome: Any, attempt: Any) -> Deferred[Delivery | None]:
        failed = isinstance(outcome, Postponed) and outcome.attempted
        return settle(self, delivery, Delivered(reason="") if failed else outcome, attempt)

    PostgresDeliveries.settle = settled  # type: ignore[method-assign]


def _know_no_repeats() -> None:
    """No request is recognised as a repeat."""

    def unknown(sms: InboundSMS) -> bytes | None:
        return None

    intake.provider_key = unknown


def _promote_the_youngest() -> None:
    """The last SMS of a conversation goes before those that came earlier."""
    _change("SETTLE", "ORDER BY s.seq LIMIT 1", "ORDER BY s.seq DESC LIMIT 1")


def _ignore_leases() -> None:
    """What another process may be attempting is claimed all the same."""
    _change("CLAIM", "d.leased_until < now()", "true")


def _record_some_outcomes_never() -> None:
    """One SMS in a hundred comes again and again."""
    settle = PostgresDeliveries.settle

    def settled(self: Any, delivery: Delivery, outcome: Any, attempt: Any) -> Deferred[Delivery | None]:
        if delivery.id.int % 100 == 0:
            return succeed(None)
        return settle(self, delivery, outcome, attempt)

    PostgresDeliveries.settle = settled  # type: ignore[method-assign]


def _know_no_parts_of_the_past() -> None:
    """A part that comes again after its SMS was joined begins another."""

    def repeated(sms: InboundSMS, waiting: Any, past: Any) -> Any:
        return concatenation.repeated(sms, waiting, [])

    _replace(parts, "repeated", repeated)


def _give_up_never() -> None:
    """What is incomplete waits for ever."""

    async def give_up_overdue(pool: Any, patience: Any) -> int:
        return 0

    _replace(upkeep, "give_up_overdue", give_up_overdue)


def _give_up_at_once() -> None:
    """What is incomplete when it is looked for is not waited for."""

    def at_once(pool: Any, patience: Any) -> Any:
        return concatenations.give_up_overdue(pool, evolve(patience, seconds=0.0))

    _replace(upkeep, "give_up_overdue", at_once)


def _look_at_no_signature() -> None:
    """Whoever knows the URL can send."""
    LoadedProfile.must_verify = lambda self, connector: False  # type: ignore[method-assign]


def _do_without_the_journal() -> None:
    """500 while PostgreSQL is away; see the settings that tests.chaos.run writes."""


def _change(name: str, part: str, into: str) -> None:
    statement: str = getattr(queries, name)
    if part not in statement:
        raise AssertionError(f"queries.{name} has changed: tests/chaos/broken.py no longer fits")
    setattr(queries, name, statement.replace(part, into))


def _replace(module: Any, name: str, into: object) -> None:
    """Where it is used; it may be defined elsewhere."""
    if not hasattr(module, name):
        raise AssertionError(f"{module.__name__} has changed: tests/chaos/broken.py no longer fits")
    setattr(module, name, into)


WITHOUT_JOURNAL = "no journal"

BROKEN: Mapping[str, Broken] = {
    "answered before the commit": Broken(
        invariant="lost", kinds=(kinds.DAEMON_KILLED, kinds.POSTGRES_KILLED), breaks=_answer_before_the_commit
    ),
    "failures taken for deliveries": Broken(
        invariant="lost", kinds=(kinds.COMMIT_CUT,), breaks=_take_failures_for_deliveries
    ),
    "repeats not recognised": Broken(
        invariant="stored twice",
        kinds=(kinds.POSTGRES_FROZEN, kinds.DAEMON_KILLED, kinds.WORKER_FROZEN),
        breaks=_know_no_repeats,
    ),
    "youngest first": Broken(
        invariant="out of order", kinds=(kinds.COMMIT_CUT,), breaks=_promote_the_youngest
    ),
    "leases ignored": Broken(invariant="overlapping", kinds=(kinds.COMMIT_CUT,), breaks=_ignore_leases),
    "outcomes not recorded": Broken(
        invariant="endless redelivery", kinds=(kinds.COMMIT_CUT,), breaks=_record_some_outcomes_never
    ),
    "repeated parts not recognised": Broken(
        invariant="stored twice", kinds=(kinds.COMMIT_CUT,), breaks=_know_no_parts_of_the_past
    ),
    "incomplete SMS not given up": Broken(invariant="lost", kinds=(kinds.COMMIT_CUT,), breaks=_give_up_never),
    "incomplete SMS given up at once": Broken(
        invariant="wrongly joined", kinds=(kinds.COMMIT_CUT,), breaks=_give_up_at_once
    ),
    "signatures not checked": Broken(
        invariant="forged", kinds=(kinds.COMMIT_CUT,), breaks=_look_at_no_signature
    ),
    WITHOUT_JOURNAL: Broken(
        invariant="unexpected statuses", kinds=(kinds.DATABASE_REFUSED,), breaks=_do_without_the_journal
    ),
}
"""By the name that --broken takes; one at least for each invariant."""
