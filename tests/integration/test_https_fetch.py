"""What providers' requests point at is fetched from real servers, on loopback."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IReactorPluggableNameResolver
from twisted.internet.ssl import PrivateCertificate
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from smsdaemon.errors import FetchFailed
from smsdaemon.providers.https_fetch import MAX_BYTES, HttpsFetch
from tests.support.authority import Authority
from tests.support.cases import ReactorTest
from tests.support.peers import Recorder, answering

reactor: Any = _reactor
HOST = "sns.eu-central-1.amazonaws.com"
URL = f"https://{HOST}/SimpleNotificationService-1.pem"


@implementer(IReactorPluggableNameResolver)
class RedirectingReactor:
    """The real reactor, in a world where every host is one port on loopback."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.called: list[tuple[str, int]] = []
        self.nameResolver = self

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def installNameResolver(self, resolver: Any) -> Any:
        raise NotImplementedError

    def resolveHostName(self, receiver: Any, hostName: str, portNumber: int = 0, **_: Any) -> Any:
        receiver.resolutionBegan(None)
        receiver.addressResolved(IPv4Address("TCP", "127.0.0.1", portNumber))
        receiver.resolutionComplete()

    def connectTCP(self, host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        self.called.append((host, port))
        return reactor.connectTCP("127.0.0.1", self._port, *args, **kwargs)


class FetchTests(ReactorTest):
    def setUp(self) -> None:
        self.authority = Authority()

    def fetch(
        self, server: Recorder, certificate: PrivateCertificate | None = None, **options: Any
    ) -> HttpsFetch:
        presented = certificate or self.authority.server([HOST])
        self.reactor = RedirectingReactor(server.listen(self, presented.options()))
        values = {"reactor": self.reactor, "trust_root": self.authority.trust_root(), **options}
        return HttpsFetch(**values)

    async def why_not(self, fetch: HttpsFetch, url: str = URL) -> str:
        """The text of the FetchFailed that it fails with."""
        try:
            await fetch(url)
        except FetchFailed as error:
            return str(error)
        raise self.failureException("was fetched")

    async def test_the_body_of_a_200_is_fetched_from_port_443(self) -> None:
        server = answering(200, b"x" * MAX_BYTES)
        self.assertEqual(await self.fetch(server)(URL), b"x" * MAX_BYTES)
        self.assertEqual(self.reactor.called, [("127.0.0.1", 443)])
        self.assertEqual(
            [(one.method, one.uri) for one in server.received],
            [(b"GET", URL[len(f"https://{HOST}") :].encode())],
        )
        self.assertEqual(server.received[0].headers["host"], HOST)

    async def test_no_other_host_is_called(self) -> None:
        fetch = self.fetch(answering(200))
        for url in (
            URL.replace("https", "http"),
            "https://evil.example/a.pem",
            f"https://{HOST}.evil.example/",
            f"https://user@{HOST}/",
            f"https://{HOST}:444/",
            "https://127.0.0.1/",
            "https://[::1/",
            "",
        ):
            self.assertEqual(await self.why_not(fetch, url), "the URL is none that is called")
        self.assertEqual(self.reactor.called, [])

    async def test_another_status_and_a_redirect_are_failures(self) -> None:
        for status in (204, 301, 302, 307, 404, 500):
            server = answering(status, b"", Location=f"https://{HOST}/elsewhere")
            self.assertIn(str(status), await self.why_not(self.fetch(server)))
            self.assertEqual(len(server.received), 1)

    async def test_an_answer_that_is_too_long_is_a_failure(self) -> None:
        self.assertIn("too long", await self.why_not(self.fetch(answering(200, b"x" * (MAX_BYTES + 1)))))

    async def test_an_endless_answer_is_a_failure(self) -> None:
        def endless(request: Any) -> Any:
            request.write(b"x" * (MAX_BYTES + 1))
            return NOT_DONE_YET

        self.assertIn("too long", await self.why_not(self.fetch(Recorder(endless))))

    async def test_a_certificate_that_is_not_the_hosts_is_a_failure(self) -> None:
        for certificate in (
            self.authority.server(["evil.example"]),
            self.authority.server([HOST], expired=True),
            Authority().server([HOST]),
        ):
            await self.why_not(self.fetch(answering(200), certificate))

    async def test_who_does_not_answer_in_time_is_given_up(self) -> None:
        def silent(request: Any) -> Any:
            return NOT_DONE_YET

        def slow(request: Any) -> Any:
            request.write(b"x")
            return NOT_DONE_YET

        for answer in (silent, slow):
            why = await self.why_not(self.fetch(Recorder(answer), timeout=0.3))
            self.assertEqual(why, "no answer in time")
