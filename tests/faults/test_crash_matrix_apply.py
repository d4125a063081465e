"""Applying a directory file, with a failure at every await: all of it is in force, or nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from smsdaemon.domain.directory_export import render
from smsdaemon.domain.directory_file import parse
from smsdaemon.errors import StoreUnavailable
from smsdaemon.store.apply import Applied, apply
from smsdaemon.store.directory_rows import stored_directory
from smsdaemon.store.pool import Pool
from tests.support.crash_matrix import CrashMatrixTest
from tests.support.crash_stage import Stage, StoreProcess
from tests.support.crashing import How
from tests.support.secrets_in_tests import OTHER_RECEIVER, OTHER_TOKEN, RECEIVER, SECRET, SENDER, TOKEN
from tests.support.store import NOW

BEFORE = f"""
[[reseller]]
name = "acme"
[[client]]
name = "shop"
reseller = "acme"
[[acd_group]]
client = "acme/shop"
name = "support"
url = "log:"
secret = "{SECRET}"
[[connector]]
client = "acme/shop"
number = "{RECEIVER}"
acd_group = "support"
tokens = ["{TOKEN}"]
"""
AFTER = f"""
[[reseller]]
name = "acme"
enabled = false
[[reseller]]
name = "other"
[[client]]
name = "shop"
reseller = "acme"
[[client]]
name = "shop"
reseller = "other"
[[acd_group]]
client = "acme/shop"
name = "sales"
url = "log:"
secret = "{SECRET}"
[[application]]
client = "other/shop"
name = "survey"
url = "log:"
secret = "{SECRET}"
[[connector]]
client = "other/shop"
number = "{OTHER_RECEIVER}"
application = "survey"
tokens = ["{OTHER_TOKEN}"]
"""
WAYS = [How.UNSENT, How.UNANSWERED, How.DIED_BEFORE, How.DIED_AFTER]
"""The others differ where something else goes on at the same time."""
_CLEAR = """
    DELETE FROM connector_token; DELETE FROM connector; DELETE FROM target; DELETE FROM client;
    DELETE FROM reseller; DELETE FROM delivery; DELETE FROM ended_delivery
"""
_PENDING = """
    INSERT INTO message (id, received_at, connector_id, client_id, receiver, sender, sender_raw, text,
                         provider, encoding, parts)
    SELECT %(id)s, now(), c.id, c.client_id, c.number, %(sender)s, %(sender)s, '', 'generic', 'utf-8', 1
    FROM connector c;
    INSERT INTO delivery (id, message_id, connector_id, sender, target_id, due_at)
    SELECT %(id)s, %(id)s, c.id, %(sender)s, t.id, now() FROM connector c, target t
"""


def applied(pool: Pool, text: str) -> Deferred[Applied]:
    file = parse(text.encode(), "test.toml")
    return apply(pool, file, dry_run=False, prune=True, force=True, now=NOW)


class ApplyStage(Stage):
    """One process applies a file by which a connector with something pending goes."""

    answered: Applied | None = None
    before = ""

    async def begin(self) -> None:
        await self.pool.query(_CLEAR)
        await applied(self.pool, BEFORE)
        await self.pool.query(_PENDING, {"id": str(uuid4()), "sender": SENDER})
        self.before = await self.stored()

    async def stored(self) -> str:
        return "".join(render(await stored_directory(self.pool)))

    async def state(self) -> tuple[str, int, int]:
        """The directory, and what is pending and dead."""
        [(pending, dead)] = await self.pool.query(
            "SELECT (SELECT count(*) FROM delivery), (SELECT count(*) FROM ended_delivery)"
        )
        return await self.stored(), pending, dead

    def apply(self, process: StoreProcess) -> None:
        def told(result: Applied | Failure) -> None:
            process.under_way -= 1
            if isinstance(result, Failure):
                result.trap(StoreUnavailable)
            else:
                self.answered = result

        process.under_way += 1
        applied(process.pool, AFTER).addBoth(told)

    async def come_to_an_end(self) -> StoreProcess:
        return await self.heal()

    async def faults(self) -> list[str]:
        state = await self.state()
        again = await applied(self.pool, AFTER)
        complete = await self.state()
        found = []
        if complete[1:] != (0, 1) or complete[0] == self.before:
            found.append("applying it again did not complete it")
        if state not in ((self.before, 1, 0), complete):
            found.append("a part of the file is in force")
        if self.answered is not None and state != complete:
            found.append("the file was said to be in force and is not")
        if state == complete and again.lines:
            found.append("applying it again changed something")
        return found


class ApplyTests(CrashMatrixTest):
    def stage(self, at: int = 0, how: How | None = None) -> Stage:
        return ApplyStage(self.pool, datetime.now(UTC), at, how)

    async def test_all_or_nothing(self) -> None:
        async def play(stage: Stage) -> None:
            assert isinstance(stage, ApplyStage)
            await stage.begin()
            stage.apply(await stage.doomed())
            await stage.rest()

        await self.matrix("apply", play, at_least=33, ways=WAYS)
