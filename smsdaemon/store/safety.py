"""What a 200 is worth on this PostgreSQL: whether its settings make a COMMIT a promise."""

from __future__ import annotations

import re
from collections.abc import Iterator

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from smsdaemon.deferreds import InFlight
from smsdaemon.errors import SmsDaemonError, UnsafeDatabase
from smsdaemon.store.migrate import migrations
from smsdaemon.store.pool import Pool

# A session keeps the synchronous_commit that it began with. The pool connects anew at any time, so what
# ALTER ROLE and ALTER DATABASE say of new sessions counts as well, unless the DSN sets it itself. A walsender
# is a replica unless it has a logical slot or makes a base backup (`state` is hidden from ordinary users).
# An unlogged sequence falls back in a crash as an unlogged table does, and the order of SMS hangs on one.
_GUARANTEE = """
WITH RECURSIVE ours(id) AS (
    SELECT to_regclass(name)::oid FROM unnest(%(tables)s::text[]) AS name
    UNION
    SELECT inhrelid FROM ours JOIN pg_inherits ON inhparent = ours.id
), owned(id) AS (
    SELECT objid FROM pg_depend JOIN ours ON refobjid = ours.id
    WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass
), of_new_sessions(value) AS (
    SELECT substr(entry, length('synchronous_commit=') + 1)
    FROM pg_db_role_setting, unnest(setconfig) AS entry
    WHERE entry LIKE 'synchronous_commit=%%'
      AND setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = session_user))
      AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    ORDER BY setrole <> 0 DESC, setdatabase <> 0 DESC LIMIT 1
)
SELECT current_setting('server_version'), current_setting('server_encoding'),
       current_setting('fsync') = 'on', current_setting('full_page_writes') = 'on',
       synchronous_commit.setting,
       CASE WHEN synchronous_commit.source <> 'client' THEN (SELECT value FROM of_new_sessions) END,
       ARRAY(SELECT oid::regclass::text FROM pg_class
             WHERE oid IN (TABLE ours UNION TABLE owned) AND relkind IN ('r', 'S') AND relpersistence <> 'p'
             ORDER BY 1),
       (SELECT count(*) FROM pg_stat_replication AS r
        WHERE r.state IS DISTINCT FROM 'backup'
          AND r.pid NOT IN (SELECT active_pid FROM pg_replication_slots
                            WHERE slot_type = 'logical' AND active_pid IS NOT NULL)),
       current_setting('synchronous_standby_names'),
       current_setting('data_checksums') = 'on', current_setting('data_sync_retry') = 'on'
FROM pg_settings AS synchronous_commit WHERE name = 'synchronous_commit'
"""

_TABLE = re.compile(r"^CREATE (?:UNLOGGED )?TABLE (\w+)", re.MULTILINE)
_BOOLEANS = {"true": "on", "yes": "on", "1": "on", "false": "off", "no": "off", "0": "off"}
"""How else a setting's on and off can be written."""


@frozen(kw_only=True)
class Guarantee:
    """What PostgreSQL promises with a COMMIT, as one look found it."""

    version: str
    """As in ``18.6``."""
    encoding: str
    fsync: bool
    full_page_writes: bool
    synchronous_commit: str
    """In the session that looked."""
    synchronous_commit_of_new_sessions: str
    """As ALTER ROLE and ALTER DATABASE have it; the same as above where they do not say."""
    unlogged: tuple[str, ...]
    """Those of our tables, partitions and sequences that a crash empties."""
    replicas: int
    """Connected physical ones."""
    synchronous_standby_names: str
    data_checksums: bool
    data_sync_retry: bool

    @property
    def problems(self) -> list[str]:
        """A line for each reason not to believe in a COMMIT: what is wrong, what is lost, what is right."""
        return [f"{what}: {rest}" for what, rest in self._problems()]

    def _problems(self) -> Iterator[tuple[str, str]]:
        machine = "when the machine fails, SMS answered with 200 are lost"
        if not self.fsync:
            yield "fsync is off", f"{machine}, or the whole database; right: fsync = on"
        if not self.full_page_writes:
            yield (
                "full_page_writes is off",
                f"{machine} with the pages that it was writing; right: full_page_writes = on",
            )
        crash = (
            "when PostgreSQL fails, the last SMS answered with 200 are lost; right: synchronous_commit = on"
        )
        if self.synchronous_commit == "off":
            yield "synchronous_commit is off", f"{crash}, also for this role and database"
        elif self.synchronous_commit_of_new_sessions == "off":
            yield "synchronous_commit is off in new connections of this role or database", crash
        if self.unlogged:
            yield (
                f"unlogged: {', '.join(self.unlogged)}",
                "when PostgreSQL fails, it empties them; right: ALTER TABLE … SET LOGGED",
            )
        if self.encoding != "UTF8":
            yield (
                f"the database's encoding is {self.encoding}",
                "not every SMS can be stored as it came; right: a database made with ENCODING 'UTF8'",
            )

    @property
    def warnings(self) -> list[str]:
        """A line for each thing that costs SMS only when something else happens too."""
        found = []
        commits = {self.synchronous_commit, self.synchronous_commit_of_new_sessions}
        named = self.synchronous_standby_names.strip() != ""
        if self.replicas and not named:
            found.append(
                f"{_count(self.replicas)} connected, synchronous_standby_names is empty: a failover can lose"
                " SMS answered with 200; right: name there the replicas that must have them first"
            )
        elif named and "local" in commits:
            found.append(
                "synchronous_commit is local: no replica is waited for, and a failover can lose SMS answered"
                " with 200; right: synchronous_commit = on"
            )
        elif named and "remote_write" in commits:
            found.append(
                "synchronous_commit is remote_write: SMS answered with 200 are lost when the machines fail"
                " together; right: synchronous_commit = on"
            )
        if named and not self.replicas and commits - {"local", "off"}:
            found.append(
                "synchronous_standby_names is set and no replica is connected: nothing can be committed until"
                " one is; right: connect it, or empty synchronous_standby_names"
            )
        if self.data_sync_retry:
            found.append(
                "data_sync_retry is on: after a disk error a lost write can be taken for a good one;"
                " right: data_sync_retry = off"
            )
        return found

    @property
    def statement(self) -> str:
        """One line: what an SMS that was answered with 200 has behind it."""
        if causes := [what for what, _ in self._problems()]:
            return f"200 means: committed on PostgreSQL {self.version}, but not safe: {', '.join(causes)}"
        replicas = _count(self.replicas)
        if self.synchronous_standby_names.strip() and self.synchronous_commit != "local":
            replicas += f", synchronous by {self.synchronous_standby_names}"
        return f"200 means: committed with fsync on PostgreSQL {self.version}; {replicas}"


def _count(replicas: int) -> str:
    return "1 replica" if replicas == 1 else f"{replicas} replicas"


async def read_guarantee(pool: Pool) -> Guarantee:
    """Look at server, database and session; raises StoreUnavailable. Works before there is a schema."""
    tables = sorted({name for step in migrations() for name in _TABLE.findall(step.sql)})
    [row] = await pool.query(_GUARANTEE, {"tables": tables})
    version, encoding, fsync, full_page_writes, commit, of_new, unlogged, replicas, names, sums, retry = row
    of_new = str(commit if of_new is None else of_new).lower()
    return Guarantee(
        version=version.split()[0],
        encoding=encoding,
        fsync=fsync,
        full_page_writes=full_page_writes,
        synchronous_commit=commit,
        synchronous_commit_of_new_sessions=_BOOLEANS.get(of_new, of_new),
        unlogged=tuple(unlogged),
        replicas=replicas,
        synchronous_standby_names=names,
        data_checksums=sums,
        data_sync_retry=retry,
    )


async def check_guarantee(pool: Pool, allow_unsafe: bool) -> Guarantee:
    """The guarantee in force. Raises StoreUnavailable, and UnsafeDatabase unless that is allowed."""
    found = await read_guarantee(pool)
    if found.problems and not allow_unsafe:
        raise UnsafeDatabase([f"database: {problem}" for problem in found.problems])
    return found


class GuaranteeInForce:
    """What the last look found, for the health pages; every change of it is logged.

    A daemon does not start on an unsafe PostgreSQL, but one that becomes unsafe under it (ALTER SYSTEM
    and a reload, a failover) is no reason to refuse SMS: that would surely lose some.
    """

    def __init__(self, *, pool: Pool, allow_unsafe: bool) -> None:
        self._pool, self._allow_unsafe = pool, allow_unsafe
        self._log = Logger(namespace="smsdaemon.store")
        self._looks = InFlight()
        self.found: Guarantee | None = None

    async def check(self) -> None:
        """At start. Raises UnsafeDatabase, unless that is allowed, and StoreUnavailable."""
        self._found(await check_guarantee(self._pool, self._allow_unsafe))

    def look_again(self) -> Deferred[None]:
        """Never fails; where PostgreSQL is away, what was found before stays."""
        return self._looks.add(Deferred.fromCoroutine(self._look_again()).addErrback(self._failed))

    def detail(self) -> str:
        """One line for people, as a health page shows it."""
        if self.found is None:
            return "not known yet"
        return "; ".join([self.found.statement, *(f"warning: {line}" for line in self.found.warnings)])

    async def _look_again(self) -> None:
        try:
            found = await read_guarantee(self._pool)
        except SmsDaemonError as error:
            self._log.debug("the guarantee is not known: {why}", why=str(error))
        else:
            self._found(found)

    def _found(self, found: Guarantee) -> None:
        before, self.found = self.found, found
        say = self._log.warn if self._allow_unsafe else self._log.critical
        for problem in found.problems:
            if before is None or problem not in before.problems:
                say("unsafe database: {what}", what=problem)
        for warning in found.warnings:
            if before is None or warning not in before.warnings:
                self._log.warn("database: {what}", what=warning)  # trial knows `warning` as Python's own
        if before is None or found.statement != before.statement:
            self._log.info("{statement}", statement=found.statement)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("the guarantee cannot be read", failure=failure)
