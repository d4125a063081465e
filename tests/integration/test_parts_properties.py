"""SMS split, shuffled, repeated and lost over two stores at once (Hypothesis, in a thread of its own)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, cast

from attrs import evolve, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as _reactor
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.threads import blockingCallFromThread, deferToThread

from smsdaemon.domain.ids import uuid7
from smsdaemon.domain.model import InboundSMS
from smsdaemon.store.concatenations import Patience, give_up_overdue
from smsdaemon.store.pool import Pool
from tests.support.cases import ReactorTest
from tests.support.leasing import Store, make_store
from tests.support.sms_parts import cut, raw_part
from tests.support.store import migrated_pool

reactor = cast(Any, _reactor)
SOME = settings(database=None, deadline=None, max_examples=80)
TEXTS = st.text(st.sampled_from("ab ä€👋🎉\n"), min_size=1, max_size=30)
SEEDS = st.integers(0, 1 << 32)
CHARSETS = st.sampled_from(["utf-8", "utf-16be", None])
NOW = Patience(seconds=0, first_delay_seconds=0)
_CLEAR = "DELETE FROM concatenation; DELETE FROM delivery; DELETE FROM message; DELETE FROM ended_delivery"
_FOUND = """
SELECT m.sender, m.text, m.parts, m.parts_missing, count(d.id)
FROM message m LEFT JOIN delivery d ON d.message_id = m.id
GROUP BY m.id ORDER BY min(d.seq)
"""


@frozen
class Sent:
    """An SMS as its provider sends it: some parts never, some several times."""

    text: str
    parts: Sequence[InboundSMS]
    lost: frozenset[int]
    """Numbers."""

    @property
    def events(self) -> list[InboundSMS]:
        return [part for n, part in enumerate(self.parts, 1) if n not in self.lost]


@st.composite
def sms(draw: st.DrawFn, sender: str) -> Sent:
    text, charset = draw(TEXTS), draw(CHARSETS)
    at = draw(st.lists(st.integers(0, 1000), min_size=1, max_size=4))
    # Half of a unit is nobody's part.
    codec = "utf-16-be" if charset == "utf-16be" else "utf-8"
    pieces = cut(text.encode(codec), [2 * place for place in at] if charset == "utf-16be" else at)
    lost = draw(st.frozensets(st.integers(1, len(pieces))) if draw(st.booleans()) else st.just(frozenset()))
    parts = [
        raw_part(raw, n, len(pieces), charset=charset, sender=sender, provider_message_id=f"{sender} {n}")
        for n, raw in enumerate(pieces, 1)
    ]
    return Sent(text, parts, lost)


@st.composite
def conversations(draw: st.DrawFn) -> list[Sent]:
    return [draw(sms(f"+49{n}")) for n in range(draw(st.integers(1, 4)))]


class PropertyTests(ReactorTest):
    timeout = 300

    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        self.dsn, self.pool = await migrated_pool(self, size=4)
        other = Pool(dsn=self.dsn, size=4, reactor=reactor, statement_timeout=5.0)
        self.addCleanup(other.close)
        other.start()
        self.pools = [self.pool, other]
        self.stores = [make_store(self, pool) for pool in self.pools]

    def restarted(self, n: int) -> Store:
        self.stores[n].messages.close()
        self.stores[n] = make_store(self, self.pools[n])
        return self.stores[n]

    async def send(self, events: Sequence[InboundSMS], chance: random.Random, sweeps: bool) -> None:
        """In an order of chance, to either, several at once, some again, with restarts in between."""
        left = [*events, *(chance.choices(events, k=chance.randrange(len(events) + 1)) if events else [])]
        chance.shuffle(left)
        while left:
            count = chance.randint(1, 6)
            together, left = left[:count], left[count:]
            under_way: list[Any] = []
            for part in together:
                again = evolve(part, id=uuid7(part.received_at))
                under_way.append(chance.choice(self.stores).accept(again, None, chance.random() < 0.5))
            if sweeps and chance.random() < 0.2:
                under_way += [ensureDeferred(give_up_overdue(pool, NOW)) for pool in self.pools]
            await gatherResults(under_way)
            if chance.random() < 0.2:
                self.restarted(chance.randrange(2))

    async def found(self) -> dict[str, list[tuple[Any, ...]]]:
        by_sender: dict[str, list[tuple[Any, ...]]] = {}
        for sender, *row in await self.pool.query(_FOUND):
            by_sender.setdefault(sender, []).append(tuple(row))
        return by_sender

    async def test_joined_once_or_flagged_never_doubled_never_lost(self) -> None:
        def examine() -> None:
            @SOME
            @given(conversations(), SEEDS)
            def holds(all_sent: list[Sent], seed: int) -> None:
                found = self.blocking(self.one_round, all_sent, random.Random(seed))
                for sent in all_sent:
                    rows = found.get(sent.parts[0].sender, [])
                    total = len(sent.parts)
                    if len(sent.lost) == total:
                        self.assertEqual(rows, [])
                        continue
                    [(text, parts, missing, deliveries)] = rows
                    self.assertEqual((parts, missing or []), (total, sorted(sent.lost)))
                    self.assertEqual(deliveries, 1)
                    if not sent.lost:
                        self.assertEqual(text, sent.text)

            holds()

        await deferToThread(examine)

    async def test_given_up_in_the_middle_each_part_is_delivered_once(self) -> None:
        def examine() -> None:
            @SOME
            @given(conversations(), SEEDS)
            def holds(all_sent: list[Sent], seed: int) -> None:
                found = self.blocking(self.one_round, all_sent, random.Random(seed), True)
                for sent in all_sent:
                    total = len(sent.parts)
                    came: list[int] = []
                    for _, parts, missing, deliveries in found.get(sent.parts[0].sender, []):
                        self.assertEqual((parts, deliveries), (total, 1))
                        came += [n for n in range(1, total + 1) if n not in (missing or [])]
                    self.assertEqual(sorted(came), [n for n in range(1, total + 1) if n not in sent.lost])

            holds()

        await deferToThread(examine)

    async def test_a_reference_that_comes_again_makes_another_sms(self) -> None:
        def examine() -> None:
            @SOME
            @given(sms("+491"), sms("+491"), SEEDS)
            def holds(one: Sent, other: Sent, seed: int) -> None:
                found = self.blocking(self.one_after_the_other, one, other, random.Random(seed))
                self.assertEqual([text for text, *_ in found.get("+491", [])], [one.text, other.text])

            holds()

        await deferToThread(examine)

    async def one_round(
        self, all_sent: list[Sent], chance: random.Random, sweeps: bool = False
    ) -> dict[str, list[tuple[Any, ...]]]:
        await self.pool.query(_CLEAR)
        await self.send([part for sent in all_sent for part in sent.events], chance, sweeps)
        await give_up_overdue(self.pool, NOW)
        return await self.found()

    async def one_after_the_other(
        self, one: Sent, other: Sent, chance: random.Random
    ) -> dict[str, list[tuple[Any, ...]]]:
        """Whole, under provider ids of their own; repeats of the first come with the second too."""
        await self.pool.query(_CLEAR)
        second = [evolve(part, provider_message_id=f"2 {part.provider_message_id}") for part in other.parts]
        await self.send(one.parts, chance, False)
        await self.send([*second, *chance.choices(one.parts, k=2)], chance, False)
        await give_up_overdue(self.pool, NOW)
        return await self.found()

    def blocking(self, work: Any, *arguments: Any) -> Any:
        """Done on the reactor, from a thread."""
        return blockingCallFromThread(reactor, lambda: ensureDeferred(work(*arguments)))
