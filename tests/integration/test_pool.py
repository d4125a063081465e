"""The pool on a real PostgreSQL that is cut off, killed, restarted or slow."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any, cast

from psycopg2.extensions import POLL_OK
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from smsdaemon.errors import StoreConflict, StoreRefused, StoreUnavailable, StoreUnfit
from smsdaemon.store.driver import _WatchedConnection, complete_dsn
from smsdaemon.store.pool import Listener, Pool, Run
from smsdaemon.store.prepared import PLANNED_AT_LEAST_FOR_SECONDS, SLOW_SECONDS, Prepared
from tests.support.cases import ReactorTest, UnitTest
from tests.support.cutting_proxy import CuttingProxy
from tests.support.journals import lines_said, until
from tests.support.postgres import PrivateServer, fresh_database

reactor = cast(Any, _reactor)


class PoolTest(ReactorTest):
    def make_pool(self, dsn: str, size: int = 3, statement_timeout: float = 5.0) -> Pool:
        pool = Pool(dsn=dsn, size=size, reactor=reactor, statement_timeout=statement_timeout)
        self.addCleanup(pool.close)
        pool.start()
        return pool

    async def until_alive(self, pool: Pool, connections: int) -> None:
        """Trial's timeout ends this where it never comes true."""
        while pool.alive < connections:
            await deferLater(reactor, 0.02)


class QueryTests(PoolTest):
    async def setUp(self) -> None:  # type: ignore[override]  # trial awaits it
        self.pool = self.make_pool(await fresh_database(self))
        await self.pool.query("CREATE TABLE t (n integer PRIMARY KEY)")

    async def test_more_queries_than_connections_are_all_answered(self) -> None:
        rows = await gatherResults([self.pool.query("SELECT %s", (n,)) for n in range(50)])
        self.assertEqual(rows, [[(n,)] for n in range(50)])

    async def test_several_statements_are_one_transaction_and_give_the_last_ones_rows(self) -> None:
        self.assertEqual(await self.pool.query("INSERT INTO t VALUES (1); SELECT n FROM t"), [(1,)])
        await self.assertFailure(self.pool.query("INSERT INTO t VALUES (2); SELECT 1/0"), StoreRefused)
        self.assertEqual(await self.pool.query("SELECT n FROM t"), [(1,)])

    async def test_a_transaction_that_fails_leaves_nothing_and_a_connection_that_works(self) -> None:
        async def fails(run: Run) -> None:
            await run("INSERT INTO t VALUES (1)")
            raise ValueError("stop")

        for _ in range(10):
            await self.assertFailure(self.pool.transaction(fails), ValueError)
        self.assertEqual(await self.pool.query("SELECT n FROM t"), [])
        await self.until_alive(self.pool, 3)

    async def test_errors_are_ours_and_quote_no_value(self) -> None:
        await self.pool.query("INSERT INTO t VALUES (7654321)")
        conflict = await self.assertFailure(self.pool.query("INSERT INTO t VALUES (7654321)"), StoreConflict)
        refused = await self.assertFailure(self.pool.query("SELECT 'secret text'::integer"), StoreRefused)
        self.assertNotIn("7654321", str(conflict))
        self.assertNotIn("secret", str(refused))

    async def test_only_values_are_refused_for_good_and_all_else_may_be_mended(self) -> None:
        raising = "DO $$BEGIN RAISE EXCEPTION USING ERRCODE = '{}'; END$$"
        refused = ("22P05", "22001", "23502", "23503", "23514")
        unfit = ("42P01", "42501", "42703", "42883", "3F000", "0A000", "54000", "28000", "P0001")
        for code in refused:
            await self.assertFailure(self.pool.query(raising.format(code)), StoreRefused)
        for code in unfit:
            await self.assertFailure(self.pool.query(raising.format(code)), StoreUnfit)
        for code in ("23505", "40P01"):
            await self.assertFailure(self.pool.query(raising.format(code)), StoreConflict)
        for code in ("25006", "53100", "58030"):
            error = await self.assertFailure(self.pool.query(raising.format(code)), StoreUnavailable)
            self.assertNotIsInstance(error, StoreUnfit)
        await self.assertFailure(self.pool.query("SELECT %s", (object(),)), StoreRefused)

    async def test_a_table_that_is_missing_is_told_and_not_for_each_statement(self) -> None:
        said = lines_said(self, LogLevel.error, "smsdaemon.store")

        async def fails(run: Run) -> None:
            await run("SELECT FROM missing")

        for _ in range(20):
            await self.assertFailure(self.pool.query("SELECT FROM missing"), StoreUnfit)
            await self.assertFailure(self.pool.transaction(fails), StoreUnfit)
        self.assertEqual(len(said), 1)
        self.assertIn("UndefinedTable (42P01)", said[0])

    async def test_a_statement_that_takes_too_long_fails_and_the_connection_lives_on(self) -> None:
        pool = self.make_pool(await fresh_database(self), size=1, statement_timeout=0.1)
        await self.assertFailure(pool.query("SELECT pg_sleep(30)"), StoreUnavailable)
        self.assertEqual(await pool.query("SELECT 1"), [(1,)])

    async def test_cancelling_what_runs_neither_stops_it_nor_spoils_the_connection(self) -> None:
        pool = self.make_pool(await fresh_database(self), size=1)
        await pool.query("CREATE TABLE u (n integer)")
        for n in range(20):
            d = pool.query("INSERT INTO u SELECT %s FROM pg_sleep(0.01)", (n,))
            d.addErrback(lambda _: None)
            d.cancel()
        self.assertEqual(await pool.query("SELECT count(*) FROM u WHERE n = 0"), [(1,)])
        self.assertEqual(pool.alive, 1)

    async def test_after_close_a_query_fails_at_once(self) -> None:
        await self.pool.close()
        await self.assertFailure(self.pool.query("SELECT 1"), StoreUnavailable)


class HealingTests(PoolTest):
    async def test_connections_that_the_server_ends_all_come_back(self) -> None:
        dsn = await fresh_database(self)
        pool = self.make_pool(dsn)
        await self.until_alive(pool, 3)
        other = self.make_pool(dsn, size=1)
        for _ in range(3):
            ended = await other.query(
                "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            self.assertEqual(len(ended), 3)
            await self.until_others_are_connected(other, [pid for pid, _ in ended])
            await self.until_alive(pool, 3)
            rows = await gatherResults([pool.query("SELECT 1") for _ in range(6)])
            self.assertEqual(rows, [[(1,)]] * 6)

    async def until_others_are_connected(self, observer: Pool, ended: list[int]) -> None:
        """Three backends that are none of those that were ended."""
        while True:
            [(n,)] = await observer.query(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND pid <> ALL (%s)",
                (ended,),
            )
            if n == 3:
                return
            await deferLater(reactor, 0.02)

    async def test_a_transaction_that_loses_its_connection_fails_without_a_traceback(self) -> None:
        dsn = await fresh_database(self)
        pool, other = self.make_pool(dsn, size=1), self.make_pool(dsn, size=1)

        async def ended_from_outside(run: Run) -> None:
            [(pid,)] = await run("SELECT pg_backend_pid()")
            await other.query("SELECT pg_terminate_backend(%s)", (pid,))
            await run("SELECT 1")

        await self.assertFailure(pool.transaction(ended_from_outside), StoreUnavailable)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(await pool.query("SELECT 1"), [(1,)])

    async def test_what_is_prepared_is_prepared_again_where_it_is_gone(self) -> None:
        pool = self.make_pool(await fresh_database(self), size=1)
        statement = Prepared("SELECT %(n)s + 1", name="one_more", types={"n": "integer"})
        self.assertEqual(await pool.query(statement, {"n": 1}), [(2,)])
        await pool.query("DEALLOCATE ALL")
        await self.assertFailure(pool.query(statement, {"n": 1}), StoreConflict)
        self.assertEqual(await pool.query(statement, {"n": 2}), [(3,)])
        ended = pool.query("SELECT pg_terminate_backend(pg_backend_pid())")
        await self.assertFailure(ended, StoreUnavailable)
        self.assertEqual(await pool.query(statement, {"n": 3}), [(4,)])

    async def test_a_plan_under_which_a_statement_takes_long_is_made_anew(self) -> None:
        pool = self.make_pool(await fresh_database(self), size=1)
        planned = "SELECT extract(epoch FROM prepare_time)::float8 FROM pg_prepared_statements"
        sleep = Prepared("SELECT pg_sleep(%(s)s)", name="sleep", types={"s": "double precision"})
        await pool.query(sleep, {"s": 0})
        [(first,)] = await pool.query(planned)
        await deferLater(reactor, PLANNED_AT_LEAST_FOR_SECONDS + 0.1)
        await pool.query(sleep, {"s": 0})
        self.assertEqual(await pool.query(planned), [(first,)])
        await pool.query(sleep, {"s": SLOW_SECONDS * 2})
        await pool.query(sleep, {"s": 0})
        [(second,)] = await pool.query(planned)
        self.assertGreater(second, first)

    async def test_a_server_that_is_killed_and_restarted_is_found_again_by_all_connections(self) -> None:
        server = PrivateServer(self)
        server.start()
        pool = self.make_pool(server.dsn)
        await self.until_alive(pool, 3)
        running = [pool.query("SELECT pg_sleep(30)") for _ in range(3)]
        server.kill()
        for d in running:
            await self.assertFailure(d, StoreUnavailable)
        waiting = pool.query("SELECT 1")
        await server.restart()
        self.assertEqual(await waiting, [(1,)])
        await self.until_alive(pool, 3)

    async def test_a_server_that_is_down_at_our_start_is_found_when_it_comes(self) -> None:
        server = PrivateServer(self)
        server.start()
        dsn = server.dsn
        server.stop()
        pool = self.make_pool(dsn)
        waiting = pool.query("SELECT 1")
        await deferLater(reactor, 0.2)
        self.assertEqual(pool.alive, 0)
        await server.restart()
        self.assertEqual(await waiting, [(1,)])

    async def test_closing_a_pool_that_never_reached_its_server_leaves_nothing_behind(self) -> None:
        pool = self.make_pool("host=/nonexistent dbname=x")
        waiting = pool.query("SELECT 1")
        await deferLater(reactor, 0.1)
        await pool.close()
        await self.assertFailure(waiting, StoreUnavailable)


class FrozenServerTests(PoolTest):
    async def freeze(self) -> None:
        self.server = PrivateServer(self)
        self.server.start()
        self.pool = self.make_pool(self.server.dsn)
        await self.until_alive(self.pool, 3)
        self.addCleanup(self.server.thaw)
        self.server.freeze()

    async def test_closing_waits_a_moment_for_what_runs_and_then_no_more(self) -> None:
        await self.freeze()

        async def in_steps(run: Run) -> None:
            await run("SELECT 1")

        running: list[Deferred[Any]] = [self.pool.query("SELECT 1"), self.pool.query("SELECT 2")]
        running.append(self.pool.transaction(in_steps))
        waiting = self.pool.query("SELECT 3")
        closed = self.pool.close()
        await self.assertFailure(waiting, StoreUnavailable)
        self.assertFalse(closed.called)
        await closed
        for d in running:
            await self.assertFailure(d, StoreUnavailable)
        self.assertEqual(self.pool.alive, 0)

    async def test_what_ends_in_time_is_answered(self) -> None:
        await self.freeze()
        running = self.pool.query("SELECT 1")
        closed = self.pool.close()
        self.server.thaw()
        self.assertEqual(await running, [(1,)])
        await closed


class DescriptorTests(PoolTest):
    async def test_whoever_gets_the_number_of_a_socket_that_libpq_closed_is_watched(self) -> None:
        pool = self.make_pool(await fresh_database(self), size=1)
        await self.until_alive(pool, 1)
        [line] = pool._lifelines
        raw = line.connection.pollable()
        # As libpq does when it finds out before the reactor: nobody is told.
        raw.close()
        heard: Deferred[bytes] = Deferred()
        watched, other = socket.socketpair()
        for end in (watched, other):
            self.addCleanup(end.close)
        reader = _Reader(watched, heard)
        reactor.addReader(reader)
        self.addCleanup(reactor.removeReader, reader)
        other.sendall(b"news")
        self.assertEqual(await heard, b"news")
        self.assertEqual(watched_by_the_kernel(), watched_by_twisted())

    async def test_after_connections_were_lost_in_every_state_the_reactor_watches_what_is_open(self) -> None:
        proxy = CuttingProxy(self, await fresh_database(self))
        for size in (10, 20_000_000):  # the latter does not go into the socket's buffer at once
            pool = self.make_pool(proxy.dsn, size=2)
            await pool.query("SELECT 1")
            running = [pool.query("SELECT pg_sleep(30), %s", ("x" * size,)) for _ in range(2)]
            await deferLater(reactor, 0.01)
            proxy.break_all()
            for d in running:
                await self.assertFailure(d, StoreUnavailable)
            self.assertEqual(await pool.query("SELECT 1"), [(1,)])
            await pool.close()
            self.assertEqual(watched_by_the_kernel(), watched_by_twisted())


def _message(kind: bytes, content: bytes) -> bytes:
    return kind + (len(content) + 4).to_bytes(4, "big") + content


_WELCOME = (
    _message(b"R", bytes(4))
    + _message(b"S", b"client_encoding\0UTF8\0")
    + _message(b"S", b"DateStyle\0ISO, MDY\0")
    + _message(b"K", bytes(8))
    + _message(b"Z", b"I")
)
"""What a server of PostgreSQL lets somebody in with."""


class _Welcoming(Protocol):
    """Closes the first connection, lets all others in, and says nothing to what they ask then."""

    def connectionMade(self) -> None:
        factory: Any = self.factory
        factory.made += 1
        if factory.made == 1:
            cast(Any, self.transport).loseConnection()

    def dataReceived(self, data: bytes) -> None:
        cast(Any, self.transport).write(_WELCOME)


class ClosingTests(ReactorTest):
    async def test_closed_at_the_moment_when_it_has_reconnected_it_asks_the_server_nothing_more(self) -> None:
        factory: Any = Factory.forProtocol(_Welcoming)
        factory.made = 0
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        dsn = f"host=127.0.0.1 port={port.getHost().port} sslmode=disable gssencmode=disable"
        pool = Pool(dsn=dsn, size=1, reactor=reactor, statement_timeout=5.0)
        closed: Deferred[Any] = Deferred()
        poll = _WatchedConnection.poll

        def polled(connection: _WatchedConnection) -> int:
            state = poll(connection)
            if state == POLL_OK:  # txpostgres tells of that in the reactor's next turn
                reactor.callLater(0, lambda: pool.close().chainDeferred(closed))
            return state

        self.patch(_WatchedConnection, "poll", polled)
        pool.start()
        await closed
        await deferLater(reactor, 0.01)
        # libpq's cancel would have made a third one, and waited in the reactor's thread for its end.
        self.assertEqual((factory.made, pool.alive), (2, 0))
        self.assertEqual(watched_by_the_kernel(), watched_by_twisted())


@implementer(IReadDescriptor)
class _Reader:
    def __init__(self, end: socket.socket, heard: Deferred[bytes]) -> None:
        self._end, self._heard = end, heard

    def fileno(self) -> int:
        return self._end.fileno()

    def doRead(self) -> None:
        self._heard.callback(self._end.recv(100))

    def logPrefix(self) -> str:
        return "test"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gave it up."""


def watched_by_the_kernel() -> set[int]:
    facts = Path(f"/proc/self/fdinfo/{reactor._poller.fileno()}").read_text()
    return {int(number) for number in re.findall(r"^tfd:\s*(\d+)", facts, re.MULTILINE)}


def watched_by_twisted() -> set[int]:
    return set(reactor._reads) | set(reactor._writes)


class ListenerTests(PoolTest):
    async def test_a_listener_hears_again_after_its_connection_was_ended(self) -> None:
        dsn = await fresh_database(self)
        heard: list[str] = []
        listening: list[bool] = []
        listener = Listener(
            dsn=dsn,
            channels={"news": lambda: heard.append("news"), "other": lambda: heard.append("other")},
            on_listening=lambda: listening.append(True),
            reactor=reactor,
        )
        self.addCleanup(listener.close)
        listener.start()
        pool = self.make_pool(dsn, size=1)
        for times in (1, 2):
            while len(listening) < times:
                await deferLater(reactor, 0.01)
            heard.clear()
            await pool.query("NOTIFY news; NOTIFY other; NOTIFY unheard")
            while len(heard) < 2:
                await deferLater(reactor, 0.01)
            self.assertEqual(heard, ["news", "other"])
            await pool.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'smsdaemon listener' AND datname = current_database()"
            )

    async def test_a_listener_that_came_to_a_standby_listens_once_that_is_promoted(self) -> None:
        server = PrivateServer(self)
        server.start()
        server.stop()
        server.make_standby()
        await server.restart()
        said = lines_said(self, LogLevel.warn, "smsdaemon.store")
        heard: list[str] = []
        listening: list[bool] = []
        listener = Listener(
            dsn=server.dsn,
            channels={"news": lambda: heard.append("news")},
            on_listening=lambda: listening.append(True),
            reactor=reactor,
        )
        self.addCleanup(listener.close)
        listener.start()
        await until(lambda: said)
        self.assertEqual(listening, [])
        pool = self.make_pool(server.dsn, size=1)
        self.assertEqual(await pool.query("SELECT pg_promote()"), [(True,)])
        await until(lambda: listening)
        await pool.query("NOTIFY news")
        await until(lambda: heard)
        self.assertEqual(len(said), 1)

    async def test_a_listener_that_is_closed_while_it_cannot_listen_leaves_nothing_behind(self) -> None:
        said = lines_said(self, LogLevel.warn, "smsdaemon.store")
        listener = Listener(
            dsn=await fresh_database(self),
            channels={"no channel's name": lambda: None},
            on_listening=lambda: None,
            reactor=reactor,
        )
        listener.start()
        await until(lambda: said)
        listener.close()


class DsnTests(UnitTest):
    def test_what_the_operator_wrote_wins_over_our_defaults(self) -> None:
        dsn = complete_dsn("host=db connect_timeout=3 options='-c work_mem=1MB'", statement_timeout=2.5)
        self.assertIn("connect_timeout=3", dsn)
        self.assertIn("-c work_mem=1MB -c statement_timeout=2500", dsn)

    def test_with_several_hosts_the_writable_one_is_wanted(self) -> None:
        dsn = complete_dsn("postgresql://a,b/sms", statement_timeout=1)
        self.assertIn("target_session_attrs=read-write", dsn)
        self.assertNotIn("target_session_attrs", complete_dsn("host=a", statement_timeout=1))

    def test_a_dsn_that_libpq_does_not_understand_is_refused_without_being_quoted(self) -> None:
        with self.assertRaises(StoreRefused) as caught:
            complete_dsn("host=db passwort=geheim", statement_timeout=1)
        self.assertNotIn("geheim", str(caught.exception))
