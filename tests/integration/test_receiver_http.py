"""``/SMSReceiver`` over real sockets: what is taken, every status, their order, and the formats."""

from __future__ import annotations

import json
from itertools import product
from socket import create_connection
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.web.client import Agent, readBody
from twisted.web.http_headers import Headers

from smsdaemon.errors import (
    MalformedRequest,
    NotRoutable,
    StoreRefused,
    StoreUnavailable,
    TokenRefused,
    UnknownConnector,
)
from smsdaemon.web.bounded import Bounds
from tests.support.pages import FORM, GOOD, PagesTest, every_way, get, multipart, post
from tests.support.raw_peer import RawPeer, eventually
from tests.support.receivers import MESSAGE_ID, FailingReceiver, RecordingReceiver, Served, SilentReceiver

reactor: Any = _reactor


class AcceptingTests(PagesTest):
    async def test_every_way_of_sending_and_every_alias_is_taken(self) -> None:
        receiver = RecordingReceiver()
        peer = await self.peer(Served(self, receiver))
        names = product(
            ("receiver", "ziel", "SYSTEM"), ("sender", "Absender"), ("message", "data", "smstext")
        )
        for number, sender, message in names:
            for way, request in every_way(
                {number: "+49123123", sender: "+49789789", message: "Grüße"}
            ).items():
                response = await peer.ask(request)
                self.assertEqual((response.status, response.body), (200, b"OK"), way)
                got = receiver.submissions.pop()
                self.assertEqual(
                    (got.receiver, got.sender, got.text), ("+49123123", "+49789789", "Grüße"), way
                )

    async def test_a_200_has_the_id_and_says_ok(self) -> None:
        response = await self.ask(RecordingReceiver(), get())
        self.assertEqual(response.body, b"OK")
        self.assertEqual(response.headers["sms-message-id"], str(MESSAGE_ID))
        self.assertEqual(response.headers["content-type"], "text/plain; charset=utf-8")
        self.assertEqual(response.headers["cache-control"], "no-store")
        self.assertNotIn("server", response.headers)

    async def test_twisteds_own_client_is_served_on_one_connection(self) -> None:
        receiver = RecordingReceiver()
        served = Served(self, receiver)
        for _ in range(3):
            url = f"http://127.0.0.1:{served.port}/SMSReceiver?{GOOD}".encode()
            response = await Agent(reactor).request(b"GET", url, Headers({b"Accept": [b"application/json"]}))
            self.assertEqual(json.loads(await readBody(response)), {"status": "OK", "id": str(MESSAGE_ID)})
        self.assertEqual(len(receiver.submissions), 3)

    async def test_raw_bytes_in_a_url_are_read_as_if_they_were_escaped(self) -> None:
        receiver = RecordingReceiver()
        peer = await self.peer(Served(self, receiver))
        for raw in ("Grüße".encode(), "Grüße".encode("latin-1")):
            request = get("/SMSReceiver?receiver=1&sender=2&message=@").replace(b"@", raw)
            self.assertEqual((await peer.ask(request)).status, 200)
            self.assertEqual(receiver.submissions.pop().text, "Grüße")

    async def test_the_target_may_be_a_whole_url(self) -> None:
        response = await self.ask(RecordingReceiver(), get(f"http://x:80/SMSReceiver?{GOOD}"))
        self.assertEqual(response.status, 200)

    async def test_requests_sent_ahead_are_answered_in_order(self) -> None:
        receiver = SilentReceiver()
        peer = await self.peer(Served(self, receiver))
        requests = [get(f"/SMSReceiver?receiver=1&sender=2&message={n}") for n in range(50)]
        requests.insert(25, get("/nothing"))
        peer.send(b"".join(requests))
        for n in range(50):
            await eventually(lambda: receiver.waiting)
            self.assertEqual([s.text for s in receiver.submissions], [str(i) for i in range(n + 1)])
            receiver.answer()
        statuses = [response.status for response in await peer.answers(51)]
        self.assertEqual(statuses, [200] * 25 + [404] + [200] * 25)

    async def test_thousands_of_requests_sent_ahead_use_no_more_memory_than_a_few(self) -> None:
        receiver = SilentReceiver()
        served = Served(self, receiver)
        peer = await self.peer(served)
        peer.send(get() * 100_000)
        await eventually(lambda: receiver.waiting)
        channel = served.site.channels[0]
        await eventually(lambda: channel.transport not in reactor.getReaders())
        self.assertLess(sum(map(len, channel._dataBuffer)), 200_000)
        peer.abort()
        while served.site.open():
            receiver.answer()
            await deferLater(reactor, 0, lambda: None)
        receiver.answer()

    async def test_bodies_come_in_chunks_and_bytes(self) -> None:
        receiver = RecordingReceiver()
        peer = await self.peer(Served(self, receiver))
        chunks = b"".join(b"1;x=y\r\n%c\r\n" % byte for byte in GOOD.encode()) + b"0\r\nTrailer: x\r\n\r\n"
        request = get("/SMSReceiver", "Transfer-Encoding: chunked", method="POST") + chunks
        for byte in request:
            peer.send(bytes([byte]))
        self.assertEqual([response.status for response in await peer.answers(1)], [200])
        self.assertEqual((await peer.ask(request)).status, 200)
        self.assertEqual([s.text for s in receiver.submissions], ["This is a test"] * 2)

    async def test_100_continue_is_said_where_the_body_will_be_read(self) -> None:
        peer = await self.peer(Served(self, RecordingReceiver()))
        peer.send(post(FORM, b"", "Expect: 100-continue").replace(b"Length: 0", b"Length: 62"))
        await eventually(lambda: peer.received)
        self.assertEqual(peer.received, b"HTTP/1.1 100 Continue\r\n\r\n")
        peer.received = b""
        self.assertEqual((await peer.ask(GOOD.encode())).status, 200)

    async def test_http_1_0_and_connection_close_end_the_connection(self) -> None:
        served = Served(self, RecordingReceiver())
        for request in (
            get().replace(b"HTTP/1.1", b"HTTP/1.0"),
            get(f"/SMSReceiver?{GOOD}", "Connection: close"),
        ):
            peer = await self.peer(served)
            response = await peer.ask(request)
            self.assertEqual((response.status, response.headers["connection"]), (200, "close"))
            await peer.end()


class StatusTests(PagesTest):
    async def test_each_error_of_the_receiver_has_its_status(self) -> None:
        for error, status, header in (
            (UnknownConnector("no such"), 404, None),
            (TokenRefused("wrong token"), 401, ("www-authenticate", 'Token realm="SMSReceiver"')),
            (NotRoutable("disabled"), 502, None),
            (MalformedRequest("odd"), 400, None),
        ):
            response = await self.ask(FailingReceiver(error), get())
            self.assertEqual((response.status, response.body), (status, f"{error}\n".encode()))
            if header is not None:
                self.assertEqual(response.headers[header[0]], header[1])

    async def test_what_our_side_cannot_do_names_no_internals_and_invites_a_repeat(self) -> None:
        for error in (StoreUnavailable("host=db1 refused"), StoreRefused("column x")):
            response = await self.ask(FailingReceiver(error), get())
            self.assertEqual(response.status, 500)
            self.assertEqual(response.headers["retry-after"], "5")
            self.assertEqual(response.body, b"the SMS was not stored, please send it again\n")

    async def test_a_bug_is_answered_with_an_incident_that_the_log_has_too(self) -> None:
        for at_once in (False, True):
            lines = self.log_lines()
            response = await self.ask(FailingReceiver(ZeroDivisionError("a bug"), at_once=at_once), get())
            self.assertEqual((response.status, response.headers["retry-after"]), (500, "5"))
            incident = response.body.split(b"incident ")[1].split(b")")[0].decode()
            self.assertEqual(response.body.count(b"\n"), 1)
            self.assertTrue(any(incident in line and "ZeroDivisionError" in line for line in lines))
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_an_url_is_too_long_from_its_first_byte_too_many(self) -> None:
        for length, status in ((16384, 200), (16385, 414), (40_000, 414), (60_000, 414)):
            target = f"/SMSReceiver?{GOOD}&x=".ljust(length, "x")
            self.assertEqual((await self.ask(RecordingReceiver(), get(target))).status, status, str(length))

    async def test_an_url_without_end_is_answered_too(self) -> None:
        served = Served(self, RecordingReceiver())
        peer = await self.peer(served)
        peer.send(b"GET /SMSReceiver?" + b"x" * 300_000)
        response = (await peer.answers(1))[0]
        self.assertEqual((response.status, response.headers["connection"]), (414, "close"))
        self.assertEqual(served.observed, [414])
        await peer.end()

    async def test_only_get_and_post_are_allowed_and_others_store_nothing(self) -> None:
        receiver = RecordingReceiver()
        peer = await self.peer(Served(self, receiver))
        for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get", "FETCH"):
            response = await peer.ask(get(method=method))
            self.assertEqual((response.status, response.headers["allow"]), (405, "GET, POST"), method)
            response = await peer.ask(post(FORM, GOOD.encode()).replace(b"POST", method.encode(), 1))
            self.assertEqual(response.status, 405, method)
        self.assertEqual(receiver.submissions, [])

    async def test_an_answer_to_head_has_no_body(self) -> None:
        receiver = RecordingReceiver()
        peer = await self.peer(Served(self, receiver))
        peer.send(get(method="HEAD") + get())
        await eventually(lambda: receiver.submissions)
        await eventually(lambda: peer.received.endswith(b"OK"))
        head, _, rest = peer.received.partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 405 "), head)
        self.assertIn(b"Content-Length: ", head)
        self.assertTrue(rest.startswith(b"HTTP/1.1 200 OK\r\n"), rest)

    async def test_a_body_is_too_large_from_its_first_byte_too_many(self) -> None:
        for size, status in ((65536, 200), (65537, 413)):
            body = GOOD.encode().ljust(size, b"x")
            self.assertEqual((await self.ask(RecordingReceiver(), post(FORM, body))).status, status)
            chunked = get("/SMSReceiver", "Transfer-Encoding: chunked", method="POST")
            chunked += b"%x\r\n%s\r\n0\r\n\r\n" % (size, body)
            self.assertEqual((await self.ask(RecordingReceiver(), chunked)).status, status)

    async def test_a_body_that_is_announced_too_large_is_answered_before_it_comes(self) -> None:
        for size in (65537, 10**12, 10**4000):
            served = Served(self, RecordingReceiver(), bounds=Bounds(swallowing_seconds=30))
            for headers in (("Expect: 100-continue",), ()):
                peer = await self.peer(served)
                peer.send(get("/SMSReceiver", f"Content-Length: {size}", *headers, method="POST"))
                response = (await peer.answers(1))[0]
                self.assertEqual((response.status, response.headers["connection"]), (413, "close"))
                await peer.end()  # at once: the server's half of the connection is closed
            self.assertEqual(served.observed, [413, 413])

    async def test_a_peer_that_sends_on_gets_to_read_the_413(self) -> None:
        served = Served(self, RecordingReceiver())
        for excess in (1000, 900_000):
            peer = await self.peer(served)
            response = await peer.ask(post(FORM, b"x" * (65536 + excess)))
            self.assertEqual(response.status, 413)

    async def test_a_peer_that_sends_on_after_the_413_is_not_reset(self) -> None:
        served = Served(self, RecordingReceiver(), bounds=Bounds(swallowing_seconds=30))
        head = get("/SMSReceiver", "Content-Length: 1000000", method="POST")

        def send_on() -> bytes:
            with create_connection(("127.0.0.1", served.port), timeout=20) as connection:
                connection.sendall(head)
                answer = b""
                while data := connection.recv(65536):
                    answer += data
                for _ in range(100):  # a reset of the first would fail the second
                    connection.sendall(b"x" * 5000)
                return answer

        self.assertIn(b" 413 ", await deferToThread(send_on))

    async def test_a_peer_that_sends_on_for_ever_is_cut_off(self) -> None:
        served = Served(self, RecordingReceiver(), bounds=Bounds(swallowing_seconds=30))
        peer = await self.peer(served)
        peer.send(get("/SMSReceiver", "Transfer-Encoding: chunked", method="POST"))
        peer.transport.registerProducer(_Endless(peer), False)
        await eventually(lambda: served.observed == [413] and served.site.open() == 0)

    async def test_unknown_body_types_are_415_and_unreadable_bodies_400(self) -> None:
        peer = await self.peer(Served(self, RecordingReceiver()))
        for request, status in (
            (post("text/xml", b"<sms/>"), 415),
            (post(FORM, GOOD.encode(), "Content-Encoding: gzip"), 415),
            (post("application/json", b"{"), 400),
            (post("application/json", b'{"a":' * 10_000), 400),
            (post("multipart/form-data", multipart({"receiver": "1"})), 400),
            (post(FORM, b"receiver=1"), 400),
            (get("/SMSReceiver"), 400),
            (get("/SMSReceiver?" + "&".join(f"x{n}=" for n in range(101))), 400),
            (get(f"/SMSReceiver?{GOOD}&keyword={'x' * 65}"), 400),
        ):
            self.assertEqual((await peer.ask(request)).status, status, request[:200])

    async def test_the_error_that_is_first_in_the_table_is_the_answer(self) -> None:
        """Each pair of neighbours, and what else can apply at once."""
        long_target = f"/SMSReceiver?{GOOD}".ljust(16385, "x")
        large = b"x" * 65537
        for request, status in (
            (get(long_target, method="PUT"), 414),
            (post(FORM, large, target=long_target), 414),
            (post("text/xml", b"x", target=long_target), 414),
            (post(FORM, large).replace(b"POST", b"PUT", 1), 405),
            (post("text/xml", b"x").replace(b"POST", b"PUT", 1), 405),
            (get("/SMSReceiver", method="PUT"), 405),
            (post("text/xml", large), 413),
            (post(FORM, large), 413),
            (post("text/xml", b"x"), 415),
            (post("text/xml", b"x", target="/SMSReceiver?" + "&".join(["x"] * 101)), 415),
            (post("application/json", b"{", target=f"/SMSReceiver?{GOOD}"), 400),
            (get(), 404),
        ):
            response = await self.ask(FailingReceiver(UnknownConnector("no such")), request)
            self.assertEqual(response.status, status, request[:100])

    async def test_other_paths_lead_nowhere(self) -> None:
        receiver = RecordingReceiver()
        peer = await self.peer(Served(self, receiver))
        near = ("/SMSReceiver/", "//SMSReceiver", "/smsreceiver", "/SMSReceiver/twilio", "/x/SMSReceiver",
                "/SMSReceiver;x", "/SMSReceiver%00", "/SMSReceiver#x", "//health/ready")  # fmt: skip
        far = ("/", "*", "/..", "/\\", "/<x>", "/%ff%fe", "http://x", "x", "/%", "/%2e%2e/x")
        for path in (*near, *far):
            for method in ("GET", "POST", "PUT"):
                request = get(f"{path}?{GOOD}", method=method).replace(b"Host: x", b"Host: ..\xfc\x80")
                response = await peer.ask(request)
                self.assertEqual((response.status, response.body), (404, b"there is no such page\n"), path)
        self.assertEqual(receiver.submissions, [])
        self.assertEqual(self.flushWarnings(), [], "each was answered once")

    async def test_health_is_200_or_503_without_detail(self) -> None:
        served = Served(self, RecordingReceiver())
        peer = await self.peer(served)
        response = await peer.ask(get("/health/ready"))
        self.assertEqual((response.status, response.body), (200, b"ready\n"))
        served.ready = False
        response = await peer.ask(get("/health/ready?x"))
        self.assertEqual((response.status, response.body), (503, b"not ready\n"))
        response = await peer.ask(get("/health/ready", method="PUT"))
        self.assertEqual((response.status, response.headers["allow"]), (405, "GET, HEAD"))
        self.assertEqual(served.observed, [], "load balancers are no providers")

    async def test_every_answer_is_observed_once(self) -> None:
        served = Served(self, RecordingReceiver())
        peer = await self.peer(served)
        for request in (get(), get("/SMSReceiver"), get(method="PUT"), post("text/xml", b"x")):
            await peer.ask(request)
        self.assertEqual(served.observed, [200, 400, 405, 415])


class FormatTests(PagesTest):
    async def test_json_is_for_those_who_ask_for_it(self) -> None:
        peer = await self.peer(Served(self, RecordingReceiver()))
        for accept, as_json in (
            ("application/json", True),
            ("application/problem+json", True),
            ("Application/JSON; charset=utf-8", True),
            ("application/json, text/plain, */*", True),
            ("application/json;q=0.5", True),
            ("text/html, application/json;q=0.9, */*;q=0.8", True),
            ("*/*, application/json", True),
            ("text/plain, application/json", False),
            ("text/plain, application/json;q=0.9", False),
            ("text/plain;q=0.5, application/json;q=0.9", True),
            ("application/json;q=0", False),
            ("application/json;q=0.1, */*", False),
            ("application/json;q=rubbish", False),
            ("*/*", False),
            ("", False),
            ("application/*", False),
            ("application/json," * 100, False),
        ):
            response = await peer.ask(get(f"/SMSReceiver?{GOOD}", f"Accept: {accept}"))
            expected = f'{{"status":"OK","id":"{MESSAGE_ID}"}}' if as_json else "OK"
            self.assertEqual(response.body.decode(), expected, accept)
            response = await peer.ask(get("/SMSReceiver", f"Accept: {accept}"))
            kind = "application/problem+json" if as_json else "text/plain; charset=utf-8"
            self.assertEqual((response.status, response.headers["content-type"]), (400, kind), accept)

    async def test_several_accept_headers_are_one_list(self) -> None:
        request = get("/SMSReceiver", "Accept: text/html", "Accept: application/json")
        response = await self.ask(RecordingReceiver(), request)
        self.assertEqual(response.headers["content-type"], "application/problem+json")

    async def test_errors_in_json_are_problem_documents(self) -> None:
        for target, problem in (
            (f"/SMSReceiver?{GOOD}", {"title": "Unauthorized", "status": 401, "detail": "wrong token"}),
            ("/x", {"title": "Not Found", "status": 404, "detail": "there is no such page"}),
        ):
            request = get(target, "Accept: application/json")
            response = await self.ask(FailingReceiver(TokenRefused("wrong\r\ntoken")), request)
            self.assertEqual(json.loads(response.body), {"type": "about:blank", **problem})
            self.assertEqual(response.headers["content-type"], "application/problem+json")


class _Endless:
    """Sends chunks for as long as anybody reads."""

    def __init__(self, peer: RawPeer) -> None:
        self._peer = peer

    def resumeProducing(self) -> None:
        self._peer.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    def stopProducing(self) -> None:
        """The connection is gone."""
