"""Settings from the environment: over the file, without one, and in what form."""

from __future__ import annotations

from smsdaemon.errors import ConfigurationError
from smsdaemon.settings import Listener, load
from tests.support.settings import HTTP, SettingsTest


class EnvironmentTests(SettingsTest):
    def test_a_variable_goes_over_the_file(self) -> None:
        settings = self.load(
            "shutdown_seconds = 20\n" + HTTP + "[database]\npool = 2\n",
            {"SMSDAEMON_SHUTDOWN_SECONDS": "1.5", "SMSDAEMON_DATABASE__POOL": "7"},
        )
        self.assertEqual((settings.shutdown_seconds, settings.database.pool), (1.5, 7))

    def test_a_variable_mends_what_the_file_has_wrong(self) -> None:
        settings = self.load(HTTP + "[database]\npool = 0\n", {"SMSDAEMON_DATABASE__POOL": "7"})
        self.assertEqual(settings.database.pool, 7)

    def test_lists_numbers_and_flags_are_toml(self) -> None:
        settings = self.without_file(
            HTTP__LISTEN='["tcp:1", "tcp:2"]',
            ROUTING__RETRY_SCHEDULE="[0, 0.25]",
            LOG__MESSAGE_TEXT="true",
            DATABASE__ALLOW_UNSAFE="true",
            RECEIVER__JOURNAL_AFTER="2",
            WORKERS="3",
        )
        self.assertEqual(settings.http, Listener(listen=("tcp:1", "tcp:2")))
        self.assertEqual(settings.routing.retry_schedule, (0.0, 0.25))
        self.assertTrue(settings.log.message_text)
        self.assertTrue(settings.database.allow_unsafe)
        self.assertEqual(settings.receiver.journal_after, 2.0)
        self.assertEqual(settings.workers, 3)

    def test_strings_are_taken_as_they_are(self) -> None:
        settings = self.without_file(
            DATABASE__DSN="host=db password='a \"b\\c'", LOG__LEVEL="debug", WORKERS="auto"
        )
        self.assertEqual(settings.database.dsn, "host=db password='a \"b\\c'")
        self.assertEqual((settings.log.level, settings.workers), ("debug", "auto"))

    def test_a_table_that_the_file_leaves_out_is_made(self) -> None:
        settings = self.load(HTTP, {"SMSDAEMON_ADMIN__LISTEN": '["tcp:1:interface=127.0.0.1"]'})
        self.assertEqual(settings.admin, Listener(listen=("tcp:1:interface=127.0.0.1",)))

    def test_a_table_that_is_made_by_half_is_the_variables_fault(self) -> None:
        self.assert_problems(
            HTTP,
            "SMSDAEMON_HTTPS__CERTIFICATE: https.listen: is missing; "
            'allowed: a list of Twisted server endpoints, as in ["tcp:8080:interface=127.0.0.1"]',
            "SMSDAEMON_HTTPS__CERTIFICATE: https.key: is missing beside https.certificate; "
            "allowed: both, or neither for a self-signed one",
            environ={"SMSDAEMON_HTTPS__CERTIFICATE": "c.pem"},
        )

    def test_relative_paths_are_relative_to_the_current_folder(self) -> None:
        settings = self.load('state_dir = "here"\n' + HTTP, {"SMSDAEMON_STATE_DIR": "there"})
        self.assertEqual(settings.state_dir, self.cwd / "there")

    def test_the_file_may_be_named_by_a_variable(self) -> None:
        self.file.write_text('state_dir = "state"\n' + HTTP)
        named = {"SMSDAEMON_CONFIG": "../conf/smsdaemon.toml"}
        self.assertEqual(load(None, named, self.cwd).state_dir, self.folder / "state")
        other = self.folder / "other.toml"
        other.write_text("shutdown_seconds = 1\n" + HTTP)
        self.assertEqual(load(other, named, self.cwd).shutdown_seconds, 1.0)

    def test_a_file_that_a_variable_names_must_be_there(self) -> None:
        with self.assertRaises(ConfigurationError) as caught:
            self.without_file(CONFIG="none.toml")
        self.assertEqual(
            caught.exception.problems,
            ["none.toml: cannot be read: No such file or directory; allowed: a readable TOML file"],
        )

    def test_variables_of_others_and_of_the_tests_are_left_alone(self) -> None:
        self.assertEqual(
            self.load(HTTP, {"SMSDAEMON": "1", "SMSDAEMON_TEST_POSTGRES": "1", "PATH": "/bin"}),
            self.load(HTTP),
        )

    def test_unknown_variables_are_refused(self) -> None:
        allowed = (
            "allowed: SMSDAEMON_CONFIG and the keys, as in SMSDAEMON_STATE_DIR, SMSDAEMON_DATABASE__POOL"
        )
        self.assert_problems(
            HTTP,
            f"SMSDAEMON_: unknown variable; {allowed}",
            f"SMSDAEMON_DATABASE_POOL: unknown variable, perhaps SMSDAEMON_DATABASE__POOL; {allowed}",
            f"SMSDAEMON_LIMITS__BY_NETWORK: unknown variable; {allowed}",
            f"SMSDAEMON_log__level: unknown variable; {allowed}",
            environ={
                "SMSDAEMON_": "",
                "SMSDAEMON_DATABASE_POOL": "1",
                "SMSDAEMON_LIMITS__BY_NETWORK": "x",
                "SMSDAEMON_log__level": "debug",
            },
        )

    def test_what_is_not_toml_is_refused_and_not_shown(self) -> None:
        pool = "SMSDAEMON_DATABASE__POOL: database.pool:"
        allowed = "allowed: a whole number from 1 to 1000"
        for text in ("four", "", "4\nx = 5", "4\n[x]", "[" * 5000):
            self.assert_problems(
                HTTP,
                f"{pool} is not a value as TOML writes it; {allowed}",
                environ={"SMSDAEMON_DATABASE__POOL": text},
            )
        self.assert_problems(
            HTTP,
            f"{pool} is a string, not a whole number; {allowed}",
            environ={"SMSDAEMON_DATABASE__POOL": '"4"'},
        )
