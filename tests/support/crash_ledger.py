"""What providers sent and heard, what a backend was sent, and whether that is as promised."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import count, pairwise
from uuid import UUID

from attrs import Factory, define, frozen

from smsdaemon.domain.model import Delivery, Part, Receipt
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
    part: Part | None = None
    """Its reference is the name of the SMS whose part it is."""
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

    @property
    def names(self) -> list[str]:
        """Of all its parts, where it was joined."""
        return names_in(self.delivery.sms.text)


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
        stored = {id_: names_in(text) for id_, text in rows}
        aliases: dict[str, str] = dict(await pool.query("SELECT id, message_id FROM message_alias"))
        return [
            *self._faults_of_storing(stored, aliases),
            *self._faults_of_joining(list(stored.values())),
            *self._faults_of_order(),
            *await faults_in_the_database(pool),
            *await self._faults_of_leases(pool),
        ]

    def _faults_of_storing(self, stored: dict[str, list[str]], aliases: dict[str, str]) -> Iterator[str]:
        names = [name for stored_names in stored.values() for name in stored_names]
        ended = {name for called in self.called if called.ended for name in called.names}
        for sent in self.sent.values():
            if sent.poison:
                continue  # the journal takes it, and PostgreSQL does not
            times = names.count(sent.name)
            for one in sent.tries:
                heard = None if one.receipt is None else str(one.receipt.id)
                if heard is not None and sent.name not in stored.get(aliases.get(heard, heard), ()):
                    yield f"{sent.name} was answered and is not found by the id that was heard"
            if sent.answered is not None and sent.name not in ended:
                yield f"{sent.name} was answered and never delivered"
            if times > 1 and (sent.key is not None or sent.part is not None):
                yield f"{sent.name} is stored {times} times although its provider gives ids"
            if times > len(sent.tries):
                yield f"{sent.name} is stored {times} times and was sent {len(sent.tries)} times"
            if times and sent.name not in ended:
                yield f"{sent.name} is stored and was never delivered"

    def _faults_of_joining(self, stored: list[list[str]]) -> Iterator[str]:
        for names in stored:
            parts = [sent.part for name in names if (sent := self.sent[name]).part is not None]
            if len({part.reference for part in parts}) > 1 or 0 < len(parts) < len(names):
                yield f"{names} are one SMS"
            numbers = [part.number for part in parts]
            if numbers != sorted(numbers):
                yield f"{names} are joined in this order"

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
        first, second = self._making(one), self._making(other)
        if not first or not second:
            return False
        heard = [sent.answered for sent in first if sent.answered is not None]
        asked = [max(sent.tries[0].asked for sent in side) for side in (first, second)]
        if len(heard) == len(first) and max(heard) < asked[1]:
            return True
        # One process takes what comes to it in the order in which it comes.
        both = [*first, *second]
        alone = all(len(sent.tries) == 1 and sent.answered is not None for sent in both)
        same = len({sent.tries[0].process for sent in both}) == 1
        return alone and same and asked[0] < asked[1]

    def _making(self, name: str) -> list[Sent]:
        """What it took to accept an SMS: all its parts; nothing where it was given up, nobody knows when."""
        sent = self.sent[name]
        if sent.part is None:
            return [sent]
        reference, total = sent.part.reference, sent.part.total
        parts = [one for one in self.sent.values() if one.part and one.part.reference == reference]
        whole = any(len(called.names) == total for called in self.called if name in called.names)
        return parts if whole and all(one.tries for one in parts) else []


def name_in(text: str) -> str:
    return text.rpartition(" ")[2]


def names_in(text: str) -> list[str]:
    """Of all parts of an SMS that was joined: each ends with a blank and its name."""
    first, *names = text.split(" ")
    return names or [first]


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
    "a part whose text is not where it belongs": """
        SELECT count(*) FROM sms_part p JOIN concatenation c ON c.id = p.concatenation_id
        WHERE (c.ended_at IS NULL) <> (p.text IS NOT NULL)""",
    "an SMS that has all its parts and waits": """
        SELECT count(*) FROM concatenation c WHERE ended_at IS NULL
        AND (SELECT count(*) FROM sms_part p WHERE p.concatenation_id = c.id) = c.total""",
    "parts that ended without their SMS": """
        SELECT count(*) FROM concatenation c
        WHERE ended_at IS NOT NULL AND NOT EXISTS (SELECT FROM message m WHERE m.id = c.id)""",
    "an SMS that misses other parts than it says": """
        SELECT count(*) FROM message m JOIN concatenation c USING (id)
        WHERE coalesce(m.parts_missing, '{}') <> ARRAY(
            SELECT n FROM generate_series(1, c.total) AS n
            WHERE n NOT IN (SELECT number FROM sms_part p WHERE p.concatenation_id = c.id) ORDER BY n)""",
    "an outcome recorded of another lease than the one in force": """
        SELECT count(*) FROM seen s LEFT JOIN seen g ON g.op = 'gone' AND g.delivery = s.delivery
        WHERE s.op IN ('ended', 'postponed') AND s.reason <> coalesce(s.lease, g.lease)::text""",
}


async def faults_in_the_database(pool: Pool) -> list[str]:
    """What is wrong with what is stored, also while something is pending."""
    parts = (f"SELECT '{what}' AS what, ({sql}) AS n" for what, sql in _CHECKS.items())
    rows = await pool.query(f"SELECT what FROM ({' UNION ALL '.join(parts)}) AS checks WHERE n > 0")
    return [what for (what,) in rows]
