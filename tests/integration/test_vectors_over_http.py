"""Recorded requests of all providers through the socket: each is answered as it must be, and stored.

Their signatures are left out here, as they are of other URLs: the connectors are ``unsigned``.
"""

from __future__ import annotations

from smsdaemon.domain.model import WireRequest
from smsdaemon.domain.numbers import matching_key
from tests.contract.test_vectors import OUR_NUMBER, is_handshake, is_unreadable, request_for_us
from tests.support.cases import ReactorTest
from tests.support.profile_site import ProfileSite, connector, profile_site
from tests.support.raw_peer import Response
from tests.support.vectors import Vector, vectors


def raw(provider: str, request: WireRequest) -> bytes:
    """As the provider would send it to the URL of its profile."""
    query = b"?" + request.query if request.query else b""
    lines = [f"{name}: {value}" for name, values in request.headers.items() for value in values]
    lines = [line for line in lines if not line.lower().startswith(("host:", "content-length:"))]
    lines += ["Host: sms.example.com", f"Content-Length: {len(request.body)}", "Connection: close"]
    start = f"{request.method} /SMSReceiver/{provider}".encode() + query + b" HTTP/1.1\r\n"
    return start + "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + request.body


class VectorsOverHttpTests(ReactorTest):
    site: ProfileSite

    async def setUp(self) -> None:  # type: ignore[override]
        self.site = await profile_site(self)
        takers: dict[str, set[str]] = {}
        for vector in vectors():
            expected = vector["expect"]
            for one in expected.get("messages") or [expected]:
                takers.setdefault(matching_key(one.get("receiver") or OUR_NUMBER), set()).add(
                    vector["provider"]
                )
        await self.site.apply(
            "".join(
                connector(number, provider=sorted(providers), unsigned=True)
                for number, providers in takers.items()
            )
        )
        self.site.serve()

    async def ask(self, vector: Vector) -> Response:
        return await self.site.ask(raw(vector["provider"], request_for_us(vector)))

    async def test_all_that_hold_an_sms_are_stored_and_answered_with_200(self) -> None:
        providers = set()
        for vector in vectors():
            if vector["expect"]["kind"] in ("mo", "batch") and not is_unreadable(vector):
                response = await self.ask(vector)
                self.assertEqual((response.status, vector["id"]), (200, vector["id"]), response.body)
                self.assertIn("sms-message-id", response.headers)
                providers.add(vector["provider"])
        self.assertEqual(len(providers), 75)

    async def test_all_others_are_acknowledged_or_refused_and_not_stored(self) -> None:
        for vector in vectors():
            if vector["expect"]["kind"] in ("status", "control") and vector["id"] != "aws-sns-05":
                response = await self.ask(vector)
                self.assertEqual((response.status, vector["id"]), (200, vector["id"]), response.body)
                if not is_handshake(vector):
                    self.assertEqual(self.site.not_sms[-1][0], vector["provider"])
            elif is_unreadable(vector):
                self.assertEqual((await self.ask(vector)).status, 400, vector["id"])
        self.assertEqual(await self.site.stored(), [])
