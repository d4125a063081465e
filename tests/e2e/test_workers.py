"""Several workers: what one daemon promises holds whichever of them a peer comes to."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from collections import Counter
from functools import cache
from pathlib import Path

from tests.support.backend import Backend, takes_all
from tests.support.conversations import SlowAndFailing, faults_of_order, send_conversations
from tests.support.daemon import (
    TWISTD,
    Daemon,
    acd_group,
    client,
    connector,
    reseller,
    shared_daemon,
)
from tests.support.postgres import drop_database, make_database
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import OTHER_RECEIVER, RECEIVER, SENDER, TEXT_MARKER
from tests.support.sms_peers import Answer, Peer, in_threads
from tests.support.workers import connections_of, health, metric

WORKERS = 3
SENDERS, EACH = 60, 20
PEERS = 64
IN_FORCE_SECONDS = 1.0


def directory(target: Backend | None = None) -> str:
    url = "log:" if target is None else target.url()
    return reseller() + client() + acd_group("group", url) + connector(RECEIVER, acd_group="group")


@cache
def scene() -> tuple[Daemon, Backend]:
    """The run's daemon of several workers, and where its SMS go."""
    target, running = Backend(), shared_daemon(WORKERS)
    running.apply(directory(target))
    return running, target


class WorkersTests(ProcessTest):
    def setUp(self) -> None:
        super().setUp()
        self.running, self.target = scene()
        self.target.answer = takes_all
        until(self.nothing_waits, "what tests before this one have sent")
        self.target.attempts.clear()
        self.workers = self.running.worker_pids()
        self.assertEqual(len(self.workers), WORKERS)

    def nothing_waits(self) -> bool:
        """Neither in PostgreSQL nor, on a machine that is busy, in the journal."""
        return self.running.pending() == 0 and metric(self.running, "smsdaemon_journal_messages") == 0

    def peers(self, count: int) -> list[Peer]:
        """So many connections, all opened at once, once all workers know the directory."""
        found = [self.running.peer() for _ in range(count)]
        for peer in found:
            self.addCleanup(peer.close)

        def connect(n: int) -> None:
            found[n].ask("GET", "/health/ready")

        in_threads(count, connect)
        until(lambda: all(peer.get(receiver=RECEIVER).status == 400 for peer in found), "the directory")
        return found

    def spread(self) -> Counter[int]:
        return connections_of(self.workers, self.running.port())

    def peers_that_are_spread(self) -> list[Peer]:
        """Nothing, where one worker has nearly all: it may be that the others were not scheduled."""
        until(lambda: sum(self.spread().values()) == 0, "that nobody is connected")
        peers = self.peers(PEERS)
        spread = self.spread()
        self.assertEqual(sum(spread.values()), PEERS)
        if min(spread.values()) >= PEERS // 8:
            return peers
        for peer in peers:
            peer.close()
        return []

    def test_connections_that_come_at_once_spread_over_all_and_all_serve(self) -> None:
        accepted = metric(self.running, "smsdaemon_messages_accepted_total")
        answered = metric(self.running, "smsdaemon_requests_total", status="200")
        peers = until(self.peers_that_are_spread, "connections to all")
        for n, peer in enumerate(peers):
            answer = peer.post_form(receiver=RECEIVER, sender=SENDER, message=f"{TEXT_MARKER} {n}")
            self.assertEqual(answer.status, 200)
        until(lambda: len(self.target.ids()) == PEERS, "the deliveries")
        # Counted by whoever served them, told as one.
        self.assertEqual(metric(self.running, "smsdaemon_messages_accepted_total"), accepted + PEERS)
        self.assertEqual(metric(self.running, "smsdaemon_requests_total", status="200"), answered + PEERS)

    def test_a_change_of_the_directory_is_in_force_in_each_of_them_within_a_second(self) -> None:
        peers = until(self.peers_that_are_spread, "connections to all")
        self.running.apply(directory(self.target) + connector(OTHER_RECEIVER, acd_group="group"))
        began = time.monotonic()

        def all_know_it() -> bool:
            fields = {"receiver": OTHER_RECEIVER, "sender": SENDER, "message": TEXT_MARKER}
            return all(peer.post_form(**fields).status == 200 for peer in peers)

        until(all_know_it, "the change")
        self.assertLess(time.monotonic() - began, IN_FORCE_SECONDS)

    def test_fifty_requests_at_once_with_one_message_id_are_one_sms(self) -> None:
        peers = self.peers(50)
        answers: list[Answer] = []

        def send(n: int) -> None:
            fields = {"receiver": RECEIVER, "sender": SENDER, "message": TEXT_MARKER, "message_id": "one"}
            answers.append(peers[n].post_form(**fields))

        in_threads(50, send)
        self.assertEqual([answer.status for answer in answers], [200] * 50)
        [id] = {answer.id for answer in answers}
        until(lambda: self.target.ids() == {id} and self.nothing_waits(), "the delivery")
        self.assertEqual([attempt.data["id"] for attempt in self.target.attempts], [id])

    def test_conversations_spread_over_all_arrive_in_order_and_one_at_a_time(self) -> None:
        self.target.answer = SlowAndFailing(seconds=0.003, failing=0.1)
        self.peers(1)
        # Each conversation by four connections in turn, so by several workers.
        ids = send_conversations([self.running] * 4, RECEIVER, SENDERS, EACH)
        until(lambda: self.target.ids() >= set(ids) and self.nothing_waits(), "the deliveries")
        self.assertEqual(self.target.ids(), set(ids))
        self.assertEqual(faults_of_order(self.target.attempts, SENDERS, EACH), [])

    def test_health_and_status_tell_of_each_of_them(self) -> None:
        def ready() -> set[str]:
            return {name for name, part in health(self.running)["parts"].items() if part["ready"]}

        until(lambda: ready() == {"workers", "database", "directory", "journal", "guarantee"}, "all parts")
        found = health(self.running)
        self.assertEqual(found["status"], "ready")
        self.assertEqual(found["parts"]["workers"]["detail"], "3 of 3 ready")
        until(lambda: "journal      empty\n" in self.running.command("status").out, "the journal")
        lines = self.running.command("status").out.splitlines()
        self.assertIn(f"daemon       ready, process {self.running.pid}, workers 3", lines)
        for worker in self.running.workers():
            [line] = [line for line in lines if line.startswith(f"worker {worker['number']} ")]
            self.assertRegex(line, rf"ready, process {worker['pid']}, since \S+Z, 0 restarts$")
        document = json.loads(self.running.command("status", "--json").out)
        self.assertEqual(document["daemon"], "ready")
        self.assertEqual({worker["pid"] for worker in document["worker_processes"]}, self.workers)

    def test_what_the_settings_hold_is_in_no_command_line_or_environment(self) -> None:
        for pid in self.workers:
            for name in ("cmdline", "environ"):
                self.assertNotIn(self.running.dsn.encode(), Path(f"/proc/{pid}/{name}").read_bytes())


class EndpointTests(ProcessTest):
    """Whatever a port is made of, the workers have it."""

    def accepts(self, connection: http.client.HTTPConnection) -> None:
        self.addCleanup(connection.close)
        fields = f"receiver={RECEIVER.replace('+', '%2B')}&sender={SENDER.lstrip('+')}&message={TEXT_MARKER}"
        connection.request("GET", f"/SMSReceiver?{fields}")
        self.assertEqual(connection.getresponse().status, 200)

    def test_every_kind_of_endpoint_is_served_by_a_workers_successor_too(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as by_systemd:
            running = OnManyEndpoints(self, by_systemd)
            tcp6, unix, proxied, https = running.places()
            path = Path(unix.removeprefix("http+unix:").removesuffix("/SMSReceiver"))
            self.assertEqual(path.stat().st_mode & 0o777, 0o600)
            for _ in range(2):
                self.accepts(http.client.HTTPConnection("::1", port_of(tcp6)))
                self.accepts(OverUnixSocket(path))
                self.accepts(ThroughAProxy("127.0.0.1", port_of(proxied)))
                self.accepts(http.client.HTTPConnection("127.0.0.1", by_systemd.getsockname()[1]))
                context = ssl.create_default_context(cafile=str(running.state_dir / "tls/certificate.pem"))
                self.accepts(http.client.HTTPSConnection("127.0.0.1", port_of(https), context=context))
                replace_workers(running)
        running.stop()
        self.assertFalse(path.exists())


def replace_workers(running: Daemon) -> None:
    """By an ordered stop of each."""
    before = running.worker_pids()
    for pid in before:
        os.kill(pid, signal.SIGTERM)
    until(lambda: len(running.worker_pids() - before) == len(before), "the successors")


def port_of(url: str) -> int:
    found = re.search(r":(\d+)/", url)
    assert found is not None
    return int(found[1])


class ThroughAProxy(http.client.HTTPConnection):
    """As haproxy connects, with a line before everything else."""

    def connect(self) -> None:
        super().connect()
        self.sock.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")


class OverUnixSocket(http.client.HTTPConnection):
    """HTTP on a UNIX socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


class OnManyEndpoints(Daemon):
    """One of them is systemd's: that descriptor is listening already."""

    def __init__(self, test: ProcessTest, by_systemd: socket.socket) -> None:
        http = ["tcp6:0:interface=\\\\:\\\\:1", "unix:sms.sock:mode=600", "haproxy:tcp:0:interface=127.0.0.1"]
        listen = json.dumps([*http, "systemd:domain=INET:index=0"]).replace("\\\\\\\\", "\\\\")
        dsn = make_database()
        test.addCleanup(drop_database, dsn)
        https = '[https]\nlisten = ["tcp:0:interface=127.0.0.1"]\n'
        super().__init__(dsn=dsn, workers=2, listeners=f"[http]\nlisten = {listen}\n{https}")
        self._by_systemd = by_systemd
        test.addCleanup(self.remove)
        # The command is not given systemd's descriptors, and cannot make sense of such an endpoint.
        self.environment["SMSDAEMON_HTTP__LISTEN"] = '["tcp:0"]'
        self.apply(directory())
        del self.environment["SMSDAEMON_HTTP__LISTEN"]
        self.start()

    def places(self) -> tuple[str, str, str, str]:
        """The URLs of its ready line, but for systemd's."""
        [ready] = [line for line in self.log().splitlines() if line.startswith("smsdaemon ready: ")]
        tcp6, unix, proxied, _, https = ready.removeprefix("smsdaemon ready: ").split()
        return tcp6, unix, proxied, https

    def await_ready(self) -> None:
        until(lambda: "smsdaemon ready: " in self.log() or self.ended(), "the ready line")

    def spawn(self) -> None:
        self._logs.append(self.folder / f"twistd-{len(self._logs)}.log")
        command = 'exec 3<&"$1"; shift; LISTEN_FDS=1 LISTEN_FDNAMES=sms LISTEN_PID=$$ exec "$@"'
        descriptor = self._by_systemd.fileno()
        with open(self._logs[-1], "wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", command, "bash", str(descriptor), *TWISTD, "--config", str(self.config)],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[descriptor],
            )
