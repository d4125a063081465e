"""Brings the schema up to date, in one transaction, whoever else tries the same at that moment."""

from __future__ import annotations

import re
from importlib.resources import files

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from smsdaemon.errors import SchemaMismatch
from smsdaemon.store.pool import Pool, Run

_log = Logger(namespace="smsdaemon.store")
_LOCK = 0x736D7364  # "smsd"; any number will do that nothing else in the database uses
_STATE = "SELECT number, oldest_code FROM schema_version"
_RECORD = """
    INSERT INTO schema_version (number, oldest_code) VALUES (%(number)s, %(oldest_code)s)
    ON CONFLICT (only_row) DO UPDATE SET
        number = EXCLUDED.number,
        oldest_code = greatest(schema_version.oldest_code, EXCLUDED.oldest_code),
        applied_at = now()
"""
# A new partition locks the whole table for a moment, and whoever waits for that lock holds up everybody who
# comes after. A backup reads for as long as it takes; so it is waited for a moment only, once an hour.
_PARTITIONS = """
DO $$ BEGIN
    PERFORM set_config('lock_timeout', '200ms', true);
    PERFORM make_partitions(now()), make_partitions(now() + interval '1 month');
EXCEPTION WHEN lock_not_available THEN
    NULL;  -- without its own, rows go into the default partition, where they are found as well
END $$;
SELECT bool_and(to_regclass(parent || to_char(now() AT TIME ZONE 'UTC' + interval '1 month', '_YYYYMM'))
                IS NOT NULL)
FROM unnest(ARRAY['message', 'ended_delivery', 'attempt']) AS parent
"""


@frozen
class Migration:
    """One numbered SQL file of store/schema/."""

    number: int
    name: str
    sql: str
    oldest_code: int
    """Lowest schema number of code that can still run once this is applied; from the file's line
    ``-- oldest-code: N``, by default the file's own number."""


def migrations() -> list[Migration]:
    """All that this code knows, in order."""
    found = []
    for entry in files("smsdaemon.store").joinpath("schema").iterdir():
        match = re.fullmatch(r"(\d{4})_\w+\.sql", entry.name)
        if match:
            sql = entry.read_text(encoding="utf-8")
            oldest = re.search(r"^-- oldest-code: (\d+)$", sql, re.MULTILINE)
            number = int(match[1])
            found.append(Migration(number, entry.name, sql, int(oldest[1]) if oldest else number))
    return sorted(found, key=lambda m: m.number)


def migrate(pool: Pool, known: list[Migration] | None = None) -> Deferred[list[str]]:
    """Apply what is missing and make the coming months' partitions; fires with the files applied.

    Fails with SchemaMismatch where only newer code can run on what is there.
    """
    steps = migrations() if known is None else known

    async def interaction(run: Run) -> list[str]:
        await run("SET LOCAL statement_timeout = 0; SET LOCAL client_min_messages = warning")
        await run("SELECT pg_advisory_xact_lock(%(lock)s)", {"lock": _LOCK})
        at = await _number(run, steps)
        missing = [step for step in steps if step.number > at]
        for step in missing:
            await run(step.sql)
            await run(_RECORD, {"number": step.number, "oldest_code": step.oldest_code})
        [(made,)] = await run(_PARTITIONS)
        if not made:
            _log.warn("the coming month's partitions cannot be made now: their tables are in use")
        return [step.name for step in missing]

    return pool.transaction(interaction)


async def _number(run: Run, steps: list[Migration]) -> int:
    """The number of the schema that is there, 0 for an empty database."""
    [(present,)] = await run("SELECT to_regclass('schema_version') IS NOT NULL")
    if not present:
        return 0
    [(number, oldest_code)] = await run(_STATE)
    ours = steps[-1].number
    if oldest_code > ours:
        raise SchemaMismatch(
            f"the database has schema {number}, which needs smsdaemon with schema {oldest_code} or newer;"
            f" this one knows schema {ours}: install a newer smsdaemon"
        )
    return int(number)
