"""A change of the directory is in force in a running daemon within one second (contract 4)."""

from __future__ import annotations

import time

import psycopg2
from psycopg2 import extensions

from tests.support.backend import Backend
from tests.support.daemon import Daemon, acd_group, ask, client, connector, daemon, reseller
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import RECEIVER, SENDER, TEXT_MARKER, TOKEN

IN_FORCE_SECONDS = 1.0
ENTRIES = reseller() + client() + acd_group("group", "log:")


class DirectoryChangeTests(ProcessTest):
    def setUp(self) -> None:
        super().setUp()
        self.running: Daemon = daemon(self, ENTRIES + connector(RECEIVER, acd_group="group"))
        self.peer = self.running.peer()
        self.addCleanup(self.peer.close)
        self.assertEqual(self.status(), 200)

    def status(self, **more: str) -> int:
        return self.peer.post_form(receiver=RECEIVER, sender=SENDER, message=TEXT_MARKER, **more).status

    def apply(self, directory: str, *options: str) -> None:
        """By the command alone, without the harness' own waiting."""
        path = self.running.folder / "change.toml"
        path.write_text(directory)
        done = self.running.command("apply", *options, str(path))
        self.assertEqual((done.status, done.err), (0, ""))

    def in_force(self, status: int) -> None:
        """The change that was just committed is in force in time."""
        began = time.monotonic()
        until(lambda: self.status() == status, "the change")
        self.assertLess(time.monotonic() - began, IN_FORCE_SECONDS)

    def change(self, statement: str) -> None:
        """Straight in the database: when this returns, the commit is a moment ago."""
        self.running.ask(statement)

    def test_what_is_applied(self) -> None:
        self.apply(ENTRIES + connector(RECEIVER, acd_group="group", enabled=False))
        self.in_force(502)
        self.apply(ENTRIES + connector(RECEIVER, enabled=True, require_token=True, tokens=[TOKEN]))
        self.in_force(401)
        self.assertEqual(self.status(token=TOKEN), 200)
        self.apply(ENTRIES, "--prune")
        self.in_force(404)

    def test_another_url(self) -> None:
        target = Backend()
        self.addCleanup(target.close)
        self.apply(reseller() + client() + acd_group("group", target.url()))
        began = time.monotonic()
        until(lambda: self.status() == 200 and target.attempts, "a delivery to the new URL")
        self.assertLess(time.monotonic() - began, IN_FORCE_SECONDS + 0.5)

    def test_a_dry_run_and_a_refused_file_change_nothing(self) -> None:
        self.apply(ENTRIES + connector(RECEIVER, acd_group="group", enabled=False), "--dry-run")
        path = self.running.folder / "wrong.toml"
        path.write_text(connector(RECEIVER, enabled=False) + connector("+491", acd_group="nowhere"))
        done = self.running.command("apply", str(path))
        self.assertEqual(done.status, 1)
        self.assertIn("nowhere", done.err)
        # A change that comes later is in force, so the others would be.
        self.running.apply(ENTRIES)
        self.assertEqual(self.status(), 200)

    def test_any_kind_of_change(self) -> None:
        for statement, status in (
            ("UPDATE reseller SET enabled = false", 502),
            ("UPDATE reseller SET enabled = true", 200),
            ("UPDATE client SET enabled = false", 502),
            ("UPDATE client SET enabled = true", 200),
            ("UPDATE target SET enabled = false", 502),
            ("UPDATE target SET enabled = true", 200),
            ("UPDATE connector SET require_token = true", 401),
            ("UPDATE connector SET removed_at = now()", 404),
        ):
            self.change(statement)
            self.in_force(status)

    def test_after_the_listening_connection_was_killed(self) -> None:
        for status, enabled in ((502, "false"), (200, "true")):
            self.kill_connections("application_name = 'smsdaemon listener'", 1)
            until(lambda: self.listening() == 1, "the listening connection")
            self.change(f"UPDATE connector SET enabled = {enabled}")
            self.in_force(status)

    def test_changed_while_the_listening_connection_was_away(self) -> None:
        inside = psycopg2.connect(self.running.dsn)
        self.addCleanup(inside.close)
        inside.autocommit = True
        # Nobody else comes in, so it cannot be back before the change.
        self.let_in("false")
        with inside.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'smsdaemon listener'"
            )
            self.assertEqual(cursor.fetchall(), [(True,)])
            cursor.execute("UPDATE connector SET enabled = false")
        self.let_in("true")
        self.in_force(502)

    def let_in(self, whether: str) -> None:
        database = extensions.parse_dsn(self.running.dsn)["dbname"]
        elsewhere = extensions.make_dsn(self.running.dsn, dbname="postgres")
        ask(elsewhere, f"ALTER DATABASE {database} ALLOW_CONNECTIONS {whether}")

    def test_after_all_connections_were_killed(self) -> None:
        self.kill_connections("application_name LIKE 'smsdaemon%'", 6)
        self.change("UPDATE connector SET enabled = false")
        self.in_force(502)

    def kill_connections(self, which: str, count: int) -> None:
        killed = self.running.ask(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            f" WHERE datname = current_database() AND {which}"
        )
        self.assertEqual(killed, [(True,)] * count)

    def listening(self) -> int:
        [(count,)] = self.running.ask(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'smsdaemon listener'"
        )
        return int(count)
