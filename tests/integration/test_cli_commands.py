"""The admin command as people and scripts run it: outputs, exit statuses, one line for each trouble."""

from __future__ import annotations

import json
import signal
import socket
import subprocess

from smsdaemon.cli.check import journal_space
from smsdaemon.store.migrate import migrations
from tests.support.daemon import (
    BINARIES,
    QUICK_RETRIES,
    Daemon,
    Ended,
    acd_group,
    client,
    connector,
    daemon,
    reseller,
)
from tests.support.postgres import PrivateServer, drop_database, make_database
from tests.support.processes import PATIENCE_SECONDS, ProcessTest
from tests.support.secrets_in_tests import PASSWORD, SECRET, TOKEN

SHOP = reseller() + client()
MANY_MESSAGES = """
INSERT INTO message (id, received_at, connector_id, client_id, receiver, sender, sender_raw, text, provider,
                     encoding, parts)
SELECT gen_random_uuid(), now(), 1, 1, '1', '2', '2', repeat('x', 100), 'generic', 'utf-8', 1
FROM generate_series(1, 20000)
"""
SUPPORT = acd_group("support", "log:") + connector("+49123123", acd_group="support")


class CommandTest(ProcessTest):
    def place(self, settings: str = QUICK_RETRIES, dsn: str | None = None) -> Daemon:
        """A configuration on a database of its own, on which no daemon runs."""
        if dsn is None:
            dsn = make_database()
            self.addCleanup(drop_database, dsn)
        made = Daemon(settings, dsn=dsn)
        self.addCleanup(made.remove)
        return made

    def file(self, place: Daemon, text: str) -> str:
        path = place.folder / "given.toml"
        path.write_text(text)
        return str(path)

    def assert_refused(self, done: Ended, *errors: str) -> None:
        """Status 1, these lines on stderr (each by a part of it) and nothing else."""
        self.assertEqual((done.status, done.out), (1, ""), done.err)
        lines = done.err.splitlines()
        self.assertEqual(len(lines), len(errors), done.err)
        for line, error in zip(lines, errors, strict=True):
            self.assertIn(error, line)


class DirectoryTests(CommandTest):
    def test_an_empty_database_gets_its_schema_and_the_directory(self) -> None:
        place = self.place()
        path = self.file(place, SHOP + SUPPORT)
        first = place.command("apply", path)
        self.assertEqual(first.status, 0, first.err)
        self.assertIn("create connector +49123123\n", first.out)
        self.assertEqual(first.out.splitlines()[-1], "create 4, update 0, unchanged 0")
        again = place.command("apply", "--json", path)
        self.assertEqual(json.loads(again.out), {"create": 0, "update": 0, "unchanged": 4})

    def test_a_dry_run_changes_nothing(self) -> None:
        place = self.place()
        done = place.command("apply", "--dry-run", self.file(place, SHOP))
        self.assertEqual((done.status, done.out.splitlines()[-1]), (0, "create 2, update 0, unchanged 0"))
        self.assertEqual(place.ask("SELECT 1 FROM client"), [])

    def test_what_export_writes_changes_nothing_when_it_is_applied(self) -> None:
        place = self.place()
        group = acd_group("support", "log:", secret=SECRET)
        given = SHOP + group + connector("+49123123", acd_group="support", tokens=[TOKEN])
        place.command("apply", self.file(place, given))
        printed = place.command("export")
        self.assertEqual(printed.status, 0, printed.err)
        self.assertNotIn(SECRET, printed.out)
        self.assertNotIn(TOKEN, printed.out)
        path = place.folder / "export.toml"
        self.assertEqual(place.command("export", "-o", str(path)).status, 0)
        self.assertEqual(path.read_text(), printed.out)
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        again = place.command("apply", "--prune", str(path))
        self.assertEqual(again.out, "create 0, update 0, unchanged 4, remove 0\n")

    def test_every_problem_of_a_file_is_a_line_and_nothing_is_stored(self) -> None:
        place = self.place()
        wrong = (
            SHOP
            + '[[connector]]\nclient = "acme/shop"\nnumber = 5\n[[client]]\nnmae = "x"\nreseller = "acme"\n'
        )
        done = place.command("apply", self.file(place, wrong))
        self.assertEqual((done.status, done.out), (1, ""))
        self.assertGreaterEqual(len(done.err.splitlines()), 2)
        for part in ("number", "nmae"):
            self.assertIn(part, done.err)
        dangling = SHOP + connector("+49123123", acd_group="nobody")
        self.assert_refused(place.command("apply", self.file(place, dangling)), "nobody")
        self.assertEqual(place.ask("SELECT 1 FROM client"), [])

    def test_a_file_that_is_not_there_is_a_line(self) -> None:
        place = self.place()
        self.assert_refused(
            place.command("apply", "/does/not/exist.toml"), "/does/not/exist.toml cannot be read"
        )


class DatabaseTests(CommandTest):
    def test_migrate_says_what_it_did(self) -> None:
        place = self.place()
        self.assertEqual(place.command("migrate").out.splitlines()[0], "applied 0001_initial.sql")
        again = place.command("migrate")
        self.assertEqual(again.status, 0)
        self.assertRegex(again.out, r"\Anothing to do: the schema is \d+\n\Z")

    def test_a_schema_of_a_newer_smsdaemon_is_refused_by_all(self) -> None:
        place = self.place()
        place.command("migrate")
        place.ask("UPDATE schema_version SET number = 999, oldest_code = 999")
        for command in (("messages",), ("migrate",), ("status",), ("redeliver", "--state", "dead")):
            self.assert_refused(place.command(*command), "install a newer smsdaemon")

    def test_a_schema_of_an_older_smsdaemon_is_left_to_migrate(self) -> None:
        place = self.place()
        place.command("migrate")
        place.ask("UPDATE schema_version SET number = 0, oldest_code = 0")
        self.assert_refused(place.command("messages"), "run smsdaemon migrate")

    def test_without_a_daemon_the_embedded_postgresql_is_started_and_stopped_again(self) -> None:
        place = self.place(dsn="")
        done = place.command("messages", "--json")
        self.assertEqual((done.out, done.err, done.status), ("", "", 0))
        self.assertEqual(place.postgres_processes(), set())

    def test_it_waits_for_a_postgresql_that_comes_late(self) -> None:
        server = PrivateServer(self)
        server.start()
        place = self.place(dsn=server.make_database())
        server.stop()
        process = self.spawn(place, "migrate")
        self.assertRaises(subprocess.TimeoutExpired, process.wait, 1.0)
        server.start()
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        self.assertEqual(
            (out.splitlines()[0], err, process.returncode), (b"applied 0001_initial.sql", b"", 0)
        )

    def test_ctrl_c_ends_it_quietly(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            place = self.place(dsn=f"host=127.0.0.1 port={silent.getsockname()[1]} dbname=x")
            process = self.spawn(place, "messages")
            silent.accept()[0].close()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE_SECONDS)
        self.assertEqual((out, err, process.returncode), (b"", b"", 130))

    def test_a_reader_that_has_enough_is_no_trouble(self) -> None:
        place = self.place()
        place.command("migrate")
        place.ask(MANY_MESSAGES)
        process = self.spawn(place, "messages", "--json")
        assert process.stdout is not None
        assert process.stderr is not None
        self.assertTrue(process.stdout.readline().startswith(b'{"id": '))
        process.stdout.close()
        self.assertEqual(process.stderr.read(), b"")
        process.stderr.close()
        self.assertEqual(process.wait(PATIENCE_SECONDS), 0)

    def test_a_password_never_shows_when_the_database_is_wrong(self) -> None:
        place = self.place(dsn=f"host=127.0.0.1 port=1 password={PASSWORD} user=x nonsense=1")
        done = place.command("messages")
        self.assertEqual((done.status, done.out, len(done.err.splitlines())), (1, "", 1))
        self.assertNotIn(PASSWORD, done.err)

    def spawn(self, place: Daemon, *arguments: str) -> subprocess.Popen[bytes]:
        name, *rest = arguments
        process = subprocess.Popen(
            [BINARIES / "smsdaemon", name, "--config", str(place.config), *rest],
            cwd=place.folder,
            env=place.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process


class StatusTests(CommandTest):
    def test_status_tells_queue_targets_and_daemon(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        listeners = f'[http]\nlisten = ["tcp:{port}:interface=127.0.0.1"]\n'
        dead_end = acd_group("support", "http://127.0.0.1:9/", enabled=False)
        place = self.place()
        place.config.write_text(f'state_dir = "state"\n{listeners}')
        path = self.file(place, SHOP + dead_end + connector("+49123123", acd_group="support"))
        place.command("apply", path)
        before = json.loads(place.command("status", "--json").out)
        self.assertEqual(
            (before["daemon"], before["pending"], before["oldest_pending_seconds"]), ("not running", 0, None)
        )
        self.assertEqual((before["connectors"], before["schema"]), (1, migrations()[-1].number))
        [target] = before["targets"]
        self.assertEqual(
            target,
            {
                "client": "acme/shop",
                "kind": "acd_group",
                "name": "support",
                "enabled": False,
                "pending": 0,
                "dead": 0,
                "removed": False,
            },
        )

    def test_a_running_daemon_is_ready_and_what_is_pending_counts(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            group = acd_group("support", f"http://127.0.0.1:{silent.getsockname()[1]}/")
            made = daemon(self, SHOP + group + connector("+49123123", acd_group="support"))
            made.config.write_text(
                f'state_dir = "state"\n[http]\nlisten = ["tcp:{made.port()}:interface=127.0.0.1"]\n'
            )
            peer = made.peer()
            self.addCleanup(peer.close)
            for n in range(3):
                self.assertEqual(peer.get(receiver="49123123", sender="49789789", message=str(n)).status, 200)
            found = json.loads(made.command("status", "--json").out)
            self.assertEqual((found["daemon"], found["pending"], found["dead"]), ("ready", 3, 0))
            self.assertGreaterEqual(found["oldest_pending_seconds"], 0)
            self.assertEqual([target["pending"] for target in found["targets"]], [3])
            text = made.command("status").out
            self.assertIn("deliveries   3 pending (1 leased), 0 dead\n", text)

    def test_names_and_reasons_forge_no_line_and_steer_no_terminal(self) -> None:
        place = self.place()
        # What a name may hold by contract can still turn a line round.
        group = acd_group("a\u202eb", "log:") + connector("+49123123", acd_group="a\u202eb")
        applied = place.command("apply", self.file(place, SHOP + group))
        place.ask(
            "INSERT INTO open_breaker SELECT id, now(), now(), %s FROM target RETURNING 1",
            ("no\x1b[2J\ntarget",),
        )
        for done in (applied, place.command("status"), place.command("check")):
            self.assertIn(r"acme/shop/a\u202eb", done.out)
            self.assertNotIn("\u202e", done.out)
        self.assertIn(r": no\x1b[2J\ntarget" + "\n", place.command("status").out)
        done = place.command("why", "\x1b[2J\n12345678", "--show-text")
        self.assertEqual(done.err, r"smsdaemon: nothing is known of \x1b[2J\n12345678" + "\n")


class CheckTests(CommandTest):
    def test_all_is_well(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            place = self.place()
            group = acd_group("support", f"http://127.0.0.1:{listening.getsockname()[1]}/")
            place.command("apply", self.file(place, SHOP + group))
            done = place.command("check")
        self.assertEqual((done.status, done.err), (0, ""))
        self.assertEqual({line.split()[0] for line in done.out.splitlines()}, {"ok"}, done.out)
        self.assertIn("target acme/shop/support", done.out)
        self.assertRegex(
            done.out, r"ok    guarantee: 200 means: committed with fsync on PostgreSQL \d+\.\d+; 0 replicas"
        )
        self.assertRegex(done.out, r"ok    journal: .*/state/journal can be written, \d+ MB are free")

    def test_a_target_that_cannot_be_reached_is_a_warning(self) -> None:
        place = self.place()
        groups = acd_group("support", "http://127.0.0.1:1/") + acd_group("sales", "http://nowhere.invalid/")
        place.command("apply", self.file(place, SHOP + groups))
        done = place.command("check", "--json")
        rows = [json.loads(line) for line in done.out.splitlines()]
        warned = {row["check"] for row in rows if row["result"] == "warn"}
        self.assertEqual(warned, {"target acme/shop/support", "target acme/shop/sales"})
        self.assertEqual(done.status, 0)

    def test_a_database_that_may_lose_commits_is_a_failure(self) -> None:
        place = self.place()
        place.command("migrate")
        [(name,)] = place.ask("SELECT current_database()")
        place.ask(f"ALTER DATABASE {name} SET synchronous_commit = off")
        done = place.command("check")
        self.assertEqual(done.status, 1)
        self.assertIn("FAIL  database: synchronous_commit is off", done.out)
        self.assertRegex(done.out, r"FAIL  guarantee: 200 means: committed on .*, but not safe: ")
        place.environment["SMSDAEMON_DATABASE__ALLOW_UNSAFE"] = "true"
        done = place.command("check")
        self.assertEqual(done.status, 0, done.out)
        self.assertIn("WARN  database: synchronous_commit is off", done.out)

    def test_a_journal_that_cannot_be_written_is_a_failure_and_a_full_disk_a_warning(self) -> None:
        place = self.place()
        place.command("migrate")
        place.state_dir.mkdir()
        (place.state_dir / "journal").write_text("a file\n")
        done = place.command("check")
        self.assertEqual(done.status, 1)
        self.assertRegex(done.out, r"FAIL  journal: .*/state/journal is no folder that this user can write")
        self.assertEqual(
            [journal_space(place.state_dir, free).result for free in (99_999_999, 100_000_000)],
            ["WARN", "ok"],
        )

    def test_settings_that_are_seldom_meant_together_are_warnings(self) -> None:
        place = self.place("[receiver]\njournal = false\n[routing]\ntimeout = 25\n")
        place.command("migrate")
        done = place.command("check")
        self.assertEqual(done.status, 0, done.out)
        self.assertIn("WARN  settings: receiver.journal is false: ", done.out)
        self.assertIn("WARN  settings: shutdown_seconds, 20, is below routing.timeout, 25: ", done.out)
        self.assertNotIn(" journal: ", done.out)

    def test_a_missing_schema_and_wrong_settings_are_failures(self) -> None:
        place = self.place()
        done = place.command("check")
        self.assertEqual(done.status, 1)
        self.assertIn("FAIL  schema: there is none", done.out)
        place = self.place("wrokers = 2\n[routing]\nlease = -1\n")
        done = place.command("check")
        self.assertEqual((done.status, done.err), (1, ""))
        self.assertIn("wrokers", done.out)
        self.assertIn("lease", done.out)

    def test_a_certificate_is_told_with_its_days(self) -> None:
        place = self.place()
        place.config.write_text(
            'state_dir = "state"\n[https]\nlisten = ["tcp:0"]\ncertificate = "none.pem"\nkey = "none.pem"\n'
        )
        place.command("migrate")
        done = place.command("check")
        self.assertEqual(done.status, 1)
        self.assertRegex(done.out, r"FAIL  certificate: .*none\.pem cannot be read")


class UsageTests(CommandTest):
    def run_alone(self, *arguments: str) -> Ended:
        done = subprocess.run(
            [BINARIES / "smsdaemon", *arguments], capture_output=True, text=True, timeout=PATIENCE_SECONDS
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def test_the_commands_of_this_stage_are_there_and_no_others(self) -> None:
        plain = {"apply", "export", "messages", "redeliver", "migrate", "check", "send", "sink", "status"}
        done = self.run_alone("--help")
        listed = done.out.partition("Commands:\n")[2].splitlines()
        names = {line.split()[0] for line in listed if line.startswith("  ") and line[2] != " "}
        self.assertEqual(names, plain | {"why", "refused", "redecode", "provider"})
        self.assertRegex(self.run_alone("--version").out, r"\Asmsdaemon \d+\.\d+\.\d+\n\Z")
        self.assertEqual(self.run_alone("purge").status, 2)

    def test_wrong_usage_is_status_2(self) -> None:
        for wrong in (
            ("messages", "--state", "lost"),
            ("messages", "--since", "yesterday"),
            ("messages", "--limit", "-1"),
            ("redeliver",),
            ("redeliver", "--id", "5"),
            ("redeliver", "--state", "dead", "--id", "01a204b0-9a3e-7113-a3ba-95894d2d41a6"),
            ("apply",),
            ("send", "--receiver", "1"),
            ("sink", "--route-acd-group", "a", "--route-application", "b"),
            ("messages", "--sender", "\udcff"),
            ("why", "\udcff"),
            ("redeliver", "--state", "dead", "--target", "\udcff"),
            ("refused", "retry", "--receiver", "\udcff"),
            ("redecode", "--charset", "latin-1", "--receiver", "\udcff"),
            ("sink", "--delay", "inf"),
            ("sink", "--fail-rate", "nan"),
            ("sink", "--retry-after", "1\n"),
            ("send", "--receiver", "1", "--sender", "2", "--text", "3", "--rate", "1e999"),
            ("send", "--receiver", "1", "--sender", "2", "--text", "3", "--timeout", "nan"),
        ):
            done = self.run_alone(*wrong)
            self.assertEqual((done.status, done.out), (2, ""), wrong)
            self.assertIn("Error: ", done.err)

    def test_a_terminal_that_is_not_utf_8_is_no_trouble(self) -> None:
        place = self.place()
        place.command("apply", self.file(place, SHOP + SUPPORT))
        place.environment["PYTHONIOENCODING"] = "ascii"
        done = place.command("why", "+49123123")
        self.assertEqual((done.status, done.err), (0, ""))
        self.assertIn(r"Number +491\u202623: a connector of acme/shop", done.out)

    def test_a_current_folder_that_is_gone_is_a_line(self) -> None:
        place = self.place()
        gone = place.folder / "gone"
        gone.mkdir()
        command = f'cd "{gone}" && rmdir "{gone}" && exec "{BINARIES}/smsdaemon" export'
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertEqual(
            done.stderr, "smsdaemon: the current folder cannot be used: No such file or directory\n"
        )

    def test_wrong_settings_are_a_line_each(self) -> None:
        place = self.place('colour = "red"\nworkers = "many"\n')
        for command in ("messages", "status", "migrate", "export"):
            done = place.command(command)
            self.assertEqual((done.status, done.out), (1, ""))
            self.assertGreaterEqual(len(done.err.splitlines()), 2)
            self.assertTrue(all(line.startswith("smsdaemon: ") for line in done.err.splitlines()), done.err)
