"""What tests of the store begin with: a pool on a migrated database of their own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

from twisted.internet.interfaces import IReactorTime

from smsdaemon.domain.directory_file import parse
from smsdaemon.domain.providers import Providers
from smsdaemon.store.apply import Applied, apply
from smsdaemon.store.migrate import migrate
from smsdaemon.store.pool import Pool
from tests.support.cases import ReactorTest
from tests.support.directories import PROVIDERS
from tests.support.postgres import fresh_database

NOW = datetime(2026, 11, 22, 16, 43, 42, tzinfo=UTC)


async def migrated_pool(test: ReactorTest, size: int = 2) -> tuple[str, Pool]:
    """DSN and pool; the pool is closed after the test, and then the database dropped."""
    from twisted.internet import reactor

    dsn = await fresh_database(test)
    pool = Pool(dsn=dsn, size=size, reactor=cast(IReactorTime, reactor), statement_timeout=5.0)
    test.addCleanup(pool.close)
    pool.start()
    await migrate(pool)
    return dsn, pool


async def apply_text(
    pool: Pool,
    text: str,
    *,
    dry_run: bool = False,
    prune: bool = False,
    force: bool = False,
    providers: Providers = PROVIDERS,
) -> Applied:
    """Apply a directory file that is given as its text."""
    file = parse(text.encode(), "test.toml")
    return await apply(pool, file, dry_run=dry_run, prune=prune, force=force, now=NOW, providers=providers)
