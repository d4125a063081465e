"""`apply` and `export` against a real PostgreSQL (contract 4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import blockingCallFromThread, deferToThread

from smsdaemon.domain.directory_changes import StoredDirectory
from smsdaemon.domain.directory_export import render
from smsdaemon.domain.directory_values import token_hash
from smsdaemon.errors import ApplyRefused, ConfigurationError
from smsdaemon.store.apply import Applied
from smsdaemon.store.directory_rows import stored_directory
from smsdaemon.store.pool import Pool, Run
from tests.support.cases import ReactorTest
from tests.support.directories import directories
from tests.support.store import NOW, apply_text, migrated_pool

ACME = '[[reseller]]\nname = "acme"\n'
SHOP = ACME + '[[client]]\nname = "shop"\nreseller = "acme"\n'
SUPPORT = '[[acd_group]]\nclient = "acme/shop"\nname = "support"\nurl = "http://127.0.0.1:9/sms"\n'
SURVEY = '[[application]]\nclient = "acme/shop"\nname = "survey"\nurl = "log:"\n'
CONNECTOR = '[[connector]]\nclient = "acme/shop"\nnumber = "+49123123"\nacd_group = "support"\n'
WHOLE = SHOP + SUPPORT + SURVEY + CONNECTOR

PENDING = """
    INSERT INTO delivery (id, message_id, connector_id, sender, target_id, due_at, attempts, hops)
    SELECT gen_random_uuid(), %(message)s, c.id, %(sender)s, t.id, now(), 3, '[{"kind": "application"}]'
    FROM connector c, target t WHERE c.number = '+49123123' AND t.name = %(target)s
"""

WAITING = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


class ApplyTests(ReactorTest):
    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        self.pool: Pool
        _, self.pool = await migrated_pool(self, size=3)

    async def stored(self) -> str:
        return "".join(render(await stored_directory(self.pool)))

    async def refused(self, text: str, **options: Any) -> list[str]:
        """The problems; fails where the text is applied or where anything is changed all the same."""
        before = await self.stored()
        try:
            await apply_text(self.pool, text, **options)
        except (ApplyRefused, ConfigurationError) as error:
            self.assertEqual(await self.stored(), before)
            return error.problems
        raise AssertionError("this was applied")

    async def add_pending(self, sender: str, target: str = "support") -> None:
        await self.pool.query(PENDING, {"message": str(uuid4()), "sender": sender, "target": target})

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return await self.pool.query(sql)

    async def test_a_directory_is_created_and_applying_it_again_changes_nothing(self) -> None:
        applied = await apply_text(self.pool, WHOLE)
        (secret,) = await self.rows("SELECT secret FROM target WHERE name = 'support'")
        self.assertRegex(secret[0], r"^whsec_[A-Za-z0-9+/]{43}=$")
        self.assertEqual(applied.lines[:2], ("create reseller acme", "create client acme/shop"))
        self.assertEqual(applied.lines[2], f"create acd_group acme/shop/support (secret {secret[0]})")
        self.assertEqual(applied.lines[4], "create connector +49123123")
        self.assertEqual(applied.counts, "create 5, update 0, unchanged 0")
        again = await apply_text(self.pool, WHOLE)
        self.assertEqual((again.lines, again.counts), ((), "create 0, update 0, unchanged 5"))
        self.assertEqual(await self.rows("SELECT secret FROM target WHERE name = 'support'"), [secret])

    async def test_a_secret_that_is_given_is_stored_and_not_shown(self) -> None:
        secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
        applied = await apply_text(self.pool, SHOP + SUPPORT + f'secret = "{secret}"\n')
        self.assertEqual(applied.lines[2], "create acd_group acme/shop/support")
        self.assertEqual(await self.rows("SELECT secret FROM target"), [(secret,)])

    async def test_a_dry_run_tells_the_same_and_changes_nothing(self) -> None:
        applied = await apply_text(self.pool, WHOLE, dry_run=True)
        self.assertEqual(applied.counts, "create 5, update 0, unchanged 0")
        self.assertEqual(applied.lines[2], "create acd_group acme/shop/support (a secret will be made)")
        self.assertEqual(await stored_directory(self.pool), StoredDirectory())
        await apply_text(self.pool, WHOLE)
        before = await self.stored()
        await self.add_pending("a")
        dry = await apply_text(self.pool, SHOP, dry_run=True, prune=True, force=True)
        self.assertEqual(dry.counts, "create 0, update 0, unchanged 2, remove 3")
        self.assertEqual(await self.stored(), before)
        self.assertEqual(await self.rows("SELECT count(*) FROM delivery"), [(1,)])

    async def test_what_is_left_out_keeps_what_is_stored(self) -> None:
        await apply_text(self.pool, WHOLE + 'sender_format = "as-is"\nenabled = false\ntokens = ["a"]\n')
        applied = await apply_text(self.pool, '[[connector]]\nnumber = "0049 123123"\nrequire_token = true\n')
        self.assertEqual(applied.lines, ("update connector 0049 123123: number, require_token",))
        (connector,) = (await stored_directory(self.pool)).connectors.values()
        self.assertEqual(connector.target, ("acme/shop", "acd_group", "support"))
        self.assertEqual((connector.sender_format, connector.enabled), ("as-is", False))
        self.assertEqual((connector.require_token, connector.tokens), (True, {token_hash("a")}))

    async def test_tokens_that_are_given_are_the_only_ones_from_then_on(self) -> None:
        for named, valid in (("a", "a"), ("a b", "a b"), ("b c", "b c"), ("", "")):
            tokens = ", ".join(f'"{token}"' for token in named.split())
            await apply_text(self.pool, WHOLE + f"tokens = [{tokens}]\n")
            (connector,) = (await stored_directory(self.pool)).connectors.values()
            self.assertEqual(connector.tokens, {token_hash(token) for token in valid.split()})

    async def test_a_connector_may_go_to_another_client_and_target(self) -> None:
        other = '[[client]]\nname = "b"\nreseller = "acme"\n'
        group = SUPPORT.replace("acme/shop", "acme/b")
        await apply_text(self.pool, WHOLE + other)
        await apply_text(self.pool, '[[connector]]\nnumber = "+49123123"\nclient = "acme/b"\n')
        self.assertNotIn("acd_group = ", await self.stored())
        exported = await apply_text(self.pool, await self.stored(), prune=True)
        self.assertEqual(exported.counts, "create 0, update 0, unchanged 6, remove 0")
        named = group + '[[connector]]\nnumber = "+49123123"\nacd_group = "support"\n'
        self.assertEqual(
            (await apply_text(self.pool, named)).lines[1:], ("update connector +49123123: acd_group",)
        )
        (connector,) = (await stored_directory(self.pool)).connectors.values()
        self.assertEqual(connector.target, ("acme/b", "acd_group", "support"))

    async def test_a_dangling_name_changes_nothing_at_all(self) -> None:
        await apply_text(self.pool, ACME)
        problems = await self.refused(WHOLE.replace('acd_group = "support"', 'acd_group = "suport"'))
        self.assertEqual(
            problems,
            ['test.toml: connector "+49123123": acd_group "suport" does not exist in client acme/shop'],
        )

    async def test_pruning_removes_what_the_file_does_not_name_and_frees_the_names(self) -> None:
        await apply_text(self.pool, WHOLE + 'tokens = ["a"]\n')
        kept = await apply_text(self.pool, ACME)
        self.assertEqual(kept.counts, "create 0, update 0, unchanged 1")
        pruned = await apply_text(self.pool, "", prune=True)
        self.assertEqual(
            pruned.lines,
            (
                "remove connector +49123123",
                "remove acd_group acme/shop/support",
                "remove application acme/shop/survey",
                "remove client acme/shop",
                "remove reseller acme",
            ),
        )
        self.assertEqual(pruned.counts, "create 0, update 0, unchanged 0, remove 5")
        self.assertEqual(await stored_directory(self.pool), StoredDirectory())
        self.assertEqual(await self.rows("SELECT removed_at FROM connector"), [(NOW,)])
        self.assertEqual((await apply_text(self.pool, WHOLE)).created, 5)
        (connector,) = (await stored_directory(self.pool)).connectors.values()
        self.assertEqual(connector.tokens, frozenset())

    async def test_what_has_pending_deliveries_is_not_removed(self) -> None:
        await apply_text(self.pool, WHOLE)
        for sender, target in (("a", "support"), ("b", "support"), ("c", "survey")):
            await self.add_pending(sender, target)
        self.assertEqual(
            await self.refused(SHOP, prune=True),
            [
                "connector +49123123 has 3 deliveries pending; --force makes them dead",
                "acd_group acme/shop/support has 2 deliveries pending; --force makes them dead",
                "application acme/shop/survey has 1 delivery pending; --force makes them dead",
            ],
        )
        self.assertEqual(await self.rows("SELECT count(*) FROM delivery"), [(3,)])

    async def test_force_makes_what_is_pending_dead_and_leaves_the_rest(self) -> None:
        await apply_text(self.pool, WHOLE)
        await self.add_pending("a", "support")
        await self.add_pending("b", "survey")
        pending = "message_id, seq, id, connector_id, sender, target_id, attempts, hops"
        before = await self.rows(f"SELECT {pending} FROM delivery WHERE sender = 'b'")
        without_survey = SHOP + SUPPORT + CONNECTOR
        applied = await apply_text(self.pool, without_survey, prune=True, force=True)
        self.assertEqual(applied.lines, ("remove application acme/shop/survey (1 delivery made dead)",))
        self.assertEqual(await self.rows("SELECT sender FROM delivery"), [("a",)])
        self.assertEqual(await self.rows(f"SELECT {pending} FROM ended_delivery"), before)
        ended = await self.rows("SELECT state, reason, ended_at FROM ended_delivery")
        self.assertEqual(ended, [("dead", "target removed", NOW)])
        await apply_text(self.pool, SHOP + SUPPORT, prune=True, force=True)
        reasons = await self.rows("SELECT sender, reason FROM ended_delivery ORDER BY sender")
        self.assertEqual(reasons, [("a", "connector removed"), ("b", "target removed")])

    async def test_force_also_buries_what_is_being_added_behind_a_pending_delivery(self) -> None:
        await apply_text(self.pool, WHOLE)
        await self.add_pending("a")
        committed: Deferred[None] = Deferred()

        async def add_behind(run: Run) -> None:
            # As the accepting statement does: hold the head, add with no due_at.
            await run("SELECT id FROM delivery FOR KEY SHARE")
            await run(
                PENDING.replace("now()", "NULL"),
                {"message": str(uuid4()), "sender": "a", "target": "support"},
            )
            await committed

        adding = self.pool.transaction(add_behind)
        applying = Deferred.fromCoroutine(apply_text(self.pool, SHOP, prune=True, force=True))
        while not (await self.rows(WAITING))[0][0]:
            self.assertNoResult(applying)
        committed.callback(None)
        await adding
        self.assertEqual((await applying).lines[0], "remove connector +49123123 (2 deliveries made dead)")
        self.assertEqual(await self.rows("SELECT count(*) FROM delivery"), [(0,)])

    async def test_two_at_once_do_not_interleave(self) -> None:
        both = [Deferred.fromCoroutine(apply_text(self.pool, WHOLE)) for _ in range(2)]
        counts = sorted(applied.counts for applied in await gatherResults(both, consumeErrors=True))
        self.assertEqual(counts, ["create 0, update 0, unchanged 5", "create 5, update 0, unchanged 0"])

    async def test_more_rows_than_go_in_one_statement_are_all_stored(self) -> None:
        many = SHOP + "".join(
            f'[[connector]]\nclient = "acme/shop"\nnumber = "+49{n}"\ntokens = ["{n}"]\n'
            for n in range(1_000_000, 1_010_005)
        )
        await apply_text(self.pool, many)
        connectors = (await stored_directory(self.pool)).connectors
        self.assertEqual(len(connectors), 10_005)
        self.assertTrue(all(row.tokens == {token_hash(key[2:])} for key, row in connectors.items()))
        self.assertEqual((await apply_text(self.pool, many)).lines, ())

    async def test_any_directory_comes_back_as_it_was_exported(self) -> None:
        @settings(max_examples=30, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
        @given(directories())
        def comes_back(directory: StoredDirectory) -> None:
            again = wait(threads, self.go_round, directory)
            self.assertEqual((again.lines, again.created, again.updated, again.removed), ((), 0, 0, 0))

        threads = cast(IReactorFromThreads, reactor)
        wait = cast(Callable[..., Applied], blockingCallFromThread)
        # In a thread, as Hypothesis cannot wait for a Deferred between its examples.
        await deferToThread(comes_back)

    def go_round(self, directory: StoredDirectory) -> Deferred[Applied]:
        return Deferred.fromCoroutine(self.export_and_apply(directory))

    async def export_and_apply(self, directory: StoredDirectory) -> Applied:
        text = "".join(render(directory))
        await apply_text(self.pool, "", prune=True)
        await apply_text(self.pool, text)
        exported = await self.stored()
        self.assertEqual(exported, text)
        return await apply_text(self.pool, exported, prune=True)
