"""Settings: defaults, types and bounds, and what is said about a file that cannot be used."""

from __future__ import annotations

from pathlib import Path

import attrs

import smsdaemon
from smsdaemon.errors import ConfigurationError
from smsdaemon.settings import Listener, RoutingSettings, Settings, TlsListener, load
from smsdaemon.settings_values import KEYS
from tests.support.settings import HTTP, SettingsTest

EXAMPLE = Path(smsdaemon.__file__).parent.parent / "etc" / "smsdaemon.toml"
SECONDS = "allowed: a number of seconds from 0 to 31536000"
LEASE = "allowed: a number of seconds from 1 to 31536000"
SOME_SECONDS = "allowed: a number of seconds above 0, up to 31536000"
CONCURRENCY = "allowed: a whole number from 1 to 10000"
BYTES = "allowed: a whole number from 1024 to 67108864"
LEVELS = 'allowed: "debug", "info", "warn", "error" or "critical"'
TOML = "allowed: a TOML file as in etc/smsdaemon.toml"
AFTER = "allowed: a number of seconds from 0.01 to 4 (a peer hears 500 after 5)"
FAILURES = "allowed: a whole number from 1 to 1000000"
FLAG = "allowed: true or false"
SCHEDULE = "allowed: a list of at least one number of seconds, each from 0 to 31536000"


class DefaultTests(SettingsTest):
    def test_without_a_file_everything_has_a_default(self) -> None:
        self.assertEqual(
            self.without_file(),
            Settings(
                state_dir=self.cwd / "var",
                workers=1,
                shutdown_seconds=20.0,
                http=Listener(listen=("tcp:8080:interface=127.0.0.1",)),
                https=TlsListener(listen=("tcp:8443:interface=127.0.0.1",), certificate=None, key=None),
                admin=Listener(listen=("tcp:8081:interface=127.0.0.1",)),
            ),
        )

    def test_a_listener_without_a_table_in_the_file_is_off(self) -> None:
        settings = self.load(HTTP)
        self.assertEqual(settings.http, Listener(listen=("tcp:8080",)))
        self.assertEqual((settings.https, settings.admin), (None, None))

    def test_other_tables_have_their_defaults_beside_a_file_too(self) -> None:
        settings = self.load(HTTP + "[routing]\ntimeout = 5\n")
        self.assertEqual(settings.routing, attrs.evolve(RoutingSettings(), timeout=5.0))
        self.assertEqual(settings.state_dir, self.cwd / "var")
        self.assertEqual(settings.database.pool, 4)

    def test_the_example_shows_every_key_at_its_default(self) -> None:
        example = load(EXAMPLE, {}, self.cwd, serving=False)
        self.assertEqual(example.state_dir, Path("/var/lib/smsdaemon"))
        self.assertEqual(attrs.evolve(example, state_dir=self.cwd / "var"), self.without_file())

    def test_the_example_is_in_order_for_a_daemon(self) -> None:
        load(EXAMPLE, {"SMSDAEMON_STATE_DIR": str(self.cwd)}, self.cwd)

    def test_the_example_names_every_key(self) -> None:
        lines = [line.lstrip("# ") for line in EXAMPLE.read_text().splitlines()]
        for key in KEYS:
            name = key.rpartition(".")[2]
            self.assertTrue(any(line.startswith(f"{name} = ") for line in lines), key)


class ValueTests(SettingsTest):
    def test_a_whole_number_may_stand_for_one_with_a_fraction(self) -> None:
        settings = self.load("shutdown_seconds = 3\n" + HTTP + "[routing]\nretry_schedule = [0, 0.5]\n")
        self.assertEqual(settings.shutdown_seconds, 3.0)
        self.assertIsInstance(settings.shutdown_seconds, float)
        self.assertEqual(settings.routing.retry_schedule, (0.0, 0.5))

    def test_workers_are_a_number_or_auto(self) -> None:
        self.assertEqual(self.load("workers = 2\n" + HTTP).workers, 2)
        self.assertEqual(self.load('workers = "auto"\n' + HTTP).workers, "auto")
        wanted = 'allowed: a whole number from 1 to 256, or "auto"'
        self.assert_problems("workers = 0\n" + HTTP, f"FILE: workers: 0 is not allowed; {wanted}")
        self.assert_problems(
            'workers = "all"\n' + HTTP, f"FILE: workers: is a string, not a whole number; {wanted}"
        )

    def test_what_keeps_sms_from_being_lost_is_on_by_default(self) -> None:
        settings = self.load(HTTP)
        self.assertEqual((settings.database.allow_unsafe, settings.receiver.journal), (False, True))
        self.assertEqual(settings.receiver.journal_after, 0.5)
        self.assertEqual(settings.receiver.concatenation_timeout, 1800.0)
        self.assertEqual((settings.routing.breaker_failures, settings.routing.breaker_probe), (10, 5.0))

    def test_what_keeps_sms_from_being_lost_can_be_set_to_its_bounds(self) -> None:
        settings = self.load(
            f"{HTTP}[database]\nallow_unsafe = true\n[receiver]\njournal = false\njournal_after = 4\n"
            "concatenation_timeout = 1\n"
            "[routing]\nbreaker_failures = 1\nbreaker_probe = 0.1\n"
        )
        self.assertEqual((settings.database.allow_unsafe, settings.receiver.journal), (True, False))
        self.assertEqual(settings.receiver.journal_after, 4.0)
        self.assertEqual(settings.receiver.concatenation_timeout, 1.0)
        self.assertEqual((settings.routing.breaker_failures, settings.routing.breaker_probe), (1, 0.1))
        self.assertEqual(self.load(f"{HTTP}[receiver]\njournal_after = 0.01\n").receiver.journal_after, 0.01)

    def test_relative_paths_are_relative_to_the_file(self) -> None:
        text = (
            'state_dir = "../state"\n[https]\nlisten = ["tcp:8443"]\ncertificate = "c.pem"\nkey = "k.pem"\n'
        )
        settings = self.load(text, serving=False)
        self.assertEqual(settings.state_dir, self.folder.parent / "state")
        assert settings.https is not None
        self.assertEqual(settings.https.certificate, self.folder / "c.pem")
        self.assertEqual(settings.https.key, self.folder / "k.pem")

    def test_a_unix_socket_is_relative_to_the_file_too(self) -> None:
        text = (
            HTTP
            + '[admin]\nlisten = ["unix:a\\\\:b.sock:mode=600", "unix:mode=660:address=c.sock", "unix:/d"]\n'
        )
        settings = self.load(text)
        assert settings.admin is not None
        self.assertEqual(
            settings.admin.listen,
            (
                f"unix:address={self.folder}/a\\:b.sock:mode=600",
                f"unix:mode=660:address={self.folder}/c.sock",
                "unix:address=/d",
            ),
        )

    def test_a_file_with_https_alone_gets_a_self_signed_certificate(self) -> None:
        for text in ("", 'certificate = ""\nkey = ""\n'):
            settings = self.load('[https]\nlisten = ["tcp:8443"]\n' + text)
            self.assertEqual(settings.https, TlsListener(listen=("tcp:8443",), certificate=None, key=None))

    def test_a_database_of_blanks_is_the_embedded_one(self) -> None:
        self.assertEqual(self.load(HTTP + '[database]\ndsn = " \\t "\n').database.dsn, "")
        # The backslash makes the blank after it part of the password.
        given = r" host=db password=x\ "
        self.assertEqual(self.load(HTTP + f"[database]\ndsn = '{given}'\n").database.dsn, given)

    def test_a_password_is_not_in_the_settings_as_text(self) -> None:
        settings = self.load(HTTP + '[database]\ndsn = "postgresql://u:geheim@db/sms"\n')
        self.assertEqual(settings.database.dsn, "postgresql://u:geheim@db/sms")
        self.assertNotIn("geheim", repr(settings))


class ProblemTests(SettingsTest):
    def test_all_problems_of_a_file_are_said_at_once(self) -> None:
        self.assert_problems(
            """
            shutdown_seconds = "ten"
            colour = "red"
            [admin]
            listen = ["tcp:8081"]
            [database]
            pool = 0
            """,
            f"FILE: shutdown_seconds: is a string, not a number; {SECONDS}",
            "FILE: database.pool: 0 is not allowed; allowed: a whole number from 1 to 1000",
            "FILE: colour: unknown key; allowed: admin, database, http, https, log, receiver, routing, "
            "shutdown_seconds, state_dir, workers",
            "FILE: http, https: both tables are missing; allowed: one of them or both",
            'FILE: admin.listen: "tcp:8081" can be reached from other machines; '
            "allowed: loopback, as in tcp:8081:interface=127.0.0.1, or unix:",
        )

    def test_file_and_environment_are_said_together(self) -> None:
        self.assert_problems(
            "[http]\n[routing]\nconcurrency = true\ngive_up_after = 1\n",
            "SMSDAEMON_ROUTING__TIMOUT: unknown variable, perhaps SMSDAEMON_ROUTING__TIMEOUT; "
            "allowed: SMSDAEMON_CONFIG and the keys, as in SMSDAEMON_STATE_DIR, SMSDAEMON_DATABASE__POOL",
            "FILE: http.listen: is missing; "
            'allowed: a list of Twisted server endpoints, as in ["tcp:8080:interface=127.0.0.1"]',
            f"SMSDAEMON_ROUTING__GIVE_UP_AFTER: routing.give_up_after: -1 is not allowed; {SECONDS}",
            f"FILE: routing.concurrency: is true or false, not a whole number; {CONCURRENCY}",
            environ={"SMSDAEMON_ROUTING__TIMOUT": "5", "SMSDAEMON_ROUTING__GIVE_UP_AFTER": "-1"},
        )

    def test_every_wrong_element_of_a_list_is_said(self) -> None:
        self.assert_problems(
            HTTP + '[routing]\nretry_schedule = [0, "2", -1, inf]\n',
            f"FILE: routing.retry_schedule[1]: is a string, not a number; {SCHEDULE}",
            f"FILE: routing.retry_schedule[2]: -1 is not allowed; {SCHEDULE}",
            f"FILE: routing.retry_schedule[3]: inf is not allowed; {SCHEDULE}",
        )

    def test_an_empty_list_is_refused(self) -> None:
        self.assert_problems(
            HTTP + "[routing]\nretry_schedule = []\n",
            f"FILE: routing.retry_schedule: [] is not allowed; {SCHEDULE}",
        )
        self.assert_problems(
            "[http]\nlisten = []\n",
            "FILE: http.listen: [] is not allowed; "
            'allowed: a list of Twisted server endpoints, as in ["tcp:8080:interface=127.0.0.1"]',
        )

    def test_types_are_strict(self) -> None:
        self.assert_problems(
            HTTP + "[database]\ndsn = 5\npool = 4.0\n[log]\nmessage_text = 1\nlevel = 3\n"
            "[routing]\ntimeout = true\nlease = 2026-11-22\n"
            'retry_schedule = "1"\ngive_up_after = [1]\n[routing.concurrency]\n',
            "FILE: database.dsn: is a whole number, not a string; "
            'allowed: a libpq connection string or URI; "" for the embedded PostgreSQL',
            "FILE: database.pool: is a number, not a whole number; allowed: a whole number from 1 to 1000",
            f"FILE: routing.retry_schedule: is a string, not a list; {SCHEDULE}",
            f"FILE: routing.give_up_after: is a list, not a number; {SECONDS}",
            f"FILE: routing.timeout: is true or false, not a number; {SOME_SECONDS}",
            f"FILE: routing.concurrency: is a table, not a whole number; {CONCURRENCY}",
            f"FILE: routing.lease: is a date or time, not a number; {LEASE}",
            f"FILE: log.level: is a whole number, not a string; {LEVELS}",
            "FILE: log.message_text: is a whole number, not true or false; allowed: true or false",
        )

    def test_values_out_of_bounds_are_refused(self) -> None:
        self.assert_problems(
            f"shutdown_seconds = -0.5\n{HTTP}[receiver]\nmax_body_bytes = 1023\nmax_url_bytes = 67108865\n"
            "[routing]\ntimeout = 0\nlease = nan\ngive_up_after = 1e300\nconcurrency = 0\n"
            '[log]\nformat = "xml"\nlevel = "INFO"\n',
            f"FILE: shutdown_seconds: -0.5 is not allowed; {SECONDS}",
            f"FILE: receiver.max_body_bytes: 1023 is not allowed; {BYTES}",
            f"FILE: receiver.max_url_bytes: 67108865 is not allowed; {BYTES}",
            f"FILE: routing.give_up_after: 1e+300 is not allowed; {SECONDS}",
            f"FILE: routing.timeout: 0 is not allowed; {SOME_SECONDS}",
            f"FILE: routing.concurrency: 0 is not allowed; {CONCURRENCY}",
            f"FILE: routing.lease: nan is not allowed; {LEASE}",
            'FILE: log.format: "xml" is not allowed; allowed: "text" or "json"',
            f'FILE: log.level: "INFO" is not allowed; {LEVELS}',
        )

    def test_what_keeps_sms_from_being_lost_has_its_types_and_bounds(self) -> None:
        self.assert_problems(
            HTTP + '[database]\nallow_unsafe = "true"\n[receiver]\njournal = 1\njournal_after = 4.01\n'
            "concatenation_timeout = 0.9\n"
            "[routing]\nbreaker_failures = 0\nbreaker_probe = 0\n",
            f"FILE: database.allow_unsafe: is a string, not true or false; {FLAG}",
            f"FILE: receiver.journal: is a whole number, not true or false; {FLAG}",
            f"FILE: receiver.journal_after: 4.01 is not allowed; {AFTER}",
            "FILE: receiver.concatenation_timeout: 0.9 is not allowed; "
            "allowed: a number of seconds from 1 to 604800 (a week)",
            f"FILE: routing.breaker_failures: 0 is not allowed; {FAILURES}",
            f"FILE: routing.breaker_probe: 0 is not allowed; {SOME_SECONDS}",
        )
        self.assert_problems(
            HTTP + '[database]\nallow_unsafe = 0\n[receiver]\njournal = ""\njournal_after = 0\n'
            "[routing]\nbreaker_failures = 1.0\nbreaker_probe = inf\n",
            f"FILE: database.allow_unsafe: is a whole number, not true or false; {FLAG}",
            f"FILE: receiver.journal: is a string, not true or false; {FLAG}",
            f"FILE: receiver.journal_after: 0 is not allowed; {AFTER}",
            f"FILE: routing.breaker_failures: is a number, not a whole number; {FAILURES}",
            f"FILE: routing.breaker_probe: inf is not allowed; {SOME_SECONDS}",
        )
        for value in ("nan", "-1", "true", '"0.5"'):
            with self.assertRaises(ConfigurationError):
                self.load(f"{HTTP}[receiver]\njournal_after = {value}\n")

    def test_a_table_where_a_value_belongs_and_the_other_way_round_are_refused(self) -> None:
        self.assert_problems(
            'http = 8080\n[[https]]\nlisten = ["tcp:1"]\n[state_dir]\n',
            "FILE: state_dir: is a table, not a value; allowed: the path of a folder",
            "FILE: http: is a whole number, not a table; allowed: [http]",
            "FILE: https: is a list, not a table; allowed: [https]",
        )

    def test_keys_of_later_stages_are_unknown(self) -> None:
        self.assert_problems(
            HTTP + '[receiver]\ntrusted_proxies = []\n[admin]\nlisten = ["unix:/a"]\ncertificate = ""\n',
            "FILE: admin.certificate: unknown key; allowed: listen",
            "FILE: receiver.trusted_proxies: unknown key; allowed: concatenation_timeout, journal, "
            "journal_after, max_body_bytes, max_url_bytes, profiles, public_url",
        )

    def test_an_empty_state_folder_is_refused(self) -> None:
        self.assert_problems(
            'state_dir = ""\n' + HTTP, "FILE: state_dir: is not a path; allowed: the path of a folder"
        )

    def test_no_password_is_ever_said(self) -> None:
        secret = "host=db password=geheim"
        uri = "postgresql://u:geheim@db/sms"
        environ = {"SMSDAEMON_DATABASE__POOL": uri, "SMSDAEMON_LOG__MESSAGE_TEXT": secret}
        for text in (
            f'[database]\ndsn = ["{uri}"]\npool = "{uri}"\n',
            '[database]\ndsn = "geheim"\n',
            f'[log]\nlevel = "{uri}"\nformat = "{secret}"\n',
            f'[database]\ndsn = "{uri}\n',
        ):
            with self.assertRaises(ConfigurationError) as caught:
                self.load(HTTP + text, environ)
            self.assertNotIn("geheim", str(caught.exception))

    def test_a_name_with_control_characters_stays_on_one_line(self) -> None:
        self.assert_problems(
            HTTP + '[log]\n"a\\nb\\u001b[31m" = 1\n',
            "FILE: log.a\\nb\\x1b[31m: unknown key; allowed: format, level, message_text",
        )


class FileTests(SettingsTest):
    def test_a_syntax_error_has_its_place(self) -> None:
        self.assert_problems(
            "[http]\nlisten = [\n",
            f"FILE: is not TOML: Invalid value (at end of document); {TOML}",
        )
        self.assert_problems(
            "[http]\nlisten = 'x' y\n",
            "FILE: is not TOML: Expected newline or end of document after a statement "
            f"(at line 2, column 14); {TOML}",
        )

    def test_a_broken_file_does_not_hide_a_wrong_variable(self) -> None:
        self.assert_problems(
            "[http",
            f"FILE: is not TOML: Expected ']' at the end of a table declaration (at end of document); {TOML}",
            "SMSDAEMON_DATABASE__POOL: database.pool: 0 is not allowed; "
            "allowed: a whole number from 1 to 1000",
            environ={"SMSDAEMON_DATABASE__POOL": "0"},
        )

    def test_a_file_that_is_not_utf_8_is_refused(self) -> None:
        self.assert_problems(b"# Stra\xdfe\n", "FILE: is not UTF-8 at byte 7; allowed: a TOML file in UTF-8")

    def test_a_byte_order_mark_and_dos_line_ends_are_taken(self) -> None:
        self.assertEqual(
            self.load(b"\xef\xbb\xbfshutdown_seconds = 3\r\n" + HTTP.encode()).shutdown_seconds, 3
        )

    def test_absurd_nesting_and_numbers_are_refused(self) -> None:
        for text in ("a = " + "[" * 5000, "a = " + "9" * 5000, f"shutdown_seconds = {'9' * 400}\n{HTTP}"):
            with self.assertRaises(ConfigurationError) as caught:
                self.load(text)
            self.assertEqual(len(caught.exception.problems), 1)
            self.assertNotIn("\n", str(caught.exception))

    def test_missing_files_and_folders_are_said(self) -> None:
        for path, why in (
            (Path("none.toml"), "No such file or directory"),
            (self.folder, "Is a directory"),
        ):
            with self.assertRaises(ConfigurationError) as caught:
                load(path, {}, self.cwd)
            self.assertEqual(
                caught.exception.problems, [f"{path}: cannot be read: {why}; allowed: a readable TOML file"]
            )
