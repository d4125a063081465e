"""Peers of ``/SMSReceiver`` that are slow, silent, gone, or speak no HTTP; and what the log says then."""

from __future__ import annotations

from urllib.parse import quote

from twisted.internet.task import Clock

from smsdaemon.errors import StoreUnavailable, TokenRefused
from smsdaemon.web.bounded import Bounds
from smsdaemon.web.receiver import Receiver
from tests.support.authority import Authority
from tests.support.pages import FORM, GOOD, PagesTest, every_way, get, post
from tests.support.raw_peer import RawPeer, eventually
from tests.support.receivers import FailingReceiver, RecordingReceiver, Served, SilentReceiver


class BadPeerTests(PagesTest):
    async def test_what_is_no_http_is_400_without_a_traceback(self) -> None:
        lines = self.log_lines()
        served = Served(self, RecordingReceiver())
        broken = [
            b"GET /SMSReceiver\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
            b"GET  /SMSReceiver HTTP/1.1\r\n\r\n",
            b"GET /SMSReceiver?message=not escaped HTTP/1.1\r\n\r\n",
            b"G(T /SMSReceiver HTTP/1.1\r\n\r\n",
            b"GET /SMSReceiver HTTP/2.0\r\n\r\n",
            b"GET /SMSReceiver?\x01 HTTP/1.1\r\n\r\n",
            get("/SMSReceiver", "no colon here"),
            get("/SMSReceiver", "Bad Name: x"),
            get("/SMSReceiver", "X: a\x00b"),
            get("/SMSReceiver", "Content-Length: x", method="POST"),
            get("/SMSReceiver", "Content-Length: -1", method="POST"),
            get("/SMSReceiver", "Content-Length: 1", "Content-Length: 2", method="POST"),
            get("/SMSReceiver", "Content-Length: 1", "Transfer-Encoding: chunked", method="POST"),
            get("/SMSReceiver", "Content-Length: " + "9" * 5000, method="POST"),
            get("/SMSReceiver", "Transfer-Encoding: gzip", method="POST"),
            get("/SMSReceiver", "Transfer-Encoding: chunked", method="POST") + b"zz\r\n",
            get("/SMSReceiver", "Transfer-Encoding: chunked", method="POST") + b"1\r\nxyz",
            get("/SMSReceiver", *["X: x"] * 501),
            get("/SMSReceiver", "X: " + "x" * 100_000),
            b"GET /SMSReceiver HTTP/1.1\r\nX: " + b"x" * 100_000,
            get("/SMSReceiver", *["X: " + "x" * 10_000] * 50),
        ]
        for request in broken:
            peer = await self.peer(served)
            peer.send(request)
            response = (await peer.answers(1))[0]
            self.assertEqual(
                (response.status, response.body), (400, b"this is not valid HTTP\n"), request[:90]
            )
            await peer.end()
        self.assertEqual(served.observed, [400] * len(broken))
        self.assertEqual([line for line in lines if "Traceback" in line], [])

    async def test_over_tls_every_refusal_can_be_read_too(self) -> None:
        authority = Authority()
        certificate = authority.server(["127.0.0.1"]).options()
        bounds = Bounds(swallowing_seconds=0.2)
        served = Served(self, RecordingReceiver(), bounds=bounds, tls=certificate)
        for request, status in (
            (post(FORM, b"x" * 900_000), 413),
            (get("/SMSReceiver", "Content-Length: 1000000", method="POST"), 413),
            (b"GET /SMSReceiver?" + b"x" * 500_000, 414),
            (b"nonsense\r\n\r\n" + b"x" * 500_000, 400),
            (get(f"/SMSReceiver?{GOOD}", "Connection: close"), 200),
        ):
            peer = await RawPeer.connect(served.port, authority.trust_root())
            self.addCleanup(peer.close)
            self.assertEqual((await peer.ask(request)).status, status)
            await peer.end()

    async def test_what_follows_a_broken_request_is_not_read(self) -> None:
        receiver = RecordingReceiver()
        peer = await self.peer(Served(self, receiver))
        peer.send(b"nonsense\r\n\r\n" + get())
        await peer.end()
        self.assertEqual((await peer.answers(1))[0].status, 400)
        self.assertEqual(receiver.submissions, [])

    async def test_a_request_that_does_not_come_to_an_end_is_closed(self) -> None:
        served = Served(self, RecordingReceiver(), bounds=Bounds(request_seconds=0.3))
        unfinished = post(FORM, b"x" * 1000)[:-900]
        for start in (get()[:-2], unfinished, b"G", get("/SMSReceiver")[:20]):
            peer = await self.peer(served)
            peer.send(start)
            while not peer.closed:
                peer.send(b"x")
                before = served.site.clock.seconds()
                await eventually(lambda p=peer, t=before: p.closed or served.site.clock.seconds() > t + 0.02)  # type: ignore[misc]
            self.assertEqual(peer.received, b"", start)

    async def test_the_time_for_one_request_is_not_that_of_the_connection(self) -> None:
        served = Served(self, RecordingReceiver(), bounds=Bounds(request_seconds=0.2))
        peer = await self.peer(served)
        start = served.site.clock.seconds()
        while served.site.clock.seconds() < start + 0.6:
            peer.send(get()[:20])
            self.assertEqual((await peer.ask(get()[20:])).status, 200)
        self.assertFalse(peer.closed)

    async def test_an_idle_connection_is_closed(self) -> None:
        served = Served(self, RecordingReceiver(), bounds=Bounds(idle_seconds=0.2))
        silent, spoke = await self.peer(served), await self.peer(served)
        await spoke.ask(get())
        await eventually(lambda: silent.closed and spoke.closed)

    async def test_a_request_that_is_being_stored_is_not_idle(self) -> None:
        receiver = SilentReceiver()
        served = Served(self, receiver, bounds=Bounds(idle_seconds=0.1, request_seconds=0.1))
        peer = await self.peer(served)
        peer.send(get())
        start = served.site.clock.seconds()
        await eventually(lambda: receiver.waiting and served.site.clock.seconds() > start + 0.4)
        receiver.answer()
        self.assertEqual((await peer.answers(1))[0].status, 200)

    async def test_a_store_that_does_not_answer_is_500_in_time_and_not_cancelled(self) -> None:
        clock, receiver = Clock(), SilentReceiver()
        served = Served(self, receiver, clock=clock)
        peer = await self.peer(served)
        peer.send(get())
        await eventually(lambda: receiver.waiting)
        clock.advance(4.8)
        self.assertEqual(peer.received, b"")
        clock.advance(0.2)
        response = (await peer.answers(1))[0]
        self.assertEqual((response.status, response.headers["retry-after"]), (500, "5"))
        self.assertEqual(receiver.cancelled, [])
        receiver.answer()
        self.assertEqual((await peer.ask(get("/SMSReceiver"))).status, 400, "the late answer goes nowhere")

    async def test_peers_that_hang_up_leave_no_errors_and_cancel_nothing(self) -> None:
        receiver = SilentReceiver()
        served = Served(self, receiver)
        lines = self.log_lines()
        for n in range(200):
            peer = await self.peer(served)
            request = (get(), post(FORM, GOOD.encode()), get(f"/SMS%52eceiver?{GOOD}"))[n // 3 % 3]
            peer.send(request if n % 3 else request[: -n % len(request)])
            if n % 3:
                await eventually(lambda n=n: len(receiver.submissions) == _asked(n))  # type: ignore[misc]
            (peer.abort if n % 5 else peer.close)()
            await eventually(lambda: served.site.open() == 0)
        self.assertEqual(receiver.cancelled, [])
        receiver.answer()
        self.assertEqual([line for line in lines if "factory" not in line], [])
        peer = await self.peer(served)
        peer.send(get())
        await eventually(lambda: receiver.waiting)
        receiver.answer()
        self.assertEqual((await peer.answers(1))[0].status, 200)

    async def test_nothing_logs_a_token(self) -> None:
        lines = self.log_lines()
        secret = "s3cr3tT0ken"
        errors = TokenRefused("wrong token"), StoreUnavailable("away"), KeyError("bug")
        receivers: list[Receiver] = [RecordingReceiver(), *map(FailingReceiver, errors)]
        for receiver in receivers:
            served = Served(self, receiver)
            query = f"{GOOD}&token={secret}"
            for request in (
                *every_way({"receiver": "1", "sender": "2", "message": "3", "token": secret}).values(),
                get(f"/SMSReceiver?{query}", method="HEAD"),
                get(f"/SMSReceiver?{query}", method="PUT"),
                get(f"/other?{query}"),
                get(f"/SMSReceiver?token={secret}"),
                get(f"/SMSReceiver?{query}", "Host: \x80"),
                get(f"/SMSReceiver?{query}", "no colon"),
                get(f"/SMSReceiver?token={secret * 2000}"),
                get(f"/SMSReceiver?token={secret * 20_000}"),
                post(FORM, f"token={secret}".encode() * 5000),
                post("application/json", f'{{"token":"{secret}"'.encode()),
                post("multipart/form-data; boundary=b", f"--b\r\ntoken: {secret}".encode()),
            ):
                peer = await self.peer(served)
                peer.send(request)
                await eventually(lambda p=peer: p.received)  # type: ignore[misc]
                self.assertNotIn(secret.encode(), peer.received)
                peer.abort()
        self.flushLoggedErrors(KeyError)
        self.assertTrue(any("incident" in line for line in lines), "the log was watched")
        self.assertEqual([line for line in lines if secret in line or quote(GOOD) in line], [])


def _asked(n: int) -> int:
    """How many of the requests 0 … n were sent to their end."""
    return sum(1 for i in range(n + 1) if i % 3)
