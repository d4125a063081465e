"""Refused SMS on a real PostgreSQL: kept within bounds, forgotten, and accepted once all the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import psycopg2
from twisted.internet import reactor as _reactor
from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.task import deferLater

from smsdaemon.domain.ids import time_of, uuid7
from smsdaemon.domain.model import Directory, Part, Receipt, Submission
from smsdaemon.domain.refused import RefusedSMS
from smsdaemon.errors import NotRoutable, StoreUnavailable
from smsdaemon.intake import Receiver
from smsdaemon.refusals import Refusals
from smsdaemon.samples import Samples
from smsdaemon.store import refused as refused_store
from smsdaemon.store import refused_retry
from smsdaemon.store.directory import read_snapshot
from smsdaemon.store.messages import LeaseTerms, PostgresMessages
from smsdaemon.store.migrate import migrate
from smsdaemon.store.pool import Pool
from smsdaemon.store.refused import PostgresRefused, forget_refused
from smsdaemon.store.refused_retry import Chosen, RefusedRow, Retried, refused, retry
from tests.support.cases import ReactorTest
from tests.support.embedded_case import until
from tests.support.postgres import PrivateServer
from tests.support.secrets_in_tests import OTHER_RECEIVER, OTHER_SENDER, RECEIVER, SENDER, TEXT_MARKER
from tests.support.store import apply_text, migrated_pool

reactor = cast(Any, _reactor)


def directory(target: str = "", other_target: str = 'acd_group = "support"') -> str:
    return f"""
[[reseller]]
name = "acme"
[[client]]
name = "shop"
reseller = "acme"
[[client]]
name = "other"
reseller = "acme"
[[acd_group]]
client = "acme/shop"
name = "support"
url = "log:"
[[connector]]
client = "acme/shop"
number = "{RECEIVER}"
{target}
[[connector]]
client = "acme/shop"
number = "{OTHER_RECEIVER}"
enabled = false
{other_target}
"""


MENDED = directory('acd_group = "support"')


def utc_now() -> datetime:
    return datetime.now(UTC)


class Counted:
    """Implements ports.RefusedCounter."""

    def __init__(self) -> None:
        self.kept = self.dropped = 0

    def refused_kept(self, n: int) -> None:
        self.kept += n

    def refused_dropped(self, n: int) -> None:
        self.dropped += n


class NoOutlet:
    """Never has a place."""

    def reserve(self, target_id: int, connector_id: int) -> bool:
        return False

    def release(self, target_id: int, connector_id: int) -> None:
        """Nothing."""

    def queued(self, target_id: int) -> None:
        """Nothing."""

    def take(self, delivery: object) -> None:
        """Nothing."""


class StoredDirectory:
    """A snapshot that a test reads when it wants to."""

    def __init__(self) -> None:
        self.snapshot = Directory()

    def current(self) -> Directory:
        return self.snapshot


class RefusedTest(ReactorTest):
    """The intake with its store of refused SMS, as in the daemon, on a database of the test's own."""

    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        await self.set_up_on(*await migrated_pool(self, size=2))

    async def set_up_on(self, dsn: str, pool: Pool) -> None:
        self.dsn, self.pool = dsn, pool
        self.counted, self.directory, self.now = Counted(), StoredDirectory(), None
        self.store = PostgresRefused(pool=pool, reactor=reactor, counter=self.counted)
        self.addCleanup(self.store.stop, 5.0)
        terms = LeaseTerms(seconds=60.0, first_delay_seconds=0, holder="test")
        messages = PostgresMessages(pool=pool, timer=reactor, utc_now=utc_now, terms=terms)
        self.addCleanup(messages.close)
        self.receiver = Receiver(
            directory=self.directory,
            store=messages,
            outlet=NoOutlet(),
            refusals=Refusals(samples=Samples(reactor.seconds), kept=self.store),
            utc_now=lambda: self.now or utc_now(),
            new_id=uuid7,
            on_accepted=lambda: None,
        )
        await self.apply(directory())

    now: datetime | None

    async def apply(self, text: str, **options: Any) -> None:
        await apply_text(self.pool, text, **options)
        self.directory.snapshot = await self.pool.transaction(lambda run: read_snapshot(run, Directory()))

    def refuse(self, text: str = "x", **fields: Any) -> None:
        """What is refused at once, whatever the store is doing."""
        values = {"receiver": RECEIVER, "sender": SENDER, "text": f"{TEXT_MARKER} {text}", **fields}
        self.failureResultOf(cast(Any, self.receiver.receive(Submission(**values))), NotRoutable)

    async def accept(self, text: str = "x", **fields: Any) -> Receipt:
        values = {"receiver": RECEIVER, "sender": SENDER, "text": f"{TEXT_MARKER} {text}", **fields}
        return await self.receiver.receive(Submission(**values))

    def failureResultOf(self, d: Any, expected: type[Exception]) -> None:
        found: list[Any] = []
        d.addErrback(found.append)
        self.assertEqual([failure.type for failure in found], [expected])

    async def until_counted(self, kept: int) -> None:
        await until(lambda: self.counted.kept + self.counted.dropped >= kept, f"{kept} kept")

    async def until_found(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of a statement as soon as it has any."""
        while not (found := await self.pool.query(statement)):
            await deferLater(reactor, 0.01)
        return found

    async def rows(self, **selection: Any) -> list[RefusedRow]:
        chosen = {"receiver": None, "since": None, "limit": None, **selection}
        return await flat(refused(self.pool, **chosen))

    async def texts(self, **selection: Any) -> list[str]:
        return [row.text.removeprefix(f"{TEXT_MARKER} ") for row in await self.rows(**selection)]

    async def retry(self, chosen: Chosen | None = None, dry_run: bool = False) -> list[Retried]:
        return await flat(retry(self.pool, chosen or Chosen(), first_delay_seconds=0.0, dry_run=dry_run))

    async def accepted_texts(self) -> list[str]:
        rows = await self.pool.query(
            "SELECT m.text FROM delivery d JOIN message m ON m.id = d.message_id ORDER BY d.seq"
        )
        return [text.removeprefix(f"{TEXT_MARKER} ") for (text,) in rows]


async def flat(pages: AsyncIterator[list[Any]]) -> list[Any]:
    return [row async for page in pages for row in page]


class KeptTests(RefusedTest):
    async def test_what_is_refused_is_kept_with_its_reason(self) -> None:
        self.refuse("Grüße 👋 \\ ' \"", message_id="m1")
        await self.until_counted(1)
        [row] = await self.rows()
        self.assertEqual((row.receiver, row.sender, row.times), (RECEIVER, SENDER, 1))
        self.assertEqual((row.text, row.provider_message_id), (f"{TEXT_MARKER} Grüße 👋 \\ ' \"", "m1"))
        self.assertIn("neither ACD group nor routing application", row.reason)
        self.assertEqual(row.received_at[:23], row.last_at[:23])
        self.assertLess(abs(datetime.fromisoformat(row.last_at) - utc_now()), timedelta(minutes=1))

    async def test_a_repeat_is_counted_in_its_row_in_one_batch_and_over_several(self) -> None:
        for _ in range(3):
            self.refuse(message_id="m1")
        await self.until_counted(3)
        first = (await self.rows())[0]
        await self.apply(directory().replace('name = "shop"\nres', 'name = "shop"\nenabled = false\nres', 1))
        self.refuse(message_id="m1")
        self.refuse(message_id="m2")
        await self.until_counted(5)
        again, other = await self.rows()
        self.assertEqual((again.id, again.received_at, again.times), (first.id, first.received_at, 4))
        self.assertIn("disabled", again.reason)
        self.assertGreater(again.last_at, first.last_at)
        self.assertEqual(other.times, 1)

    async def test_without_a_message_id_each_is_one_of_its_own(self) -> None:
        for _ in range(3):
            self.refuse()
        await self.until_counted(3)
        self.assertEqual([row.times for row in await self.rows()], [1, 1, 1])

    async def test_a_batch_that_is_sent_again_after_a_lost_answer_keeps_each_once(self) -> None:
        batch: list[RefusedSMS] = []
        self.patch(self.store, "keep", batch.append)
        self.refuse(message_id="m1")
        self.refuse("other")
        for _ in range(2):
            await self.pool.lend(lambda connection: self.store._keep_all(connection, batch))
        self.assertEqual([row.times for row in await self.rows()], [1, 1])

    async def test_oldest_first_by_receiver_since_and_limit_over_pages(self) -> None:
        self.patch(refused_retry, "PAGE_ROWS", 2)
        start = utc_now()
        for minutes in (1, 5, 3, 2, 4):
            self.now = start - timedelta(minutes=minutes)
            self.refuse(str(minutes))
        self.now = start
        self.refuse("other", receiver=OTHER_RECEIVER)
        await self.until_counted(6)
        self.assertEqual(await self.texts(), ["5", "4", "3", "2", "1", "other"])
        self.assertEqual(await self.texts(limit=3), ["5", "4", "3"])
        self.assertEqual(await self.texts(limit=0), [])
        self.assertEqual(await self.texts(since=start - timedelta(minutes=2)), ["2", "1", "other"])
        spelling = f"00{OTHER_RECEIVER[1:4]} {OTHER_RECEIVER[4:]}"
        self.assertEqual(await self.texts(receiver=spelling), ["other"])


class BoundTests(RefusedTest):
    async def test_past_the_number_of_rows_the_oldest_go_and_are_counted(self) -> None:
        self.patch(refused_store, "MAX_KEPT", 10)
        self.patch(refused_store, "LOOK_AFTER_ROWS", 1)
        await self.refuse_in_turn(25)
        self.assertEqual(await self.texts(), [str(n) for n in range(15, 25)])
        self.assertEqual((self.counted.kept, self.counted.dropped), (25, 15))

    async def test_past_the_size_of_texts_the_oldest_go(self) -> None:
        self.patch(refused_store, "MAX_KEPT_BYTES", 10_000)
        self.patch(refused_store, "LOOK_AFTER_CHARACTERS", 1)
        await self.refuse_in_turn(8, "x" * 3000)
        self.assertEqual(len(await self.rows()), 3)
        self.assertEqual(self.counted.dropped, 5)
        texts = [text.split()[0] for text in await self.texts()]
        self.assertEqual(texts, ["5", "6", "7"])

    async def refuse_in_turn(self, count: int, text: str = "") -> None:
        start = utc_now()
        for n in range(count):
            self.now = start + timedelta(milliseconds=n)
            self.refuse(f"{n} {text}".strip())
            await until(lambda: self.counted.kept == n + 1, "the next")  # noqa: B023  # awaited here

    async def test_what_came_last_a_week_ago_is_forgotten_and_nothing_else(self) -> None:
        self.patch(refused_store, "FORGET_AT_ONCE", 2)
        week = timedelta(days=7)
        for n, age in enumerate((week * 2, week + timedelta(minutes=1), week + timedelta(hours=1))):
            self.now = utc_now() - age
            self.refuse(f"old {n}")
        self.refuse("again", message_id="m1")
        self.now = utc_now() - week + timedelta(minutes=1)
        self.refuse("again", message_id="m1")
        self.refuse("young")
        await self.until_counted(6)
        self.assertEqual(await forget_refused(self.pool), 3)
        self.assertEqual(await self.texts(), ["again", "young"])

    async def test_more_than_may_wait_is_dropped_and_counted_and_answered_alike(self) -> None:
        self.patch(refused_store, "MAX_WAITING_CHARACTERS", 10_000)
        for _ in range(8):
            self.refuse("x" * 3000)
        await self.until_counted(8)
        self.assertEqual((self.counted.kept, self.counted.dropped), (3, 5))
        self.refuse("x" * 3000)
        await self.until_counted(9)
        self.assertEqual((self.counted.kept, len(await self.rows())), (4, 4))


class DatabaseAwayTests(RefusedTest):
    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        self.server = PrivateServer(self)
        self.server.start()
        self.pool = Pool(dsn=self.server.dsn, size=2, reactor=reactor, statement_timeout=5.0)
        self.addCleanup(self.pool.close)
        self.pool.start()
        await migrate(self.pool)
        await self.set_up_on(self.server.dsn, self.pool)

    async def test_while_the_database_is_away_they_wait_within_bounds_and_are_kept_after(self) -> None:
        self.server.kill()
        for n in range(1500):
            self.refuse(str(n))
        await until(lambda: self.counted.dropped == 500, "what does not fit")
        self.assertEqual(self.counted.kept, 0)
        await self.server.restart()
        await self.until_counted(1500)
        self.assertEqual((self.counted.kept, self.counted.dropped), (1000, 500))
        self.assertEqual(len(set(await self.texts())), 1000)

    async def test_also_what_was_under_way_when_the_database_went_is_kept_after(self) -> None:
        blocking = psycopg2.connect(self.server.dsn)
        self.addCleanup(blocking.close)
        with blocking.cursor() as cursor:
            cursor.execute("LOCK TABLE refused_sms")
            for n in range(5):
                self.refuse(str(n))
            waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
            await self.until_found(waits)
        self.server.kill()
        await self.server.restart()
        await self.until_counted(5)
        self.assertEqual((self.counted.kept, sorted(await self.texts())), (5, list("01234")))

    async def test_a_stop_without_database_waits_its_seconds_and_no_longer(self) -> None:
        self.server.kill()
        self.refuse()
        await self.store.stop(0.1)
        self.assertEqual((self.counted.kept, self.counted.dropped), (0, 1))


class StopTests(RefusedTest):
    async def test_a_stop_writes_what_waits(self) -> None:
        for n in range(200):
            self.refuse(str(n))
        await self.store.stop(30.0)
        self.assertEqual((self.counted.kept, len(await self.rows())), (200, 200))


class RetryPartsTests(RefusedTest):
    async def part(self, number: int, how: str) -> None:
        part = Part(reference="7", number=number, total=3)
        if how == "refused":
            self.refuse(f"{number}", message_id=f"m{number}", part=part)
        else:
            await self.accept(f"{number}", message_id=f"m{number}", part=part)

    async def test_parts_that_were_refused_are_joined_with_those_that_were_not(self) -> None:
        for number in (3, 1):
            await self.part(number, "refused")
        await self.until_counted(2)
        await self.apply(MENDED)
        await self.part(2, "accepted")
        self.assertEqual({result.result for result in await self.retry(dry_run=True)}, {"accepted"})
        self.assertEqual(await self.accepted_texts(), [])
        results = await self.retry()
        self.assertEqual([result.result for result in results], ["accepted"] * 2)
        self.assertEqual(len({result.message_id for result in results}), 1)
        self.assertEqual(await self.accepted_texts(), [f"1{TEXT_MARKER} 2{TEXT_MARKER} 3"])
        self.assertEqual(await self.rows(), [])

    async def test_one_that_its_provider_has_sent_again_meanwhile_is_not_stored_twice(self) -> None:
        await self.part(2, "refused")
        await self.until_counted(1)
        await self.apply(MENDED)
        for number in (1, 2, 3):
            await self.part(number, "accepted")
        self.assertEqual([result.result for result in await self.retry()], ["already accepted"])
        [(waiting,)] = await self.pool.query("SELECT count(*) FROM concatenation WHERE ended_at IS NULL")
        self.assertEqual((waiting, len(await self.accepted_texts())), (0, 1))


class RetryTests(RefusedTest):
    async def test_once_mended_they_are_accepted_in_the_order_in_which_they_came(self) -> None:
        self.patch(refused_retry, "PAGE_ROWS", 3)
        start = utc_now()
        for n in range(8):
            self.now = start + timedelta(milliseconds=10 * n)
            self.refuse(str(n), keyword="K", message_id=f"m{n}", encoding="latin-1", raw_text=b"\xe4")
        await self.until_counted(8)
        before = await self.rows()
        await self.apply(MENDED)
        results = await self.retry()
        self.assertEqual([(r.id, r.result) for r in results], [(row.id, "accepted") for row in before])
        self.assertEqual(await self.accepted_texts(), [str(n) for n in range(8)])
        self.assertEqual(await self.rows(), [])
        rows = await self.pool.query(
            "SELECT id, received_at, receiver, sender, keyword, provider_message_id, encoding, raw_text"
            " FROM message ORDER BY id LIMIT 1"
        )
        id, received_at, receiver, sender, keyword, message_id, encoding, raw_text = rows[0]
        self.assertEqual((id, received_at), (before[0].id, time_of(UUID(before[0].id))))
        self.assertEqual((receiver, sender, keyword, message_id), (RECEIVER, SENDER, "K", "m0"))
        self.assertEqual((encoding, bytes(raw_text)), ("latin-1", b"\xe4"))
        leased = await self.pool.query("SELECT count(*) FROM delivery WHERE lease IS NOT NULL")
        heads = await self.pool.query("SELECT count(*) FROM delivery WHERE due_at <= now()")
        self.assertEqual((leased, heads), ([(0,)], [(1,)]))

    async def test_a_repeat_that_was_accepted_meanwhile_is_recognised(self) -> None:
        self.refuse(message_id="m1")
        await self.until_counted(1)
        await self.apply(MENDED)
        receipt = await self.accept(message_id="m1")
        [result] = await self.retry()
        self.assertEqual((result.result, result.message_id), ("already accepted", str(receipt.id)))
        self.assertNotEqual(result.id, result.message_id)
        self.assertEqual((await self.rows(), await self.accepted_texts()), ([], ["x"]))

    async def test_a_repeat_that_comes_after_the_retry_is_recognised(self) -> None:
        self.refuse(message_id="m1")
        await self.until_counted(1)
        await self.apply(MENDED)
        [result] = await self.retry()
        receipt = await self.accept(message_id="m1")
        self.assertEqual((receipt.duplicate, str(receipt.id)), (True, result.id))
        self.assertEqual(await self.accepted_texts(), ["x"])

    async def test_what_is_still_refused_stays_with_its_new_reason(self) -> None:
        self.refuse("good")
        self.refuse("bad", receiver=OTHER_RECEIVER)
        await self.until_counted(2)
        mended = MENDED.replace("enabled = false", "enabled = true")
        await self.apply(mended.replace('url = "log:"', 'url = "log:"\nenabled = false'))
        self.assertEqual({r.result for r in await self.retry()}, {"still refused"})
        reasons = {row.reason for row in await self.rows()}
        self.assertEqual(reasons, {"the connector's ACD group or routing application is disabled"})
        await self.apply(MENDED)
        self.assertEqual(Counter(r.result for r in await self.retry())["accepted"], 0)
        await self.apply(MENDED.replace('url = "log:"', 'url = "log:"\nenabled = true'))
        results = {r.result: r.reason for r in await self.retry()}
        self.assertEqual(results, {"accepted": None, "still refused": "the connector is disabled"})
        self.assertEqual((await self.texts(), await self.accepted_texts()), (["bad"], ["good"]))

    async def test_only_those_chosen_are_retried(self) -> None:
        self.refuse("1")
        self.refuse("2")
        self.refuse("3", receiver=OTHER_RECEIVER)
        await self.until_counted(3)
        await self.apply(MENDED.replace("enabled = false", "enabled = true"))
        id = {row.text: UUID(row.id) for row in await self.rows()}[f"{TEXT_MARKER} 2"]
        self.assertEqual(len(await self.retry(Chosen(id=id))), 1)
        self.assertEqual(await self.accepted_texts(), ["2"])
        self.assertEqual(len(await self.retry(Chosen(receiver=OTHER_RECEIVER.lstrip("+")))), 1)
        self.assertEqual(await self.accepted_texts(), ["2", "3"])
        self.assertEqual(await self.retry(Chosen(id=id)), [])

    async def test_a_dry_run_says_the_same_and_changes_nothing(self) -> None:
        self.refuse("1", message_id="m1")
        self.refuse("2")
        self.refuse("3", receiver=OTHER_RECEIVER)
        await self.until_counted(3)
        await self.apply(MENDED)
        await self.accept("1", message_id="m1")
        before = await self.rows()
        said = await self.retry(dry_run=True)
        self.assertEqual((await self.rows(), await self.accepted_texts()), (before, ["1"]))
        self.assertEqual(await self.retry(), said)
        results = Counter(result.result for result in said)
        self.assertEqual(results, {"accepted": 1, "already accepted": 1, "still refused": 1})

    async def test_it_goes_behind_what_its_conversation_has_accepted_meanwhile(self) -> None:
        self.refuse("1")
        await self.until_counted(1)
        await self.apply(MENDED)
        await self.accept("2")
        await self.accept("elsewhere", sender=OTHER_SENDER)
        await self.retry()
        self.assertEqual(await self.accepted_texts(), ["2", "elsewhere", "1"])
        [(heads,)] = await self.pool.query("SELECT count(*) FROM delivery WHERE due_at IS NOT NULL")
        self.assertEqual(heads, 2)

    async def test_two_retries_at_once_accept_each_once_while_the_intake_goes_on(self) -> None:
        self.patch(refused_retry, "PAGE_ROWS", 7)
        for n in range(60):
            self.refuse(str(n), sender=f"{SENDER}{n % 5}", message_id=f"m{n}")
        await self.until_counted(60)
        await self.apply(MENDED)
        other = Pool(dsn=self.dsn, size=1, reactor=reactor, statement_timeout=0)
        self.addCleanup(other.close)
        other.start()
        retries = [
            ensureDeferred(flat(retry(pool, Chosen(), first_delay_seconds=0.0, dry_run=False)))
            for pool in (self.pool, other)
        ]
        repeats = [
            ensureDeferred(self.accept(str(n), sender=f"{SENDER}{n % 5}", message_id=f"m{n}"))
            for n in range(30)
        ]
        results = [result for found in await gatherResults(retries) for result in found]
        await gatherResults(repeats)
        self.assertEqual(len({result.id for result in results}), len(results))
        self.assertEqual(sorted(await self.accepted_texts(), key=int), [str(n) for n in range(60)])
        self.assertEqual(await self.rows(), [])

    async def test_a_head_that_appears_meanwhile_makes_it_try_again_behind_that(self) -> None:
        self.refuse("1")
        await self.until_counted(1)
        await self.apply(MENDED)
        other = psycopg2.connect(self.dsn)
        self.addCleanup(other.close)
        with other.cursor() as cursor:
            cursor.execute(
                "INSERT INTO delivery (id, message_id, connector_id, sender, target_id, due_at)"
                " SELECT gen_random_uuid(), gen_random_uuid(), connector_id, sender, t.id, now()"
                " FROM refused_sms, target t"
            )
            retrying = ensureDeferred(self.retry())
            waits = "SELECT 1 FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
            await self.until_found(waits)
        other.commit()
        [result] = await retrying
        self.assertEqual((result.result, await self.accepted_texts()), ("accepted", ["1"]))
        heads = await self.pool.query("SELECT due_at IS NOT NULL FROM delivery ORDER BY seq")
        self.assertEqual(sorted(heads), [(False,), (True,)])

    async def test_a_retry_that_dies_before_its_commit_has_done_nothing(self) -> None:
        self.refuse("1")
        await self.until_counted(1)
        await self.apply(MENDED)
        blocking = psycopg2.connect(self.dsn)
        self.addCleanup(blocking.close)
        with blocking.cursor() as cursor:
            cursor.execute("LOCK TABLE delivery")
            retrying = ensureDeferred(self.retry())
            waits = "SELECT pid FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
            found = await self.until_found(waits)
            cursor.execute("SELECT pg_terminate_backend(%s)", found[0])
        blocking.commit()
        await self.assertFailure(retrying, StoreUnavailable)
        self.flushLoggedErrors(psycopg2.InterfaceError)  # txpostgres logs that it could not roll back
        self.assertEqual((await self.texts(), await self.accepted_texts()), (["1"], []))
        [result] = await self.retry()
        self.assertEqual((result.result, await self.accepted_texts()), ("accepted", ["1"]))

    async def test_a_number_that_was_given_to_another_client_does_not_get_what_came_before(self) -> None:
        self.refuse("private")
        await self.until_counted(1)
        without = MENDED.replace(f'[[connector]]\nclient = "acme/shop"\nnumber = "{RECEIVER}"\n', "# ", 1)
        without = without.replace('# acd_group = "support"', "", 1)
        await self.apply(without, prune=True)
        [result] = await self.retry()
        self.assertEqual(result.reason, "no connector has this number any more")
        theirs = '[[acd_group]]\nclient = "acme/other"\nname = "theirs"\nurl = "log:"\n'
        theirs += f'[[connector]]\nclient = "acme/other"\nnumber = "{RECEIVER}"\nacd_group = "theirs"\n'
        await self.apply(without + theirs)
        [result] = await self.retry()
        self.assertEqual(result.reason, "the number is of another client now")
        self.assertEqual(await self.accepted_texts(), [])
        await self.apply(without, prune=True)
        await self.apply(MENDED)
        [result] = await self.retry()
        self.assertEqual((result.result, await self.accepted_texts()), ("accepted", ["private"]))
