"""A daemon on a PostgreSQL that may lose what it committed, and one that meets the bounds of its machine."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.daemon import (
    QUICK_RETRIES,
    Daemon,
    acd_group,
    client,
    connector,
    daemon,
    reseller,
)
from tests.support.postgres import drop_database, make_database
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import RECEIVER, SENDER, TEXT_MARKER
from tests.support.settable_postgres import SettablePostgres

DIRECTORY = reseller() + client() + acd_group("support", "log:") + connector(RECEIVER, acd_group="support")
SMS = {"receiver": RECEIVER, "sender": SENDER, "message": TEXT_MARKER}


class UnsafeDatabaseTests(ProcessTest):
    def daemon(self, dsn: str, settings: str = QUICK_RETRIES) -> Daemon:
        made = Daemon(settings, dsn=dsn)
        self.addCleanup(made.remove)
        return made

    def refused(self, dsn: str, *problems: str) -> None:
        """Exit status 1, a line for each problem, no traceback, and nothing was made in the database."""
        made = self.daemon(dsn)
        ended = made.run_to_its_end()
        self.assertEqual(ended.status, 1)
        said = [line for line in (ended.out + ended.err).splitlines() if "cannot run: database: " in line]
        self.assertEqual(len(said), len(problems), ended.out + ended.err)
        for line, problem in zip(said, problems, strict=True):
            self.assertIn(problem, line)
        self.assertNotIn("Traceback", ended.out + ended.err)
        self.assertNotIn("smsdaemon ready", ended.out)
        self.assertEqual(made.ask("SELECT relname FROM pg_class WHERE relname = 'message'"), [])

    def test_it_refuses_unless_it_is_told_to_take_the_risk(self) -> None:
        server = SettablePostgres(self)
        server.execute("ALTER ROLE smsdaemon SET synchronous_commit = off")
        self.refused(server.dsn, "synchronous_commit is off: ")
        server.set(fsync="off", full_page_writes="off")
        self.refused(server.dsn, "fsync is off: ", "full_page_writes is off: ", "synchronous_commit is off: ")
        self.refused(
            server.make_database("latin", "LATIN1"),
            "fsync is off: ",
            "full_page_writes is off: ",
            "synchronous_commit is off: ",
            "the database's encoding is LATIN1: ",
        )
        daring = self.daemon(server.dsn, f"[database]\nallow_unsafe = true\n{QUICK_RETRIES}")
        daring.apply(DIRECTORY)
        daring.start()
        peer = daring.peer()
        self.addCleanup(peer.close)
        self.assertEqual(peer.get(**SMS).status, 200)
        until(lambda: daring.log().count("unsafe database: ") >= 3, "the warnings")
        self.assertIn("unsafe database: fsync is off: when the machine fails, SMS", daring.log())
        server.execute("ALTER ROLE smsdaemon RESET synchronous_commit")
        server.set(fsync="", full_page_writes="")

    def test_a_table_that_became_unlogged_is_refused_too(self) -> None:
        first = daemon(self)
        self.assertNotIn("unsafe", first.log())
        self.assertIn("200 means: committed with fsync on PostgreSQL", first.log())
        first.stop()
        first.ask("ALTER TABLE delivery SET UNLOGGED")
        ended = first.run_to_its_end()
        self.assertEqual(ended.status, 1)
        # The table's own identity goes with it.
        self.assertIn("cannot run: database: unlogged: delivery, delivery_seq_seq: ", ended.out + ended.err)


class LimitedDaemon(Daemon):
    """A daemon that may have so many descriptors and no more."""

    descriptors = 256

    def spawn(self) -> None:
        super().spawn()
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (self.descriptors // 2, self.descriptors))


class ConnectionTests(ProcessTest):
    def connect(self, port: int, count: int) -> list[socket.socket]:
        """That many peers that say nothing."""
        made = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(count)]
        for each in made:
            self.addCleanup(each.close)
        return made

    def test_beyond_the_descriptors_a_peer_hears_500_and_those_that_are_served_go_on(self) -> None:
        dsn = make_database()
        self.addCleanup(drop_database, dsn)
        made = LimitedDaemon(dsn=dsn)
        self.addCleanup(made.remove)
        made.apply(DIRECTORY)
        made.start()
        peer = made.peer()
        self.addCleanup(peer.close)
        self.assertEqual(peer.get(**SMS).status, 200)
        idle = self.connect(made.port(), 121)  # half of all are for peers: 128, 6 of them to be told
        late = made.peer()
        self.addCleanup(late.close)
        answer = late.get(**SMS)
        self.assertEqual((answer.status, answer.headers["retry-after"]), (500, "5"))
        self.assertEqual(answer.headers["connection"], "close")
        self.assertEqual(peer.get(**SMS).status, 200)
        for each in idle:
            each.close()
        until(lambda: made.peer().get(**SMS).status == 200, "room for a new peer")

    def test_a_process_without_descriptors_serves_those_it_has_and_recovers(self) -> None:
        made = daemon(self, DIRECTORY)
        peer = made.peer()
        self.addCleanup(peer.close)
        self.assertEqual(peer.get(**SMS).status, 200)
        self.limit(made, _descriptors(made) + 5)
        crowd = self.connect(made.port(), 40)
        until(lambda: sum(map(_is_closed, crowd)) >= 35, "the end of those for whom there is no room")
        self.assertEqual(peer.get(**SMS).status, 200)
        used = _processor_seconds(made)
        begin = time.monotonic()
        until(lambda: time.monotonic() > begin + 0.5, "half a second")
        self.assertLess(_processor_seconds(made) - used, 0.25, "it spins")
        for each in crowd:
            each.close()
        until(lambda: _answers(made), "an answer to a new peer")

    def limit(self, made: Daemon, descriptors: int) -> None:
        _, hard = resource.prlimit(made.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(made.pid, resource.RLIMIT_NOFILE, (descriptors, hard))


def _descriptors(made: Daemon) -> int:
    return len(os.listdir(f"/proc/{made.pid}/fd"))


def _processor_seconds(made: Daemon) -> float:
    fields: Sequence[str] = Path(f"/proc/{made.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _is_closed(peer: socket.socket) -> bool:
    """Whether the daemon has closed it already."""
    peer.setblocking(False)
    try:
        return peer.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def _answers(made: Daemon) -> bool:
    peer = made.peer()
    try:
        return peer.get(**SMS).status == 200
    except OSError:
        return False
    finally:
        peer.close()
