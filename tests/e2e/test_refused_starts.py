"""A daemon that cannot run says why, a line for each problem, exits 1 and leaves nothing half done."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

from tests.support.authority import Authority
from tests.support.daemon import BINARIES, LISTENERS, Daemon, Ended
from tests.support.processes import ProcessTest
from tests.support.secrets_in_tests import PASSWORD


class RefusedStartTests(ProcessTest):
    def daemon(self, settings: str = "", **more: Any) -> Daemon:
        made = Daemon(settings, **more)
        self.addCleanup(made.remove)
        return made

    def refused(self, daemon: Daemon, *problems: str) -> Ended:
        """Each problem stands in one line of its own; nothing is left."""
        ended = daemon.run_to_its_end()
        self.assertEqual(ended.status, 1)
        lines = ended.err.splitlines()
        self.assertEqual(len(lines), len(problems), ended.err)
        for line in lines:
            self.assertTrue(line.startswith("smsdaemon: "), line)
        for problem in problems:
            self.assertEqual(sum(problem in line for line in lines), 1, f"{problem} in {ended.err}")
        self.assertNotIn("Traceback", ended.out + ended.err)
        self.assertNotIn("smsdaemon ready", ended.out)
        if daemon.is_embedded:
            self.assertEqual(daemon.postgres_processes(), set())
            self.assertFalse(daemon.location.data.exists())
        return ended

    def test_a_wrong_setting(self) -> None:
        listeners = f'shutdown_seconds = "soon"\n{LISTENERS}'
        self.refused(self.daemon(listeners=listeners), "shutdown_seconds")

    def test_every_problem_of_a_file_and_of_the_environment_at_once(self) -> None:
        daemon = self.daemon(
            "[database]\npool = 0\n[routing]\nretry_schedule = []\nretries = 3\n"
            '[receiver]\nmax_body_bytes = "x"\n'
        )
        daemon.environment["SMSDAEMON_WROKERS"] = "2"
        self.refused(
            daemon,
            "SMSDAEMON_WROKERS",
            "database.pool",
            "receiver.max_body_bytes",
            "routing.retries: unknown key",
            "routing.retry_schedule",
        )

    def test_no_file(self) -> None:
        daemon = self.daemon()
        daemon.config.unlink()
        self.refused(daemon, "cannot be read")

    def test_a_file_that_is_no_toml(self) -> None:
        daemon = self.daemon()
        daemon.config.write_text("state_dir = \n")
        self.refused(daemon, "is not TOML")

    def test_a_port_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
            listeners = LISTENERS.replace("tcp:0:interface=127.0.0.1", taken, 1)
            self.refused(self.daemon(listeners=listeners), "http.listen: cannot listen on")

    def test_every_port_that_is_in_use(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
            listeners = LISTENERS
            for other in (one, two):
                taken = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
                listeners = listeners.replace("tcp:0:interface=127.0.0.1", taken, 1)
            self.refused(self.daemon(listeners=listeners), "http.listen: cannot", "https.listen: cannot")

    def certificate(self, daemon: Daemon) -> tuple[Path, Path]:
        """Files with a certificate and its key, which a test may spoil."""
        made = Authority().server(["localhost"])
        paths = daemon.folder / "certificate.pem", daemon.folder / "key.pem"
        paths[0].write_bytes(made.dumpPEM().partition(b"-----BEGIN PRIVATE")[0])
        paths[1].write_bytes(made.privateKey.dump(1))
        return paths

    def with_certificate(self) -> tuple[Daemon, Path, Path]:
        tls = '[https]\ncertificate = "certificate.pem"\nkey = "key.pem"\n'
        daemon = self.daemon(listeners=LISTENERS.replace("[https]\n", tls))
        return daemon, *self.certificate(daemon)

    def test_a_good_certificate_is_no_reason_to_refuse(self) -> None:
        daemon, _, _ = self.with_certificate()
        daemon.start()
        daemon.stop()

    def test_a_certificate_that_is_not_there(self) -> None:
        daemon, certificate, _ = self.with_certificate()
        certificate.unlink()
        self.refused(daemon, "https.certificate")

    def test_a_certificate_that_is_none(self) -> None:
        daemon, certificate, _ = self.with_certificate()
        certificate.write_text("nonsense\n")
        self.refused(daemon, "https.certificate")

    def test_a_key_that_is_none(self) -> None:
        daemon, _, key = self.with_certificate()
        key.write_text("nonsense\n")
        self.refused(daemon, "https.key")

    def test_a_key_of_another_certificate(self) -> None:
        daemon, _, key = self.with_certificate()
        key.write_bytes(Authority().server(["localhost"]).privateKey.dump(1))
        self.refused(daemon, "https.")

    def test_an_expired_certificate(self) -> None:
        daemon, certificate, key = self.with_certificate()
        expired = Authority().server(["localhost"], expired=True)
        certificate.write_bytes(expired.dumpPEM().partition(b"-----BEGIN PRIVATE")[0])
        key.write_bytes(expired.privateKey.dump(1))
        self.refused(daemon, "https.certificate")

    def test_a_second_daemon_on_the_same_state_folder(self) -> None:
        daemon = self.daemon()
        daemon.start()
        second = daemon.run_to_its_end()
        self.assertEqual(second.status, 1)
        [line] = second.err.splitlines()
        self.assertIn(f"another smsdaemon (process {daemon.pid})", line)
        self.assertEqual(daemon.ask("SELECT 1"), [(1,)])
        self.assertFalse(daemon.ended())

    def test_a_state_folder_that_cannot_be_made(self) -> None:
        daemon = self.daemon()
        daemon.state_dir.write_text("a file\n")
        ended = daemon.run_to_its_end()
        self.assertEqual((ended.status, len(ended.err.splitlines())), (1, 1))
        self.assertIn("state_dir", ended.err)
        daemon.state_dir.unlink()

    def test_a_folder_for_the_certificate_that_cannot_be_used(self) -> None:
        for workers in (1, 2):
            daemon = self.daemon(workers=workers)
            daemon.state_dir.mkdir(mode=0o700)
            (daemon.state_dir / "tls").write_text("a file\n")
            self.refused(
                daemon, f"state_dir: no self-signed certificate can be made: {daemon.state_dir}/tls: "
            )
        (daemon.state_dir / "tls").unlink()
        (daemon.state_dir / "tls" / "key.pem").mkdir(parents=True)
        self.refused(daemon, "tls/key.pem: Is a directory")

    def test_a_log_file_that_cannot_be_written(self) -> None:
        daemon = self.daemon(dsn="host=/nowhere")
        done = subprocess.run(
            [BINARIES / "twistd", "-n", "--pidfile=", "--logfile", daemon.folder, "smsdaemon"],
            cwd=daemon.folder,
            env=daemon.environment,
            capture_output=True,
            text=True,
        )
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertEqual(
            done.stderr, f"smsdaemon: --logfile: {daemon.folder} cannot be written: Is a directory\n"
        )

    def test_a_full_disk(self) -> None:
        daemon = self.daemon(listeners='[http]\nlisten = ["tcp:0:interface=127.0.0.1"]\n')
        daemon.state_dir.mkdir(mode=0o700)
        (daemon.state_dir / "daemon.lock").symlink_to("/dev/full")
        self.refused(daemon, "daemon.lock: No space left on device")

    def test_a_database_address_that_is_none_without_showing_it(self) -> None:
        daemon = self.daemon(dsn=f"host=localhost password={PASSWORD} nonsense")
        ended = self.refused(daemon, "database.dsn")
        self.assertNotIn(PASSWORD, ended.out + ended.err)

    def test_a_demo_directory_that_cannot_be_used(self) -> None:
        daemon = self.daemon()
        (daemon.folder / "demo.toml").write_text("[[connector]]\nnumber = 1\n")
        ended = daemon.run_to_its_end("--demo", "demo.toml")
        self.assertEqual(ended.status, 1)
        self.assertNotIn("Traceback", ended.out + ended.err)
        self.assertIn("demo.toml: connector", ended.err)
        ended = daemon.run_to_its_end("--demo", "not-there.toml")
        self.assertEqual((ended.status, len(ended.err.splitlines())), (1, 1))
        self.assertNotIn("Traceback", ended.out + ended.err)
