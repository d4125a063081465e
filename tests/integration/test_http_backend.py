"""The HTTP backend against real servers on loopback."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from OpenSSL import crypto
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions, PrivateCertificate, TLSVersion
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread

from smsdaemon import __version__
from smsdaemon.backends.addresses import is_link_local
from smsdaemon.backends.http import HttpBackend
from smsdaemon.backends.payload import body
from smsdaemon.backends.wire import MAX_ANSWER_BYTES
from smsdaemon.domain.model import Answer
from smsdaemon.errors import LeaseLost, TargetUnreachable
from smsdaemon.names import IN_ONE_ZONE
from tests.support.authority import Authority
from tests.support.cases import ReactorTest, UnitTest
from tests.support.deliveries import SECRET, client, delivery, held, sms, target
from tests.support.peers import Recorder, Script, ScriptedPeer, answering, listen

reactor: Any = _reactor
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"


class BackendTest(ReactorTest):
    def setUp(self) -> None:
        self.backend = self.make_backend()

    def make_backend(self, **options: Any) -> HttpBackend:
        values = {"reactor": reactor, "timeout": 10, "connections_per_host": 4, **options}
        backend = HttpBackend(now=lambda: datetime.now(UTC), **values)
        self.addCleanup(backend.close)
        return backend

    def deliver(self, url: str, backend: HttpBackend | None = None, **fields: Any) -> Deferred[Answer]:
        return (backend or self.backend).deliver(delivery(), target(url=url, **fields), client(), held)

    async def why_not(self, url: str, backend: HttpBackend | None = None, **fields: Any) -> str:
        """The text of the TargetUnreachable that the attempt fails with."""
        try:
            answer = await self.deliver(url, backend, **fields)
        except TargetUnreachable as error:
            return str(error)
        raise self.failureException(f"was answered {answer.status}")


class LeaseTests(BackendTest):
    """What was stopped for longer than its lease lasts must not call for another's delivery."""

    def setUp(self) -> None:
        super().setUp()
        self.over = False

    def check(self) -> None:
        if self.over:
            raise LeaseLost("over")

    def begin(self, url: str, backend: HttpBackend | None = None) -> Deferred[Answer]:
        return (backend or self.backend).deliver(delivery(), target(url=url), client(), self.check)

    async def test_nothing_is_sent_once_the_lease_is_over_be_it_while_connecting(self) -> None:
        script = Script(lambda peer, _: peer.send(OK))
        attempt = self.begin(f"http://127.0.0.1:{script.listen(self)}/")
        self.over = True  # the connection is not made yet
        await self.assertFailure(attempt, LeaseLost)
        await script.closed()
        self.assertEqual((script.connections, script.requests), (1, []))

    async def test_nothing_is_sent_on_a_connection_that_was_idle(self) -> None:
        script = Script(lambda peer, _: peer.send(OK))
        url = f"http://127.0.0.1:{script.listen(self)}/"
        await self.begin(url)
        self.over = True
        await self.assertFailure(self.begin(url), LeaseLost)
        await script.closed()
        self.assertEqual(len(script.requests), 1)

    async def test_over_tls_the_lease_counts_that_is_held_after_the_handshake(self) -> None:
        authority = Authority()
        script = Script(lambda peer, _: peer.send(OK))
        port = script.listen(self, authority.server(["localhost"]).options())
        backend = self.make_backend(trust_root=authority.trust_root())
        attempt = self.begin(f"https://localhost:{port}/", backend)
        while not script.connections:
            self.assertFalse(attempt.called)
            await pause()
        self.over = True
        await self.assertFailure(attempt, LeaseLost)
        await script.closed()
        self.assertEqual(script.requests, [])

    async def test_a_request_has_left_the_process_when_its_lease_was_checked(self) -> None:
        """On a connection that is up: within deliver(), which is within one turn of the reactor."""
        authority = Authority()
        backend = self.make_backend(trust_root=authority.trust_root())
        for certificate in (None, authority.server(["localhost"])):
            peer = BlockingPeer(self, certificate)
            url = f"{'http' if certificate is None else 'https'}://localhost:{peer.port}/"
            await self.begin(url, backend)
            attempt = self.begin(url, backend)
            self.assertTrue(peer.second.wait(5), url)  # the reactor stands still meanwhile
            await attempt


class RequestTests(BackendTest):
    async def test_posts_the_payload_signed_so_that_the_library_verifies_it(self) -> None:
        server = answering(200)
        a_target = target(url=f"http://127.0.0.1:{server.listen(self)}/sms?a=b%20c")
        a_delivery = delivery(sms=sms(text="Grüße \0🐟"))
        await self.backend.deliver(a_delivery, a_target, client(), held)
        [request] = server.received
        self.assertEqual((request.method, request.uri), (b"POST", b"/sms?a=b%20c"))
        self.assertEqual(request.content, body(a_delivery, a_target, client()))
        self.assertEqual(request.headers["content-type"], "application/json")
        self.assertEqual(request.headers["content-length"], str(len(request.content)))
        self.assertEqual(request.headers["user-agent"], f"smsdaemon/{__version__}")
        self.assertEqual(request.headers["webhook-id"], str(a_delivery.id))
        said = Webhook(SECRET).verify(request.content, request.headers)
        self.assertEqual(said["data"]["text"], "Grüße \0🐟")
        with self.assertRaises(WebhookVerificationError):
            Webhook("whsec_AAAA").verify(request.content, request.headers)

    async def test_credentials_in_the_url_are_sent_as_basic_authorization(self) -> None:
        server = answering(200)
        port = server.listen(self)
        await self.deliver(f"http://me:p%40ss@127.0.0.1:{port}/x")
        [request] = server.received
        self.assertEqual(request.headers["authorization"], "Basic bWU6cEBzcw==")
        self.assertEqual(request.headers["host"], f"127.0.0.1:{port}")
        self.assertEqual(request.uri, b"/x")

    async def test_a_url_cannot_add_lines_to_the_request(self) -> None:
        server = answering(200)
        await self.deliver(f"http://127.0.0.1:{server.listen(self)}/ü x\r\nX-Evil: 1?q=\x01")
        [request] = server.received
        self.assertEqual(request.uri, b"/%C3%BC%20xX-Evil:%201?q=%01")
        self.assertNotIn("x-evil", request.headers)

    async def test_a_changed_secret_signs_the_next_attempt(self) -> None:
        server = answering(200)
        url = f"http://127.0.0.1:{server.listen(self)}/"
        for secret in (SECRET, "whsec_AAAA"):
            await self.deliver(url, secret=secret)
            Webhook(secret).verify(server.received[-1].content, server.received[-1].headers)


class AnswerTests(BackendTest):
    async def test_status_body_and_retry_after_come_back_whatever_the_status(self) -> None:
        for status in (200, 202, 404, 410, 503):
            server = answering(status, b'{"a": 1}', Retry_After="7")
            answer = await self.deliver(f"http://127.0.0.1:{server.listen(self)}/")
            self.assertEqual(answer, Answer(status=status, body=b'{"a": 1}', retry_after="7"))

    async def test_answers_without_a_body_or_without_a_length_are_whole(self) -> None:
        empty = await self.deliver(f"http://127.0.0.1:{answering(204).listen(self)}/")
        self.assertEqual(empty, Answer(status=204))

        def until_closed(peer: ScriptedPeer, _: int) -> None:
            peer.send(b"HTTP/1.0 200 OK\r\n\r\nall there is")
            peer.close()

        port = Script(until_closed).listen(self)
        self.assertEqual((await self.deliver(f"http://127.0.0.1:{port}/")).body, b"all there is")

    async def test_a_redirect_is_an_answer_and_is_not_followed(self) -> None:
        elsewhere = answering(200)
        server = answering(307, Location=f"http://127.0.0.1:{elsewhere.listen(self)}/")
        answer = await self.deliver(f"http://127.0.0.1:{server.listen(self)}/")
        self.assertEqual(answer.status, 307)
        self.assertEqual((len(server.received), len(elsewhere.received)), (1, 0))

    async def test_of_a_long_body_64_kib_are_read_and_the_rest_goes_with_its_connection(self) -> None:
        def long(peer: ScriptedPeer, _: int) -> None:
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 102_400)

        script = Script(long)
        answer = await self.deliver(f"http://127.0.0.1:{script.listen(self)}/")
        self.assertEqual(answer, Answer(status=200, body=b"x" * MAX_ANSWER_BYTES))
        await script.closed()

    async def test_a_body_of_exactly_64_kib_leaves_its_connection_usable(self) -> None:
        server = answering(200, b"x" * MAX_ANSWER_BYTES)
        url = f"http://127.0.0.1:{server.listen(self)}/"
        for _ in range(2):
            self.assertEqual(len((await self.deliver(url)).body), MAX_ANSWER_BYTES)
        self.assertEqual([request.connection for request in server.received], [0, 0])


class ConnectionTests(BackendTest):
    async def test_one_connection_serves_attempts_that_follow_each_other(self) -> None:
        server = answering(500, b"no")
        url = f"http://127.0.0.1:{server.listen(self)}/"
        for _ in range(3):
            await self.deliver(url)
        self.assertEqual([request.connection for request in server.received], [0, 0, 0])

    async def test_many_attempts_at_once_are_all_answered(self) -> None:
        server = answering(200)
        url = f"http://127.0.0.1:{server.listen(self)}/"
        answers = await gatherResults([self.deliver(url) for _ in range(50)])
        self.assertEqual([answer.status for answer in answers], [200] * 50)
        self.assertEqual(len(server.received), 50)

    async def test_a_connection_closed_just_as_it_was_used_again_is_no_failed_attempt(self) -> None:
        overlapping: list[int] = []

        def close_at_the_second(peer: ScriptedPeer, count: int) -> None:
            overlapping.append(script.open)
            peer.close() if count == 2 else peer.send(OK)

        script = Script(close_at_the_second)
        url = f"http://127.0.0.1:{script.listen(self)}/"
        self.assertEqual((await self.deliver(url)).status, 200)
        self.assertEqual((await self.deliver(url)).status, 200)
        self.assertEqual(script.connections, 2)
        self.assertEqual(len(script.requests), 3)
        self.assertEqual(script.requests[1].count(b"\r\n"), script.requests[2].count(b"\r\n") - 1)
        self.assertEqual(overlapping, [1, 1, 1], "the repeat came while the first was still out")

    async def test_a_new_connection_closed_without_an_answer_is_a_failed_attempt(self) -> None:
        script = Script(lambda peer, _: peer.close())
        why = await self.why_not(f"http://127.0.0.1:{script.listen(self)}/")
        self.assertIn("closed before the answer", why)
        self.assertEqual(len(script.requests), 1)

    async def test_a_repeat_that_fails_too_is_not_repeated(self) -> None:
        def answer_once(peer: ScriptedPeer, _: int) -> None:
            peer.send(OK) if len(script.requests) == 1 else peer.close()

        script = Script(answer_once)
        url = f"http://127.0.0.1:{script.listen(self)}/"
        await self.deliver(url)
        self.assertIn("closed", await self.why_not(url))
        self.assertEqual(len(script.requests), 3)

    async def test_an_answer_that_had_begun_is_not_asked_for_again(self) -> None:
        def break_off_at_the_second(peer: ScriptedPeer, count: int) -> None:
            peer.send(OK if count == 1 else OK[:20])
            if count == 2:
                peer.close()

        script = Script(break_off_at_the_second)
        url = f"http://127.0.0.1:{script.listen(self)}/"
        await self.deliver(url)
        self.assertIn("closed", await self.why_not(url))
        self.assertEqual(len(script.requests), 2)

    async def test_what_a_server_says_unasked_on_an_idle_connection_harms_nothing(self) -> None:
        def goodbye(peer: ScriptedPeer, _: int) -> None:
            peer.send(OK)
            # In a later segment, as a proxy that closes an idle connection does.
            reactor.callLater(0.05, peer.send, b"HTTP/1.1 408 Request Timeout\r\n\r\n")

        script = Script(goodbye)
        url = f"http://127.0.0.1:{script.listen(self)}/"
        await self.deliver(url)
        await script.closed()
        self.assertEqual((await self.deliver(url)).status, 200)
        await script.closed()


class FailureTests(BackendTest):
    async def test_a_closed_port_is_a_refused_connection(self) -> None:
        port = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        self.assertEqual(await self.why_not(f"http://127.0.0.1:{number}/"), "connection refused")

    async def test_a_server_that_hangs_is_left_at_the_deadline(self) -> None:
        script = Script(lambda *_: None)
        backend = self.make_backend(timeout=0.3)
        why = await self.why_not(f"http://127.0.0.1:{script.listen(self)}/", backend)
        self.assertEqual(why, "timed out after 0.3 s")
        await script.closed()

    async def test_an_answer_that_dribbles_is_cut_at_the_deadline(self) -> None:
        for beginning in (b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"):
            script = dribbling(beginning)
            backend = self.make_backend(timeout=0.4)
            why = await self.why_not(f"http://127.0.0.1:{script.listen(self)}/", backend)
            self.assertEqual(why, "timed out after 0.4 s")
            await script.closed()

    async def test_an_answer_that_breaks_off_is_no_answer(self) -> None:
        for part in (
            OK[:5],
            OK[:-9],
            OK[:-1],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        ):

            def break_off(peer: ScriptedPeer, _: int, part: bytes = part) -> None:
                peer.send(part)
                peer.close()

            why = await self.why_not(f"http://127.0.0.1:{Script(break_off).listen(self)}/")
            self.assertEqual(why, "the connection was closed before the answer was complete")

    async def test_an_answer_without_a_length_that_is_reset_is_no_answer(self) -> None:
        authority = Authority()
        backend = self.make_backend(trust_root=authority.trust_root())
        for certificate in (None, authority.server(["localhost"])):
            for head in (b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n"):

                def reset(peer: ScriptedPeer, _: int, head: bytes = head) -> None:
                    peer.send(head + b'{"route": {"acd_gr')
                    reactor.callLater(0.05, peer.transport.abortConnection)

                options = None if certificate is None else certificate.options()
                port = Script(reset).listen(self, options)
                url = f"http{'s' if certificate else ''}://localhost:{port}/"
                why = await self.why_not(url, backend)
                self.assertEqual(why, "the connection was closed before the answer was complete")

    async def test_over_tls_the_goodbye_ends_an_answer_without_a_length_and_nothing_else_does(self) -> None:
        authority = Authority()
        backend = self.make_backend(trust_root=authority.trust_root())
        options = authority.server(["localhost"]).options()

        def in_order(peer: ScriptedPeer, _: int) -> None:
            peer.send(b"HTTP/1.1 200 OK\r\n\r\nall there is")
            peer.close()

        def cut(peer: ScriptedPeer, _: int) -> None:
            peer.send(b"HTTP/1.1 200 OK\r\n\r\nall there")
            reactor.callLater(0.05, peer.transport.transport.loseConnection)  # of TCP, below TLS

        port = Script(in_order).listen(self, options)
        answer = await self.deliver(f"https://localhost:{port}/", backend)
        self.assertEqual(answer.body, b"all there is")
        why = await self.why_not(f"https://localhost:{Script(cut).listen(self, options)}/", backend)
        self.assertEqual(why, "the connection was closed before the answer was complete")

    async def test_what_is_not_http_is_named_and_not_repeated_in_the_reason(self) -> None:
        for said in (
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"HTTP/1.1 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        ):

            def say(peer: ScriptedPeer, _: int, said: bytes = said) -> None:
                peer.send(said)

            script = Script(say)
            why = await self.why_not(f"http://127.0.0.1:{script.listen(self)}/")
            self.assertEqual(why, "the answer is not HTTP")
            await script.closed()

    async def test_a_url_or_secret_that_cannot_be_used_fails_the_attempt_without_showing_it(self) -> None:
        for url in ("http://", "http://u:hidden@/", "http://x:99999/", "ftp://hidden/", "http://" + "ü" * 99):
            self.assertEqual(await self.why_not(url), "its URL cannot be used")
        for secret in ("", "whsec_", "whsec_A"):
            why = await self.why_not("http://127.0.0.1:1/", secret=secret)
            self.assertEqual(why, "its secret cannot be used")

    async def test_a_cancelled_attempt_ends_as_cancelled_and_drops_its_connection(self) -> None:
        script = Script(lambda *_: None)
        attempt = self.deliver(f"http://127.0.0.1:{script.listen(self)}/")
        await script.asked
        attempt.cancel()
        with self.assertRaises(CancelledError):
            await attempt
        await script.closed()


class CloseTests(BackendTest):
    async def test_closing_ends_attempts_and_idle_connections_and_leaves_no_timer(self) -> None:
        script = Script(lambda peer, count: peer.send(OK) if len(script.requests) == 1 else None)
        url = f"http://127.0.0.1:{script.listen(self)}/"
        await pause()  # trial's own timer starts after the test's first step
        before = set(reactor.getDelayedCalls())
        await gatherResults([self.deliver(url)])
        pair = [self.deliver(url), self.deliver(url)]
        while len(script.requests) < 3:
            await pause()
        await self.backend.close()
        for attempt in pair:
            with self.assertRaises(TargetUnreachable) as caught:
                await attempt
            self.assertIn("stopped", str(caught.exception))
        await script.closed()
        await pause()
        self.assertEqual(set(reactor.getDelayedCalls()) - before, set())


class TlsTests(BackendTest):
    def setUp(self) -> None:
        self.authority = Authority()
        self.backend = self.make_backend(trust_root=self.authority.trust_root())

    def serve(self, names: Sequence[str], **options: Any) -> tuple[Recorder, int]:
        server = answering(200, b"OK")
        return server, server.listen(self, self.authority.server(names).options())

    async def test_a_trusted_certificate_for_the_host_or_its_address_is_accepted(self) -> None:
        server, port = self.serve(["localhost", "127.0.0.1"])
        for host in ("localhost", "127.0.0.1"):
            for _ in range(2):
                self.assertEqual((await self.deliver(f"https://{host}:{port}/")).body, b"OK")
        self.assertEqual([request.connection for request in server.received], [0, 0, 1, 1])

    async def test_a_certificate_for_another_host_is_refused_before_anything_is_sent(self) -> None:
        server, port = self.serve(["example.com", "127.0.0.2"])
        for host in ("localhost", "127.0.0.1"):
            why = await self.why_not(f"https://{host}:{port}/")
            self.assertEqual(why, "TLS: the certificate does not match the host name")
        self.assertEqual(server.received, [])

    async def test_a_certificate_nobody_trusted_signed_is_refused(self) -> None:
        server, port = self.serve(["localhost"])
        for backend in (self.make_backend(trust_root=Authority().trust_root()), self.make_backend()):
            why = await self.why_not(f"https://localhost:{port}/", backend)
            self.assertIn("TLS: certificate verify failed", why)
        self.assertEqual(server.received, [])

    async def test_an_expired_certificate_is_refused(self) -> None:
        server = answering(200)
        port = server.listen(self, self.authority.server(["localhost"], expired=True).options())
        self.assertIn("TLS: certificate verify failed", await self.why_not(f"https://localhost:{port}/"))
        self.assertEqual(server.received, [])

    async def test_tls_1_1_is_refused(self) -> None:
        server, certificate = answering(200), self.authority.server(["localhost"])
        old = CertificateOptions(
            privateKey=certificate.privateKey.original,
            certificate=certificate.original,
            insecurelyLowerMinimumTo=TLSVersion.TLSv1_0,
            lowerMaximumSecurityTo=TLSVersion.TLSv1_1,
            acceptableCiphers=None,
        )
        why = await self.why_not(f"https://localhost:{server.listen(self, old)}/")
        self.assertIn("TLS: ", why)
        self.assertEqual(server.received, [])

    async def test_authorities_in_ssl_cert_file_are_trusted_by_default(self) -> None:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(self.authority.pem())
        os.environ["SSL_CERT_FILE"] = path
        self.addCleanup(os.environ.pop, "SSL_CERT_FILE")
        _, port = self.serve(["localhost"])
        answer = await self.deliver(f"https://localhost:{port}/", self.make_backend())
        self.assertEqual(answer.status, 200)

    async def test_a_server_that_never_shakes_hands_is_left_at_the_deadline(self) -> None:
        script = Script(lambda *_: None)
        backend = self.make_backend(timeout=0.3)
        why = await self.why_not(f"https://127.0.0.1:{script.listen(self)}/", backend)
        self.assertEqual(why, "timed out after 0.3 s")
        await script.closed()

    async def test_a_server_without_tls_is_named(self) -> None:
        port = listen(self, Factory.forProtocol(Greeter))
        self.assertIn("TLS: ", await self.why_not(f"https://127.0.0.1:{port}/"))


class NotingReactor:
    """The real reactor; notes what it connects to."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def connectTCP(self, host: str, *args: Any, **kwargs: Any) -> Any:
        self.called.append(host)
        return reactor.connectTCP(host, *args, **kwargs)


class LinkLocalTests(BackendTest):
    async def test_link_local_addresses_are_refused_however_they_are_written(self) -> None:
        for host in (
            "169.254.169.254",
            "2852039166",
            "0xa9.0xfe.1",
            "[fe80::1]",
            "[::ffff:169.254.169.254]",
            "[64:ff9b::a9fe:a9fe]",
            "[2002:a9fe:a9fe::1]",
        ):
            why = await self.why_not(f"http://{host}/", self.make_backend(timeout=2))
            self.assertIn("link-local", why, host)

    async def test_a_name_is_refused_by_what_it_resolves_to_at_the_time(self) -> None:
        names = {"rebind.test": ["127.0.0.1"]}
        noting = NotingReactor()
        backend = self.make_backend(reactor=noting, look_up=names.__getitem__)
        # Closes its connections, so that the next attempt looks the name up again.
        port = answering(200, Connection="close").listen(self)
        await self.deliver(f"http://rebind.test:{port}/", backend)
        names["rebind.test"] = ["169.254.169.254"]
        self.assertIn("link-local", await self.why_not(f"http://rebind.test:{port}/", backend))
        self.assertEqual(noting.called, ["127.0.0.1"])

    async def test_another_address_of_the_same_name_is_still_called(self) -> None:
        noting = NotingReactor()
        backend = self.make_backend(reactor=noting, look_up=lambda _: ["169.254.1.1", "127.0.0.1"])
        answer = await self.deliver(f"http://both.test:{answering(200).listen(self)}/", backend)
        self.assertEqual(answer.status, 200)
        self.assertEqual(noting.called, ["127.0.0.1"])


class NameTests(BackendTest):
    def setUp(self) -> None:
        self.hanging: list[str] = []
        self.go_on = threading.Event()
        self.addCleanup(self.go_on.set)
        self.backend = self.make_backend(look_up=self.look_up)

    def look_up(self, host: str) -> list[str]:
        """Names of .dead.test hang until go_on; called in threads."""
        if host.endswith(".dead.test"):
            self.hanging.append(host)
            self.go_on.wait()
        return ["127.0.0.1"]

    async def test_hundreds_of_targets_whose_name_server_is_silent_slow_no_other_target(self) -> None:
        port = answering(200).listen(self)
        attempts = [self.deliver(f"http://{n}.dead.test:{port}/") for n in range(200)]
        attempts += [self.deliver(f"http://one.dead.test:{port}/") for _ in range(200)]
        for n in range(3):
            answer = await self.deliver(f"http://{n}.alive.test:{port}/")
            self.assertEqual(answer.status, 200)
        self.assertEqual(len(self.hanging), IN_ONE_ZONE)
        self.go_on.set()
        self.assertEqual({answer.status for answer in await gatherResults(attempts)}, {200})
        self.assertEqual(self.hanging.count("one.dead.test"), 1)

    async def test_an_attempt_at_a_name_that_hangs_times_out_and_later_ones_fail_at_once(self) -> None:
        port = answering(200).listen(self)
        backend = self.make_backend(look_up=self.look_up, timeout=0.3)
        url = f"http://one.dead.test:{port}/"
        self.assertEqual(await self.why_not(url, backend), "timed out after 0.3 s")
        while (why := await self.why_not(url, backend)) == "timed out after 0.3 s":
            continue
        self.assertEqual(why, "the look-up of its name hangs")
        self.failureResultOf(self.deliver(url, backend), TargetUnreachable)
        self.assertEqual(self.hanging, ["one.dead.test"])
        self.go_on.set()
        while (await self.deliver(url, backend).addErrback(lambda _: None)) is None:
            await pause()

    async def test_what_nobody_waits_for_any_more_is_not_looked_up(self) -> None:
        port = answering(200).listen(self)
        backend = self.make_backend(look_up=self.look_up, timeout=0.3)
        attempts = [self.why_not(f"http://{n}.dead.test:{port}/", backend) for n in range(20)]
        reasons = await gatherResults([Deferred.fromCoroutine(attempt) for attempt in attempts])
        self.assertEqual(set(reasons), {"timed out after 0.3 s"})
        self.go_on.set()
        while (await self.deliver(f"http://0.dead.test:{port}/", backend).addErrback(lambda _: None)) is None:
            await pause()
        self.assertEqual(len(set(self.hanging)), IN_ONE_ZONE)

    async def test_an_attempt_that_is_cancelled_leaves_the_look_up_to_the_others(self) -> None:
        port = answering(200).listen(self)
        first, second = [self.deliver(f"http://one.dead.test:{port}/") for _ in range(2)]
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.go_on.set()
        self.assertEqual((await second).status, 200)

    async def test_names_that_containers_have_are_called_over_tls_too(self) -> None:
        authority = Authority()
        backend = self.make_backend(look_up=self.look_up, trust_root=authority.trust_root())
        for name in ("acd_backend", "_sms._tcp.example.test", "r3---sn.example.test"):
            plain = answering(200)
            await self.deliver(f"http://{name}:{plain.listen(self)}/", backend)
            self.assertIn(name, plain.received[0].headers["host"])
            own, others = authority.server([name]), authority.server(["acd.backend"])
            port = answering(200).listen(self, own.options())
            self.assertEqual((await self.deliver(f"https://{name}:{port}/", backend)).status, 200)
            port = answering(200).listen(self, others.options())
            why = await self.why_not(f"https://{name}:{port}/", backend)
            self.assertEqual(why, "TLS: the certificate does not match the host name")

    async def test_a_host_name_that_cannot_be_one_fails_the_attempt(self) -> None:
        for host in ("a..b", "a" * 64, "-a", "a b"):
            for scheme in ("http", "https"):
                why = await self.why_not(f"{scheme}://{host}:8080/")
                self.assertEqual(why, "its host name cannot be used", host)
        # 127.0.0.1 for resolvers; but no certificate can be of it.
        self.assertEqual(await self.why_not("https://2130706433/"), "its host name cannot be used")

    async def test_a_name_without_an_address_does_not_resolve(self) -> None:
        backend = self.make_backend(look_up=lambda _: [])
        self.assertEqual(await self.why_not("http://nowhere.test/", backend), "the name does not resolve")


class AddressTests(UnitTest):
    def test_link_local_is_told_from_what_is_near_it(self) -> None:
        link_local = [
            "169.254.0.0",
            "169.254.255.255",
            "fe80::1%eth0",
            "febf::1",
            "::ffff:169.254.0.1",
            "::a9fe:1",
        ]
        others = [
            "169.253.255.255",
            "169.255.0.0",
            "127.0.0.1",
            "10.0.0.1",
            "::1",
            "fec0::1",
            "fd00::1",
            "2001:db8::1",
        ]
        self.assertEqual([host for host in link_local if not is_link_local(host)], [])
        self.assertEqual([host for host in others if is_link_local(host)], [])


def dribbling(beginning: bytes) -> Script:
    """Answers without end, a byte every 20 ms."""

    def play(peer: ScriptedPeer, _: int) -> None:
        peer.send(beginning)
        drip = LoopingCall(peer.send, b"x")
        drip.start(0.02)
        script.closed().addCallback(lambda _: drip.stop())

    script = Script(play)
    return script


class BlockingPeer:
    """A server in a thread, which goes on while the reactor stands still; for one connection."""

    def __init__(self, test: ReactorTest, certificate: PrivateCertificate | None) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.second = threading.Event()
        """The second request is here."""
        self._context = None if certificate is None else _server_context(test, certificate)
        thread = threading.Thread(target=self._serve, daemon=True)
        thread.start()
        test.addCleanup(deferToThread, thread.join, 10)
        test.addCleanup(self._listening.close)

    def _serve(self) -> None:
        connection = self._listening.accept()[0]
        connection.settimeout(10)
        if self._context is not None:
            connection = self._context.wrap_socket(connection, server_side=True)
        with connection:
            for n in (1, 2):
                while b"sms.received" not in connection.recv(65536):
                    pass
                if n == 2:
                    self.second.set()
                connection.sendall(OK)


def _server_context(test: ReactorTest, certificate: PrivateCertificate) -> ssl.SSLContext:
    path = test.mktemp()
    with open(path, "wb") as file:
        file.write(certificate.dumpPEM() + certificate.privateKey.dump(crypto.FILETYPE_PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


class Greeter(Protocol):
    """Answers whatever it is sent as a web server without TLS does."""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def pause() -> Deferred[None]:
    """A turn of the reactor, for loops that wait for a condition."""
    d: Deferred[None] = Deferred()
    reactor.callLater(0.001, d.callback, None)
    return d
