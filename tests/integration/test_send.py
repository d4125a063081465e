"""`smsdaemon send` against real servers: what it sends, when, and what it says of the answers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, serverFromString
from twisted.internet.interfaces import IListeningPort, ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue

from smsdaemon.cli.load import Load, Plan, Tally
from tests.support.authority import Authority
from tests.support.cases import ReactorTest
from tests.support.daemon import BINARIES
from tests.support.secrets_in_tests import SENDER, TEXT_MARKER, TOKEN, keep

reactor = cast(Any, _reactor)
OK = b"HTTP/1.1 200 OK\r\nSMS-Message-Id: 01a204b0-9a3e-7113-a3ba-95894d2d41a6\r\nContent-Length: 2\r\n\r\nOK"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Reply = Callable[["Server", ITCPTransport, int], object]


def takes_all(_: Server, transport: ITCPTransport, _number: int) -> None:
    transport.write(OK)


class Server(Factory):
    """Speaks just enough HTTP to answer GET requests as a test wants."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.requests: list[bytes] = []
        self.arrived: list[float] = []
        self.connections = 0

    def buildProtocol(self, addr: object) -> Protocol:
        self.connections += 1
        return _Peer(self)


class _Peer(Protocol):
    def __init__(self, server: Server) -> None:
        self._server = server
        self._unread = b""

    def dataReceived(self, data: bytes) -> None:
        self._unread += data
        while b"\r\n\r\n" in self._unread:
            request, _, self._unread = self._unread.partition(b"\r\n\r\n")
            self._server.requests.append(request)
            self._server.arrived.append(time.monotonic())
            self._server.reply(self._server, cast(ITCPTransport, self.transport), len(self._server.requests))


class SendTest(ReactorTest):
    async def serve(
        self, reply: Reply = takes_all, tls: PrivateCertificate | None = None
    ) -> tuple[Server, int]:
        server = Server(reply)
        if tls is None:
            port: IListeningPort = await serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(server)
        else:
            port = reactor.listenSSL(0, server, tls.options(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return server, int(cast(Any, port.getHost()).port)

    async def load(self, port: int, **plan: Any) -> Tally:
        load = Load(
            plan=Plan(**{"request": lambda _: GET, **plan}),
            endpoint=TCP4ClientEndpoint(reactor, "127.0.0.1", port, timeout=5),
            reactor=reactor,
            clock=time.monotonic,
        )
        return await load.run()


class LoadTests(SendTest):
    async def test_the_closed_loop_sends_exactly_the_count_over_its_connections(self) -> None:
        server, port = await self.serve()
        tally = await self.load(port, count=500, connections=7, request=lambda n: b"GET /%d \r\n\r\n" % n)
        self.assertEqual((tally.sent, tally.statuses, len(tally.latencies)), (500, {200: 500}, 500))
        self.assertEqual(sorted(server.requests), sorted(b"GET /%d " % n for n in range(500)))
        self.assertEqual(server.connections, 7)

    async def test_the_open_loop_sends_when_it_is_due_though_nothing_is_answered(self) -> None:
        held: list[ITCPTransport] = []

        def all_at_the_end(server: Server, transport: ITCPTransport, number: int) -> None:
            held.append(transport)
            if number == 20:
                for each in held:
                    each.write(OK)

        server, port = await self.serve(all_at_the_end)
        tally = await self.load(port, count=20, rate=100.0, connections=20)
        self.assertEqual(tally.statuses, {200: 20})
        self.assertGreaterEqual(server.arrived[-1] - server.arrived[0], 0.15)
        # The first was due 190 ms before the answers came, the last just then.
        self.assertGreaterEqual(max(tally.latencies), 0.15)
        self.assertLess(min(tally.latencies), 0.15)

    async def test_a_request_that_waits_for_a_connection_counts_from_when_it_was_due(self) -> None:
        def after_100_ms(_: Server, transport: ITCPTransport, number: int) -> None:
            reactor.callLater(0.1, transport.write, OK)

        _, port = await self.serve(after_100_ms)
        tally = await self.load(port, count=4, rate=1000.0, connections=1)
        for place, latency in enumerate(sorted(tally.latencies), 1):
            self.assertGreaterEqual(latency, 0.1 * place - 0.02)

    async def test_answers_in_pieces_chunked_and_with_other_spelling_are_understood(self) -> None:
        def odd(_: Server, transport: ITCPTransport, number: int) -> None:
            if number % 2:
                transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nno")
                reactor.callLater(0.01, transport.write, b"pe")
            else:
                transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nOK\r\n")
                reactor.callLater(0.01, transport.write, b"0\r\n\r\n")

        server, port = await self.serve(odd)
        tally = await self.load(port, count=6, connections=1)
        self.assertEqual(tally.statuses, {404: 3, 200: 3})
        self.assertEqual(server.connections, 1)

    async def test_a_server_that_closes_after_each_answer_is_connected_to_again(self) -> None:
        def closes(_: Server, transport: ITCPTransport, number: int) -> None:
            transport.write(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            transport.loseConnection()

        server, port = await self.serve(closes)
        tally = await self.load(port, count=30, connections=3)
        self.assertEqual((tally.statuses, tally.errors), ({200: 30}, {}))
        self.assertEqual(server.connections, 30)

    async def test_what_is_lost_refused_or_silent_is_counted_by_its_reason(self) -> None:
        def hangs_up(_: Server, transport: ITCPTransport, number: int) -> None:
            transport.loseConnection()

        _, port = await self.serve(hangs_up)
        tally = await self.load(port, count=3, connections=1)
        self.assertEqual(tally.errors, {"closed without an answer": 3})
        _, port = await self.serve(lambda *_: None)
        tally = await self.load(port, count=3, connections=3, timeout=0.2)
        self.assertEqual(tally.errors, {"timeout": 3})
        tally = await self.load(self.closed_port(), count=5, rate=500.0)
        self.assertEqual((tally.sent, tally.errors.total(), len(tally.latencies)), (5, 5, 0))

    def closed_port(self) -> int:
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        number = int(port.getHost().port)
        port.stopListening()
        return number

    async def test_stopping_gives_what_is_under_way_its_answer(self) -> None:
        def after_100_ms(_: Server, transport: ITCPTransport, number: int) -> None:
            reactor.callLater(0.1, transport.write, OK)

        server, port = await self.serve(after_100_ms)
        load = Load(
            plan=Plan(request=lambda _: GET, rate=200.0, connections=2),
            endpoint=TCP4ClientEndpoint(reactor, "127.0.0.1", port),
            reactor=reactor,
            clock=time.monotonic,
        )
        done = load.run()
        await deferLater(reactor, 0.15)
        load.stop()
        tally = await done
        self.assertEqual(tally.statuses, {200: len(server.requests)})
        self.assertEqual(tally.sent, len(server.requests))


class CommandTests(SendTest):
    async def send(self, port: int, *arguments: str, scheme: str = "http") -> tuple[str, str, int]:
        url = f"{scheme}://127.0.0.1:{port}"
        fixed = ("--receiver", "49123123", "--sender", SENDER, "--text", f"{TEXT_MARKER} ü")
        command = str(BINARIES / "smsdaemon")
        answer: Deferred[tuple[bytes, bytes, int]] = getProcessOutputAndValue(
            command, ["send", "--url", url, *fixed, *arguments], env=None
        )
        out, err, status = await answer
        keep("smsdaemon-send", out + err)
        return out.decode(), err.decode(), status

    async def test_one_sms_shows_status_line_and_id(self) -> None:
        server, port = await self.serve()
        out, err, status = await self.send(port, "--token", TOKEN, "--message-id", "m1")
        self.assertEqual(out, "200 OK\nSMS-Message-Id: 01a204b0-9a3e-7113-a3ba-95894d2d41a6\n")
        self.assertEqual((err, status), ("", 0))
        [request] = server.requests
        for part in (b"receiver=49123123", b"%20%C3%BC", TOKEN.encode(), b"message_id=m1"):
            self.assertIn(part, request)

    async def test_anything_but_200_is_a_failure(self) -> None:
        def refuses(_: Server, transport: ITCPTransport, number: int) -> None:
            transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 18\r\n\r\nno such receiver\r\n")

        _, port = await self.serve(refuses)
        self.assertEqual(await self.send(port), ("404 no such receiver\n", "", 1))
        out, _, status = await self.send(port, "--count", "3", "--json")
        self.assertEqual((json.loads(out)["statuses"], status), ({"404": 3}, 1))

    async def test_an_answer_forges_no_line_and_steers_no_terminal(self) -> None:
        body = "\x1b[2J ü\r\nSMS-Message-Id: 1".encode()

        def evil(_: Server, transport: ITCPTransport, number: int) -> None:
            transport.write(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

        _, port = await self.serve(evil)
        out, _, _ = await self.send(port)
        self.assertEqual(out, r"400 \x1b[2J ü\r\nSMS-Message-Id: 1" + "\n")

    async def test_a_server_that_is_not_there_is_one_line(self) -> None:
        _, port = await self.serve()
        out, err, status = await self.send(port, "--insecure", "--timeout", "2", scheme="https")
        self.assertEqual((out, status), ("", 1))
        self.assertRegex(err, r"\Asmsdaemon: no answer: .+\n\Z")

    async def test_many_are_counted_and_their_latencies_told(self) -> None:
        server, port = await self.serve()
        out, err, status = await self.send(port, "--count", "50", "--rate", "500", "--json")
        summary = json.loads(out)
        self.assertEqual((status, err, len(server.requests)), (0, "", 50))
        self.assertEqual((summary["sent"], summary["statuses"], summary["errors"]), (50, {"200": 50}, {}))
        self.assertLessEqual(summary["p50_ms"], summary["p99_ms"])
        out, _, status = await self.send(port, "--count", "10")
        self.assertEqual(status, 0)
        self.assertIn("sent 10; answers 200: 10; errors none; answered/s", out)

    async def test_a_certificate_is_verified_unless_told_otherwise(self) -> None:
        _, port = await self.serve(tls=Authority().server(["127.0.0.1"]))
        out, err, status = await self.send(port, scheme="https")
        self.assertEqual(
            (out, err, status), ("", "smsdaemon: no answer: TLS: certificate verify failed\n", 1)
        )
        out, _, status = await self.send(port, "--insecure", scheme="https")
        self.assertEqual((out.splitlines()[0], status), ("200 OK", 0))

    async def test_wrong_usage_is_status_2_and_sends_nothing(self) -> None:
        server, port = await self.serve()
        for wrong in (
            ("--rate", "0"),
            ("--method", "put"),
            ("--url", "nonsense"),
            ("--token", "@/does/not/exist"),
        ):
            _, err, status = await self.send(port, *wrong)
            self.assertEqual(status, 2, wrong)
            self.assertIn("Error: ", err)
        self.assertEqual(server.requests, [])
