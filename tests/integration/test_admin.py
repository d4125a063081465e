"""The admin listener over real HTTP."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import Agent, readBody
from twisted.web.http_headers import Headers
from twisted.web.server import Site

from smsdaemon.errors import StoreUnavailable
from smsdaemon.metrics import Gauges, Metrics
from smsdaemon.web.admin import REFRESH_SECONDS, Condition, admin_resource
from tests.support.cases import ReactorTest
from tests.support.deliveries import RECEIVED_AT
from tests.support.peers import listen

reactor: Any = _reactor


class AdminTests(ReactorTest):
    def setUp(self) -> None:
        self.metrics = Metrics()
        self.gauges = Gauges(lambda: RECEIVED_AT, self.metrics.registry)
        self.ready = True
        self.parts = {"database": Condition(True, "PostgreSQL 18.1"), "journal": Condition(True, "")}
        self.refreshes: list[Deferred[None]] = []
        self.clock = Clock()
        self.refresh_at_once = True
        self.journaled = 0
        self.port = self.serve(hosts=["sms.example.com", "192.0.2.1"])

    def serve(self, hosts: list[str]) -> int:
        resource = admin_resource(gauges=self.gauges, health=self, hosts=hosts, timer=self.clock)
        return listen(self, Site(resource))

    # The test itself is what the pages ask: web.admin.Health.

    def accepts(self) -> bool:
        return self.ready

    def conditions(self) -> dict[str, Condition]:
        return self.parts

    def show(self) -> None:
        self.gauges.journal(pending=self.journaled, aside=0)

    async def count(self) -> None:
        counted: Deferred[None] = Deferred()
        self.refreshes.append(counted)
        if self.refresh_at_once:
            counted.callback(None)
        await counted
        self.gauges.queue(pending=len(self.refreshes), leased=0, dead=0, oldest_pending_seconds=0)

    async def ask(
        self, path: str, *, method: str = "GET", host: str | None = None, port: int | None = None
    ) -> tuple[int, Headers, bytes]:
        headers = Headers({"Host": [host]}) if host is not None else Headers()
        url = f"http://127.0.0.1:{port or self.port}{path}"
        response = await Agent(reactor).request(method.encode(), url.encode(), headers)
        return response.code, response.headers, await readBody(response)

    async def status(self, path: str, **how: Any) -> int:
        return (await self.ask(path, **how))[0]

    # --- health -------------------------------------------------------------------------------

    async def test_live_is_200_whatever_the_parts_say(self) -> None:
        self.parts["database"] = Condition(False, "away")
        status, headers, body = await self.ask("/health/live")
        self.assertEqual((status, json.loads(body)), (200, {"status": "live"}))
        self.assertEqual(headers.getRawHeaders("content-type"), ["application/json"])

    async def test_ready_shows_every_part_and_is_503_exactly_while_nothing_can_be_accepted(self) -> None:
        status, _, body = await self.ask("/health/ready")
        self.assertEqual(status, 200)
        self.assertEqual(
            json.loads(body),
            {
                "status": "ready",
                "parts": {
                    "database": {"ready": True, "detail": "PostgreSQL 18.1"},
                    "journal": {"ready": True, "detail": ""},
                },
            },
        )
        self.parts["database"] = Condition(False, "away")
        for self.ready, expected in ((True, (200, "ready")), (False, (503, "not ready"))):
            status, _, body = await self.ask("/health/ready")
            document = json.loads(body)
            self.assertEqual((status, document["status"]), expected)
            self.assertEqual(document["parts"]["database"], {"ready": False, "detail": "away"})

    # --- metrics ------------------------------------------------------------------------------

    async def test_metrics_are_prometheus_text_with_fresh_gauges(self) -> None:
        self.metrics.accepted()
        for scrape in (1, 2):
            status, headers, body = await self.ask("/metrics")
            self.assertEqual(status, 200)
            self.assertIn(b"\nsmsdaemon_messages_accepted_total 1.0\n", body)
            self.assertIn(b'smsdaemon_queue_messages{state="pending"} %d.0\n' % scrape, body)
        [content_type] = headers.getRawHeaders("content-type") or []
        self.assertTrue(content_type.startswith("text/plain; version=0.0.4"), content_type)

    async def test_scrapes_at_once_share_one_refresh(self) -> None:
        self.refresh_at_once = False
        scrapes = [Deferred.fromCoroutine(self.ask("/metrics")) for _ in range(3)]
        while len(self.clock.getDelayedCalls()) < 3:
            await pause()
        [counted] = self.refreshes
        counted.callback(None)
        for status, _, body in await gatherResults(scrapes):
            self.assertEqual(status, 200)
            self.assertIn(b'state="pending"} 1.0', body)

    async def test_a_count_that_hangs_freezes_only_what_it_sets_and_is_waited_for_in_vain_once(self) -> None:
        await self.ask("/metrics")
        self.refresh_at_once = False
        for self.journaled in (7, 8):
            scrape = Deferred.fromCoroutine(self.ask("/metrics"))
            while not self.clock.getDelayedCalls():
                await pause()
            self.clock.advance(REFRESH_SECONDS)
            status, _, body = await scrape
            self.assertEqual(status, 200)
            self.assertIn(b'state="pending"} 1.0', body)
            self.assertIn(b"smsdaemon_journal_messages %d.0" % self.journaled, body)
        self.assertEqual(len(self.refreshes), 2, "a second one was begun beside the first")
        self.refreshes[-1].callback(None)
        self.refresh_at_once = True
        self.assertIn(b'state="pending"} 3.0', (await self.ask("/metrics"))[2])

    async def test_a_refresh_that_fails_leaves_the_old_values(self) -> None:
        self.refresh_at_once = False
        scrape = Deferred.fromCoroutine(self.ask("/metrics"))
        while not self.refreshes:
            await pause()
        self.refreshes[0].errback(StoreUnavailable("PostgreSQL is away"))
        status, _, body = await scrape
        self.assertEqual(status, 200)
        self.assertNotIn(b"state=", body)

    # --- what is refused ------------------------------------------------------------------------

    async def test_every_other_path_is_404(self) -> None:
        for path in (
            "/",
            "/health",
            "/health/ready/x",
            "/metrics/x",
            "/SMSReceiver",
            "/%ff",
            "/..%2fmetrics",
        ):
            self.assertEqual(await self.status(path), 404, path)

    async def test_odd_requests_are_refused_without_a_traceback(self) -> None:
        for line in (
            b"\xff /metrics HTTP/1.1",
            b"GET /metri\xffcs HTTP/1.1",
            b"GET //[ HTTP/1.1",
            b"G%T * HTTP/1.1",
        ):
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
            peer = await connectProtocol(endpoint, Listening())
            peer.say(line + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            self.assertRegex(await peer.heard, rb"^HTTP/1.1 4\d\d ")

    async def test_only_get_and_head_are_taken(self) -> None:
        for path in ("/metrics", "/health/live", "/health/ready"):
            for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
                status, headers, _ = await self.ask(path, method=method)
                self.assertEqual(status, 405)
                [allowed] = headers.getRawHeaders("allow") or []
                self.assertEqual(sorted(allowed.split(", ")), ["GET", "HEAD"])
            status, _, body = await self.ask(path, method="HEAD")
            self.assertEqual((status, body), (200, b""))

    async def test_it_answers_to_loopback_and_its_own_names_only(self) -> None:
        for host in (
            "127.0.0.1:1",
            "127.9.9.9",
            "localhost:8081",
            "LOCALHOST",
            "[::1]:8081",
            "sms.example.com",
            "192.0.2.1:80",
        ):
            self.assertEqual(await self.status("/health/live", host=host), 200, host)
        for host in (
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "192.0.2.2",
            "[2001:db8::1]",
            "",
            "@",
            "[",
            "[]",
        ):
            for path in ("/metrics", "/health/live", "/", "/nothing"):
                self.assertEqual(await self.status(path, host=host), 421, host)
        self.assertEqual(self.refreshes, [])

    async def test_where_it_listens_everywhere_every_address_is_its_own_but_no_name(self) -> None:
        for wildcard in ("", "0.0.0.0", "::"):
            port = self.serve(hosts=[wildcard])
            for host in ("192.0.2.2:8081", "[2001:db8::1]"):
                self.assertEqual(await self.status("/health/live", host=host, port=port), 200)
            for host in ("evil.example", ""):
                self.assertEqual(await self.status("/health/live", host=host, port=port), 421)

    async def test_nothing_is_to_be_cached(self) -> None:
        for path in ("/metrics", "/health/live", "/health/ready", "/nothing"):
            _, headers, _ = await self.ask(path)
            self.assertEqual(headers.getRawHeaders("cache-control"), ["no-store"])


class Listening(Protocol):
    """Says something and keeps what it hears until the other side closes."""

    def __init__(self) -> None:
        self._heard = b""
        self.heard: Deferred[bytes] = Deferred()

    def say(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        self._heard += data

    def connectionLost(self, reason: Failure = Failure(ConnectionError())) -> None:  # noqa: B008
        self.heard.callback(self._heard)


def pause() -> Deferred[None]:
    """A turn of the reactor, for loops that wait for a condition."""
    d: Deferred[None] = Deferred()
    reactor.callLater(0.001, d.callback, None)
    return d
