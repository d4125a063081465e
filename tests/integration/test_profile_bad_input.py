"""What is forged, late, repeated or hostile, at the URLs of profiles: the documented status, nothing kept."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from attrs import evolve

from smsdaemon.domain.model import WireRequest
from smsdaemon.domain.reading import MAX_ENTRIES
from smsdaemon.errors import RequestRefused
from smsdaemon.providers.catalogue import load
from smsdaemon.providers.handshaking import recognised
from smsdaemon.providers.loaded import LoadedProfile
from tests.support.cases import ReactorTest, UnitTest
from tests.support.pages import FORM, post
from tests.support.profile_site import PUBLIC_URL, ProfileSite, connector, profile_site
from tests.support.raw_peer import RawPeer, Response
from tests.support.signers import JSON, SIGNERS, Sent
from tests.support.vectors import wire_request

SIGNED, OPEN, OWN = "+12028831111", "+385921004027", "5151"
SECRET = "a-secret"
SIGNING = ["telnyx", "seven", "plivo", "vonage-messages", "vonage"]
FIELDS = {"To": SIGNED, "From": "+14133881111", "Text": "x", "Body": "x", "MessageUUID": "u1"}
LIMIT_SECONDS, LIMIT_BYTES = 1.0, 48 << 20
"""For one request of 64 KiB; the machine may be busy."""
XML_PROFILE = """
name = "gizmo"
description = "Gizmo Telecom"
[request]
body = ["xml"]
batch = "sms"
[fields]
receiver = "to"
sender = "from"
text = "text"
[parts]
udh = "udh"
invalid = "refused"
"""


def entry(to: str = OPEN, text: str = "x") -> dict[str, str]:
    return {"from": "1234", "to": to, "text": text}


def sms_xml(text: str, more: str = "") -> str:
    return f"<sms><to>{OWN}</to><from>1234</from><text>{text}</text>{more}</sms>"


def sent(request: WireRequest) -> bytes:
    """Its bytes, as a peer sends them."""
    parts = urlsplit(request.url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    headers = [f"{n}: {v}" for n, (v,) in request.headers.items() if n != "content-type"]
    return post(request.content_type, request.body, *headers, target=target)


class BadInputTest(ReactorTest):
    site: ProfileSite

    async def setUp(self) -> None:  # type: ignore[override]
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "gizmo.toml").write_text(XML_PROFILE)
        self.site = await profile_site(self, folder)
        telnyx = SIGNERS["telnyx"].secret
        await self.site.apply(
            connector(SIGNED, provider=SIGNING, provider_secrets=[telnyx, SECRET])
            + connector(OPEN, provider=["infobip", "bandwidth", "vonage", "aws-sns"], unsigned=True)
            + connector(OWN, provider="gizmo")
        )
        self.site.serve()

    async def refused(self, request: bytes, *statuses: int) -> Response:
        began = time.monotonic()
        response = await self.site.ask(request)
        self.assertLess(time.monotonic() - began, 5 * LIMIT_SECONDS)
        self.assertIn(response.status, statuses, response.body)
        self.assertEqual(await self.site.stored(), [])
        return response


class SignatureTests(BadInputTest):
    def telnyx(self, at: float, secret_text: str = "x") -> WireRequest:
        payload = {"id": "1", "to": [{"phone_number": SIGNED}], "from": {"phone_number": "1"}, "text": "x"}
        document = {"data": {"event_type": "message.received", "payload": payload}}
        url = f"{PUBLIC_URL}/SMSReceiver/telnyx"
        return SIGNERS["telnyx"].sign(Sent(url=url, fields=document, json=True, at=int(at)))

    async def test_a_timestamp_of_long_ago_or_ahead_is_401(self) -> None:
        for age in (3600, -3600):
            response = await self.refused(sent(self.telnyx(time.time() - age)), 401)
            self.assertIn(b"timestamp", response.body)
        self.assertEqual((await self.site.ask(sent(self.telnyx(time.time())))).status, 200)

    async def test_a_good_request_that_is_recorded_is_no_good_later(self) -> None:
        recorded = sent(self.telnyx(time.time()))
        self.site.now = datetime.fromtimestamp(time.time() + 600, UTC)
        await self.refused(recorded, 401)

    async def test_a_replay_is_a_repeat_and_with_another_body_it_is_401(self) -> None:
        url = f"{PUBLIC_URL}/SMSReceiver/plivo"

        def plivo(fields: dict[str, str], nonce: str) -> bytes:
            # The second version of the signature, which covers no body.
            return sent(
                SIGNERS["plivo v2"].sign(
                    Sent(url=url, fields=fields, json=False, at=0, secret=SECRET, nonce=nonce)
                )
            )

        ids = []
        for _ in range(2):
            response = await self.site.ask(plivo(FIELDS, "n1"))
            self.assertEqual(response.status, 200)
            ids.append(response.headers["sms-message-id"])
        self.assertEqual(ids[0], ids[1])
        changed = {**FIELDS, "Text": "pay me", "MessageUUID": "u2"}
        self.assertEqual((await self.site.ask(plivo(changed, "n1"))).status, 401)
        self.assertEqual([row[2] for row in await self.site.stored()], ["x"])

    async def test_what_was_signed_for_one_connector_is_no_token_for_another_of_the_account(self) -> None:
        await self.site.apply(
            connector(SIGNED, provider="plivo", provider_secrets=["old", SECRET])
            + connector(OPEN, provider=["plivo", "generic"], provider_secrets=[SECRET], unsigned=False)
        )
        self.site.serve()
        request = SIGNERS["plivo v2"].sign(
            Sent(url=f"{PUBLIC_URL}/SMSReceiver/plivo", fields=FIELDS, json=False, at=0, secret=SECRET)
        )
        self.assertEqual((await self.site.ask(sent(request))).status, 200)
        forged = {**FIELDS, "To": OPEN, "Text": "pay me", "MessageUUID": "u2"}
        other = await self.site.ask(sent(evolve(request, body=urlencode(forged).encode())))
        self.assertEqual(other.status, 401)

    async def test_a_get_with_a_body_of_vonage_is_400(self) -> None:
        fields = {"to": SIGNED, "msisdn": "49789", "text": "x", "messageId": "v1"}
        url = f"{PUBLIC_URL}/SMSReceiver/vonage"
        request = SIGNERS["vonage sms"].sign(
            Sent(url=url, fields=fields, json=False, at=int(time.time()), secret=SECRET)
        )
        query = urlencode({**fields, "text": "forged"})
        raw = post(FORM, request.body, target=f"/SMSReceiver/vonage?{query}")
        await self.refused(raw.replace(b"POST", b"GET", 1), 400)
        self.assertEqual((await self.site.ask(raw)).status, 200)
        self.assertEqual([row[2] for row in await self.site.stored()], ["x"])

    async def test_what_follows_a_number_sign_in_a_signed_url_is_401(self) -> None:
        url = f"{PUBLIC_URL}/SMSReceiver/plivo?" + urlencode(FIELDS | {"Text": ""})
        request = SIGNERS["plivo v3"].sign(Sent(url=url, fields={}, json=False, at=0, secret=SECRET))
        forged = f"{request.url}#&Text=forged"
        target = forged.removeprefix(PUBLIC_URL)
        headers = [f"{n}: {v}" for n, (v,) in request.headers.items() if n != "content-type"]
        await self.refused(post(FORM, b"", *headers, target=target), 401)
        self.assertEqual(
            (await self.site.ask(post(FORM, b"", *headers, target=target.partition("#")[0]))).status, 200
        )

    async def test_a_host_that_goes_on_as_a_url_does_is_400(self) -> None:
        self.site.serve(public_url="")
        voice = Sent(url="http://calls.example.com/answer", fields={}, json=False, at=0, secret=SECRET)
        request = SIGNERS["plivo v2"].sign(voice)
        headers = [f"{n}: {v}" for n, (v,) in request.headers.items() if n != "content-type"]
        for end in ("?", "/?", "#"):
            raw = post(FORM, urlencode(FIELDS).encode(), *headers, target="/SMSReceiver/plivo")
            host = f"Host: calls.example.com/answer{end}".encode()
            self.assertIn(b"Host: x\r\n", raw)
            await self.refused(raw.replace(b"Host: x\r\n", host + b"\r\n"), 400)

    async def test_a_good_signature_at_the_url_of_another_profile_is_401(self) -> None:
        request = self.telnyx(time.time())
        for profile in ("infobip", "bandwidth"):
            body = json.dumps({"results": [entry(SIGNED)]} if profile == "infobip" else [bandwidth(SIGNED)])
            headers = [f"{n}: {v}" for n, (v,) in request.headers.items() if n != "content-type"]
            await self.refused(post(JSON, body.encode(), *headers, target=f"/SMSReceiver/{profile}"), 401)

    async def test_where_a_body_is_signed_the_query_does_not_stand_for_an_empty_one(self) -> None:
        claims = {"iat": int(time.time()), "jti": "j1"}
        token = Sent(url="", fields={}, json=True, at=0, secret=SECRET).token(claims)
        query = urlencode({"to": SIGNED, "from": "1", "text": "forged", "message_uuid": "u9"})
        target, bearer = f"/SMSReceiver/vonage-messages?{query}", f"Authorization: Bearer {token}"
        for kind in (JSON, "", FORM):
            await self.refused(post(kind, b"", bearer, target=target), 400)

    async def test_a_signature_with_a_header_twice_is_401(self) -> None:
        raw = sent(self.telnyx(time.time()))
        head, _, body = raw.partition(b"\r\n\r\n")
        [line] = [line for line in head.split(b"\r\n") if line.startswith(b"telnyx-timestamp")]
        await self.refused(head + b"\r\n" + line + b"\r\n\r\n" + body, 401)


def bandwidth(to: str) -> dict[str, object]:
    return {"type": "message-received", "to": to, "message": {"from": "1", "text": "x"}}


class BatchTests(BadInputTest):
    async def test_a_batch_that_is_cut_stores_nothing(self) -> None:
        whole = json.dumps({"results": [entry(text=str(n)) for n in range(50)]}).encode()
        for length in range(1, len(whole), 311):
            await self.refused(post(JSON, whole[:length], target="/SMSReceiver/infobip"), 400)
        xml = f"<batch>{sms_xml('a')}{sms_xml('b')}</batch>".encode()
        for length in range(1, len(xml), 17):
            await self.refused(post("text/xml", xml[:length], target="/SMSReceiver/gizmo"), 400)

    async def test_a_peer_that_hangs_up_within_a_batch_stores_nothing(self) -> None:
        body = json.dumps({"results": [entry(text=str(n)) for n in range(50)]}).encode()
        peer = await RawPeer.connect(self.site._port)
        peer.send(post(JSON, body, target="/SMSReceiver/infobip")[:-100])
        peer.close()
        await self.refused(post(JSON, b"{", target="/SMSReceiver/infobip"), 400)

    async def test_ten_thousand_entries_are_400(self) -> None:
        for profile, kind, body in (
            ("infobip", JSON, json.dumps({"results": [{}] * 10_000})),
            ("bandwidth", JSON, json.dumps([{}] * 10_000)),
            ("gizmo", "text/xml", f"<b>{'<sms/>' * 10_000}</b>"),
        ):
            self.assertLess(len(body), 65_536)
            await self.refused(post(kind, body.encode(), target=f"/SMSReceiver/{profile}"), 400)
        more = json.dumps({"results": [entry(text="x" * 40)] * 10_000}).encode()
        await self.refused(post(JSON, more, target="/SMSReceiver/infobip"), 413)

    async def test_the_last_of_a_thousand_decides_for_all(self) -> None:
        rows = [{"from": "1", "to": OPEN, "text": ""}] * (MAX_ENTRIES - 1)
        for last, status in (({"from": "1", "to": "999", "text": ""}, 404), ({"to": OPEN, "text": ""}, 400)):
            body = json.dumps({"results": [*rows, last]}, separators=(",", ":")).encode()
            self.assertLess(len(body), 65_536)
            await self.refused(post(JSON, body, target="/SMSReceiver/infobip"), status)


class HostileDocumentTests(BadInputTest):
    async def test_xml_bombs_and_external_entities_are_400(self) -> None:
        laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
        for doctype, text in (
            (f'<!DOCTYPE b [<!ENTITY l0 "ha">{laughs}]>', "&l9;"),
            ('<!DOCTYPE b [<!ENTITY x SYSTEM "file:///etc/hostname">]>', "&x;"),
            ('<!DOCTYPE b [<!ENTITY x SYSTEM "http://127.0.0.1:9/x">]>', "&x;"),
            ('<!DOCTYPE b [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x"> %p;]>', "x"),
            ('<!DOCTYPE b SYSTEM "http://127.0.0.1:9/x.dtd">', "x"),
            (f'<!DOCTYPE b [<!ENTITY x "{"a" * 30_000}">]>', "&x;" * 1000),
            ("", "&undefined;"),
        ):
            body = f"{doctype}<b>{sms_xml(text)}</b>".encode()
            response = await self.refused(post("text/xml", body, target="/SMSReceiver/gizmo"), 400)
            self.assertNotIn(b"ha", response.body.replace(b"that", b""))
        good = f"<b>{sms_xml('&#8364; &amp; &lt;')}</b>".encode()
        self.assertEqual(
            (await self.site.ask(post("text/xml", good, target="/SMSReceiver/gizmo"))).status, 200
        )
        self.assertEqual([row[2] for row in await self.site.stored()], ["€ & <"])

    async def test_depth_is_400(self) -> None:
        deep_array = "[" * 10_000 + "]" * 10_000
        deep_object = '{"a":' * 10_000 + "1" + "}" * 10_000
        for body in (
            deep_array,
            deep_object,
            "[" * 10_000,
            f'{{"results": [{{"to": "{OPEN}", "from": "1", "text": {deep_array}}}]}}',
        ):
            for profile in ("infobip", "bandwidth", "aws-sns"):
                await self.refused(post(JSON, body.encode(), target=f"/SMSReceiver/{profile}"), 400)
        inner = json.dumps({"Type": "Notification", "Message": deep_array})
        await self.refused(post(JSON, inner.encode(), target="/SMSReceiver/aws-sns"), 400)
        xml = f"<b>{'<c>' * 10_000}{'</c>' * 10_000}{sms_xml('x')}</b>".encode()
        response = await self.site.ask(post("text/xml", xml[:65_536], target="/SMSReceiver/gizmo"))
        self.assertIn(response.status, (200, 400))

    async def test_a_udh_that_lies_is_no_part_or_400_as_the_profile_says(self) -> None:
        lies = (
            "FF0003010201",
            "050003",
            "0500FF010201",
            "06080401",
            "050003010209",
            "050003010200",
            "zz",
            "0" * 9999,
        )
        for udh in lies:
            body = f"<b>{sms_xml('x', f'<udh>{udh}</udh>')}</b>".encode()
            await self.refused(post("text/xml", body, target="/SMSReceiver/gizmo"), 400)
        for n, udh in enumerate(lies):
            fields = {"to": OPEN, "msisdn": "49789", "text": "x", "messageId": f"{n}", "udh": udh}
            response = await self.site.ask(
                post(FORM, urlencode(fields).encode(), target="/SMSReceiver/vonage")
            )
            self.assertEqual(response.status, 200)
        self.assertEqual(len(await self.site.stored()), len(lies))


# --- whatever the profile ---------------------------------------------------------------------


def hostile_bodies() -> dict[str, tuple[str, str]]:
    """By name: Content-Type and body, of 64 KiB at most."""
    return {
        "deep array": (JSON, "[" * 32_000 + "]" * 32_000),
        "deep object": (JSON, '{"a":' * 10_000 + "1" + "}" * 10_000),
        "many members": (JSON, json.dumps({f"{n}": n for n in range(5000)})),
        "many entries": (JSON, json.dumps([{}] * 10_000)),
        "many in every list": (
            JSON,
            json.dumps(
                {name: [{"to": "1"}] * 900 for name in ("results", "messages", "data", "sms", "events")}
            ),
        ),
        "long number": (JSON, "9" * 65_000),
        "escapes": (JSON, json.dumps({"text": "\ud83d" * 8000, "to": "\0" * 2000})),
        "wide XML": ("text/xml", f"<a>{'<b/>' * 16_000}</a>"),
        "deep XML": ("text/xml", "<a>" * 9_000 + "</a>" * 9_000),
        "attributes": ("text/xml", "<a " + " ".join(f"a{n}='1'" for n in range(6000)) + "/>"),
        "many pairs": (FORM, "&".join(["to=1"] * 16_000)),
        "percent": (FORM, "text=" + "%25" * 20_000),
        "no pairs": (FORM, "&" * 65_000),
        "hex": (FORM, f"to=1&from=2&text={'ff' * 30_000}&udh={'00' * 1000}&coding=8"),
        "nothing": ("", ""),
        "bytes": ("application/octet-stream", "\0" * 65_000),
    }


class EveryProfileTests(UnitTest):
    def test_hostile_bodies_take_bounded_time_and_memory_and_are_read_or_refused(self) -> None:
        bodies = hostile_bodies()
        for profile in load(None).values():
            for name, (kind, text) in bodies.items():
                method = "POST" if "POST" in profile.methods else profile.methods[0]
                url = f"{PUBLIC_URL}/SMSReceiver/{profile.name}"
                body = text.encode("utf-8", "surrogatepass")
                request = wire_request(method, url, {"Content-Type": kind}, body)
                self.bounded(partial(_read, profile, request), f"{profile.name}: {name}")

    def bounded(self, read: Callable[[], None], what: str) -> None:
        tracemalloc.start()
        began = time.process_time()
        try:
            read()
        finally:
            spent, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
            tracemalloc.stop()
        self.assertLess(spent, LIMIT_SECONDS, what)
        self.assertLess(peak, LIMIT_BYTES, what)


def _read(loaded: LoadedProfile, request: WireRequest) -> None:
    """Any other error than a refusal is a bug."""
    recognised(loaded, request)
    try:
        reading = loaded.read(request)
    except RequestRefused:
        return
    assert len(reading.submissions) <= MAX_ENTRIES
