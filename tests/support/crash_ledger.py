"""What providers sent and heard, what a backend was sent, and whether that is as promised."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import count, pairwise
from uuid import UUID

from attrs import Factory, define, frozen

from smsdaemon.domain.model import Delivery, Receipt
from smsdaemon.store.pool import Pool


@define(eq=False)
class Try:
    """One request of a provider."""

    id: UUID
    """That it would have, if it were stored as such."""
    process: str
    asked: int
    """Number of an event; they are counted as they happen."""
    answered: int | None = None
    receipt: Receipt | None = None
    failed: str = ""


@define(eq=False)
class Sent:
    """An SMS as its provider knows it."""

    name: str
    """Tells it from all others; the last word of its text."""
    sender: str
    key: bytes | None
    target_id: int = 1
    poison: bool = False
    """PostgreSQL will refuse it."""
    tries: list[Try] = Factory(list)

    @property
    def answered(self) -> int | None:
        """When its provider first heard that it is accepted."""
        return min((t.answered for t in self.tries if t.receipt is not None and t.answered), default=None)


@frozen
class Called:
    """An attempt that came to the backend."""

    at: int
    name: str
    delivery: Delivery
    process: str
    ended: bool
    """The backend took it, or said that it never will."""


class Ledger:
    """Numbers what happens in its order."""

    def __init__(self) -> None:
        self._events = count(1)
        self.sent: dict[str, Sent] = {}
        self.called: list[Called] = []
        self.heard: set[str] = set()
        """Leases that came to whom they were given."""

    def now(self) -> int:
        return next(self._events)

    def calls(self, delivery: Delivery, process: str, ended: bool) -> None:
        name = name_in(delivery.sms.text)
        self.called.append(Called(self.now(), name, delivery, process, ended))

    async def _faults_of_leases(self, pool: Pool) -> list[str]:
        """A lease that its holder never heard of may be taken over by him before its end."""
        early = await pool.query("SELECT lease FROM seen WHERE op = 'taken over' AND leased_until > at")
        taken = [lease for (lease,) in early if lease in self.heard]
        return [f"{len(taken)} leases were taken over before their end"] if taken else []

    # --- what is wrong ---------------------------------------------------------------------------

    async def faults(self, pool: Pool) -> list[str]:
        """What is not as promised once everything was delivered; nothing where all is."""
        rows = await pool.query("SELECT id, text FROM message")
        stored = {id_: name_in(text) for id_, text in rows}
        aliases: dict[str, str] = dict(await pool.query("SELECT id, message_id FROM message_alias"))
        return [
            *self._faults_of_storing(stored, aliases),
            *self._faults_of_order(),
            *await faults_in_the_database(pool),
            *await self._faults_of_leases(pool),
        ]

    def _faults_of_storing(self, stored: dict[str, str], aliases: dict[str, str]) -> Iterator[str]:
        names = list(stored.values())
        ended = {called.name for called in self.called if called.ended}
        for sent in self.sent.values():
            if sent.poison:
                continue  # the journal takes it, and PostgreSQL does not
            times = names.count(sent.name)
            for one in sent.tries:
                heard = None if one.receipt is None else str(one.receipt.id)
                if heard is not None and stored.get(aliases.get(heard, heard)) != sent.name:
                    yield f"{sent.name} was answered and is not found by the id that was heard"
            if sent.answered is not None and sent.name not in ended:
                yield f"{sent.name} was answered and never delivered"
            if sent.key is not None and times > 1:
                yield f"{sent.name} is stored {times} times although its provider gives ids"
            if times > len(sent.tries):
                yield f"{sent.name} is stored {times} times and was sent {len(sent.tries)} times"
            if times and sent.name not in ended:
                yield f"{sent.name} is stored and was never delivered"

    def _faults_of_order(self) -> Iterator[str]:
        conversations: dict[object, list[Called]] = defaultdict(list)
        for called in self.called:
            conversations[called.delivery.conversation].append(called)
        for calls in conversations.values():
            ended: set[UUID] = set()
            for before, after in pairwise(calls):
                if before.delivery.id == after.delivery.id:
                    continue
                ended.add(before.delivery.id)
                if after.delivery.id in ended:
                    yield f"{after.name} was attempted again after {before.name} had its turn"
                elif self._precedes(after.name, before.name):
                    yield f"{after.name} was accepted before {before.name} and attempted after it"

    def _precedes(self, one: str, other: str) -> bool:
        """Whether an SMS was certainly accepted before another."""
        first, second = self.sent[one], self.sent[other]
        if first.answered is not None and first.answered < second.tries[0].asked:
            return True
        # One process takes what comes to it in the order in which it comes.
        alone = len(first.tries) == len(second.tries) == 1
        both = first.answered is not None and second.answered is not None
        same = first.tries[0].process == second.tries[0].process
        return alone and both and same and first.tries[0].asked < second.tries[0].asked


def name_in(text: str) -> str:
    return text.rpartition(" ")[2]


# --- what must hold in the database at any time ---------------------------------------------------

AUDIT = """
CREATE TABLE seen (
    n bigserial, at timestamptz NOT NULL DEFAULT clock_timestamp(), op text NOT NULL, delivery uuid NOT NULL,
    lease uuid, leased_until timestamptz, new_lease uuid, reason text);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_TABLE_NAME LIKE 'ended_delivery%' THEN
        INSERT INTO seen (op, delivery, reason) VALUES ('ended', NEW.id, NEW.reason);
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO seen (op, delivery, lease) VALUES ('gone', OLD.id, OLD.lease);
    ELSIF OLD.lease IS NOT NULL AND NEW.lease IS DISTINCT FROM OLD.lease THEN
        INSERT INTO seen (op, delivery, lease, leased_until, new_lease, reason)
        VALUES (CASE WHEN NEW.lease IS NOT NULL THEN 'taken over' WHEN NEW.reason IS DISTINCT FROM OLD.reason
                THEN 'postponed' ELSE 'given back' END,
                OLD.id, OLD.lease, OLD.leased_until, NEW.lease, NEW.reason);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER see AFTER UPDATE OR DELETE ON delivery FOR EACH ROW EXECUTE FUNCTION see();
CREATE TRIGGER see AFTER INSERT ON ended_delivery FOR EACH ROW EXECUTE FUNCTION see();
"""
"""Writes down what becomes of leases. An outcome's reason is the lease under which it was found out."""

_CHECKS = {
    "a conversation with something pending and no head": """
        SELECT count(*) FROM (SELECT FROM delivery GROUP BY target_id, connector_id, sender
                              HAVING count(due_at) <> 1) AS t""",
    "a head that is not the oldest of its conversation": """
        SELECT count(*) FROM delivery d JOIN delivery e USING (target_id, connector_id, sender)
        WHERE d.due_at IS NOT NULL AND e.seq < d.seq""",
    "an SMS without any delivery": """
        SELECT count(*) FROM message m WHERE NOT EXISTS (SELECT FROM delivery d WHERE d.message_id = m.id)
        AND NOT EXISTS (SELECT FROM ended_delivery e WHERE e.message_id = m.id)""",
    "a delivery that is pending and ended": "SELECT count(*) FROM delivery JOIN ended_delivery USING (id)",
    "a delivery that ended twice": "SELECT count(*) - count(DISTINCT id) FROM ended_delivery",
    "an SMS with two deliveries at one target": """
        SELECT count(*) FROM (SELECT FROM (
            SELECT message_id, target_id FROM delivery UNION ALL
            SELECT message_id, target_id FROM ended_delivery) AS a
            GROUP BY message_id, target_id HAVING count(*) > 1) AS t""",
    "a delivery without its SMS": """
        SELECT count(*) FROM delivery d WHERE NOT EXISTS (SELECT FROM message m WHERE m.id = d.message_id)""",
    "an SMS known as repeated that is not stored": """
        SELECT count(*) FROM provider_repeat r
        WHERE NOT EXISTS (SELECT FROM message m WHERE m.id = r.message_id)""",
    "an outcome recorded of another lease than the one in force": """
        SELECT count(*) FROM seen s LEFT JOIN seen g ON g.op = 'gone' AND g.delivery = s.delivery
        WHERE s.op IN ('ended', 'postponed') AND s.reason <> coalesce(s.lease, g.lease)::text""",
}


async def faults_in_the_database(pool: Pool) -> list[str]:
    """What is wrong with what is stored, also while something is pending."""
    parts = (f"SELECT '{what}' AS what, ({sql}) AS n" for what, sql in _CHECKS.items())
    rows = await pool.query(f"SELECT what FROM ({' UNION ALL '.join(parts)}) AS checks WHERE n > 0")
    return [what for (what,) in rows]
