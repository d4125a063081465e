"""Provider profiles from the socket to the table: accepted, refused, answered as the provider wants."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64encode
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from twisted.internet.defer import ensureDeferred, gatherResults

from smsdaemon.errors import ConfigurationError
from tests.support.cases import ReactorTest
from tests.support.pages import FORM, get, post
from tests.support.profile_site import PUBLIC_URL, ProfileSite, connector, profile_site
from tests.support.raw_peer import Response

TWILIO, BANDWIDTH, OPEN = "+12028831111", "+12345678902", "385921004027"
SECRET = "auth-token-of-the-account"
USER = "user:password"
EMPTY_TWIML = b'<?xml version="1.0" encoding="UTF-8"?><Response/>'
JSON = "application/json"


def twilio_sms(text: str = "Hällo €", sid: str = "SM1", to: str = TWILIO) -> bytes:
    fields = {"To": to, "From": "+14133881111", "Body": text, "MessageSid": sid, "NumSegments": "1"}
    return urlencode(fields).encode()


def twilio(body: bytes, secret: str = SECRET, target: str = "/SMSReceiver/twilio") -> bytes:
    signed = PUBLIC_URL + target
    signed += "".join(name + value for name, value in sorted(parse_qsl(body.decode())))
    mac = hmac.new(secret.encode(), signed.encode(), hashlib.sha1).digest()
    return post(FORM, body, f"X-Twilio-Signature: {b64encode(mac).decode()}", target=target)


def infobip(*texts: str, to: str = OPEN, more: str = "") -> bytes:
    results = [
        {"messageId": f"{n}", "from": "385916242494", "to": to, "text": text} for n, text in enumerate(texts)
    ]
    return post(JSON, json.dumps({"results": results}).encode(), target=f"/SMSReceiver/infobip{more}")


def basic(credentials: str) -> str:
    return f"Authorization: Basic {b64encode(credentials.encode()).decode()}"


class ProfilePagesTest(ReactorTest):
    site: ProfileSite

    async def setUp(self) -> None:  # type: ignore[override]
        self.site = await profile_site(self)
        await self.site.apply(
            connector(TWILIO, provider="twilio", provider_secrets=["old", SECRET])
            + connector(BANDWIDTH, provider=["bandwidth", "generic"], provider_secrets=[USER])
            + connector(OPEN, provider=["infobip", "telnyx"], unsigned=True)
            + connector("2020", provider="vonage", unsigned=True)
        )
        self.site.serve()

    async def ask(self, request: bytes) -> Response:
        return await self.site.ask(request)


class AcceptedTests(ProfilePagesTest):
    async def test_a_signed_request_is_stored_and_answered_as_its_provider_wants(self) -> None:
        response = await self.ask(twilio(twilio_sms()))
        self.assertEqual((response.status, response.body), (200, EMPTY_TWIML))
        self.assertEqual(response.headers["content-type"], "text/xml")
        [(id,)] = await self.site.pool.query("SELECT id::text FROM message")
        self.assertEqual(response.headers["sms-message-id"], id)
        self.assertEqual(await self.site.stored(), [(TWILIO, "+14133881111", "Hällo €", "twilio", "SM1")])

    async def test_a_repeat_hears_the_same_and_is_stored_once(self) -> None:
        first, again = [await self.ask(twilio(twilio_sms())) for _ in range(2)]
        self.assertEqual(first.headers["sms-message-id"], again.headers["sms-message-id"])
        self.assertEqual(len(await self.site.stored()), 1)

    async def test_a_batch_is_stored_as_one_and_in_its_order(self) -> None:
        response = await self.ask(infobip("a", "b", "c"))
        self.assertEqual((response.status, response.body), (200, b""))
        self.assertEqual([row[2] for row in await self.site.stored()], ["a", "b", "c"])
        self.assertEqual(len(response.headers["sms-message-id"].split(", ")), 3)
        times = await self.site.pool.query("SELECT DISTINCT xmin::text FROM message")
        self.assertEqual(len(times), 1)

    async def test_many_batches_at_once_are_each_stored_whole(self) -> None:
        asked = [self.site.ask(infobip(*(f"{n} {k}" for k in range(30)), more=f"?n={n}")) for n in range(20)]
        responses = await gatherResults([ensureDeferred(one) for one in asked])
        self.assertEqual({response.status for response in responses}, {200})
        # The ids are the same in each batch, and the texts are not: none is a repeat.
        self.assertEqual(len(await self.site.stored()), 600)

    async def test_the_receiver_may_stand_in_the_urls_query(self) -> None:
        body = json.dumps({"results": [{"from": "1234", "text": "x"}]}).encode()
        response = await self.ask(post(JSON, body, target=f"/SMSReceiver/infobip?receiver={OPEN}"))
        self.assertEqual(response.status, 200)
        self.assertEqual(await self.site.stored(), [(OPEN, "1234", "x", "infobip", None)])

    async def test_what_is_no_sms_is_acknowledged_counted_and_not_stored(self) -> None:
        body = json.dumps({"data": {"event_type": "message.finalized", "payload": {}}}).encode()
        response = await self.ask(post(JSON, body, target="/SMSReceiver/telnyx"))
        self.assertEqual((response.status, response.body), (200, b""))
        self.assertEqual((await self.ask(get("/SMSReceiver/vonage"))).status, 200)
        self.assertEqual(self.site.not_sms, [("telnyx", "status report"), ("vonage", "probe")])
        self.assertEqual(await self.site.stored(), [])

    async def test_a_nonce_makes_a_repeat_recognisable_where_there_is_no_id(self) -> None:
        await self.site.apply(connector("2020", provider="vonage", provider_secrets=["s"], unsigned=False))
        request = vonage({"to": "2020", "msisdn": "49789", "text": "x", "nonce": "n1"})
        ids = [(await self.ask(request)).headers["sms-message-id"] for _ in range(2)]
        self.assertEqual(ids[0], ids[1])
        self.assertEqual(len(await self.site.stored()), 1)


def vonage(fields: dict[str, str], secret: str = "s") -> bytes:
    from time import time

    signed = {**fields, "timestamp": str(int(time()))}
    text = "".join(f"&{name}={value}" for name, value in sorted(signed.items()))
    sig = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return get("/SMSReceiver/vonage?" + urlencode({**signed, "sig": sig}))


class RefusedTests(ProfilePagesTest):
    async def assert_refused(self, request: bytes, status: int, body: str = "") -> Response:
        response = await self.ask(request)
        self.assertEqual(response.status, status, response.body)
        self.assertIn(body, response.body.decode())
        self.assertEqual(await self.site.stored(), [])
        return response

    async def test_a_wrong_signature_is_401_in_the_providers_own_format(self) -> None:
        response = await self.assert_refused(twilio(twilio_sms(), secret="wrong"), 401, "signature")
        self.assertEqual(response.headers["content-type"], "text/xml")
        self.assertIn("www-authenticate", response.headers)
        await self.assert_refused(post(FORM, twilio_sms(), target="/SMSReceiver/twilio"), 401)

    async def test_a_signature_cannot_be_walked_round_by_another_url(self) -> None:
        fields = urlencode({"receiver": TWILIO, "sender": "1", "message": "x"})
        await self.assert_refused(get(f"/SMSReceiver?{fields}"), 401, "another provider")
        await self.assert_refused(infobip("x", to=TWILIO), 401, "another provider")
        await self.assert_refused(twilio(twilio_sms(to=OPEN)), 401)

    async def test_a_connector_may_have_several_providers(self) -> None:
        fields = urlencode({"receiver": BANDWIDTH, "sender": "1", "message": "x"})
        self.assertEqual((await self.ask(get(f"/SMSReceiver?{fields}"))).status, 200)
        entry = {"type": "message-received", "to": BANDWIDTH, "message": {"from": "1", "text": "y"}}
        body = json.dumps([entry]).encode()
        for credentials, status in ((USER, 200), ("user:wrong", 401)):
            request = post(JSON, body, basic(credentials), target="/SMSReceiver/bandwidth")
            self.assertEqual((await self.ask(request)).status, status)

    async def test_one_wrong_entry_refuses_its_whole_batch(self) -> None:
        good = {"messageId": "1", "from": "1", "to": OPEN, "text": "x"}
        for wrong, status in (
            ({"messageId": "2", "from": "1", "to": "999", "text": "x"}, 404),
            ({"messageId": "2", "from": "1", "to": TWILIO, "text": "x"}, 401),
            ({"messageId": "2", "to": OPEN, "text": "x"}, 400),
        ):
            body = json.dumps({"results": [good, wrong]}).encode()
            await self.assert_refused(post(JSON, body, target="/SMSReceiver/infobip"), status)

    async def test_what_cannot_be_routed_is_502_and_kept_with_its_neighbours(self) -> None:
        await self.site.apply(
            connector(OPEN, provider="infobip")
            + '[[connector]]\nclient = "acme/shop"\nnumber = "777"\nprovider = "infobip"\n'
        )
        good = {"from": "1", "to": OPEN, "text": "x"}
        body = json.dumps({"results": [good, {**good, "to": "777"}]}).encode()
        await self.assert_refused(post(JSON, body, target="/SMSReceiver/infobip"), 502)
        self.assertEqual([sms.receiver for sms in self.site.refused.kept], [OPEN, "777"])

    async def test_methods_bodies_and_pages_that_there_are_not(self) -> None:
        response = await self.assert_refused(get("/SMSReceiver/telnyx"), 405)
        self.assertEqual(response.headers["allow"], "POST")
        await self.assert_refused(post("text/csv", b"x", target="/SMSReceiver/twilio"), 415)
        await self.assert_refused(post(JSON, b"{", target="/SMSReceiver/infobip"), 400, "JSON")
        await self.assert_refused(get("/SMSReceiver/nobody"), 404)

    async def test_hostile_bodies_are_400_and_quick(self) -> None:
        deep = b"[" * 10_000
        bomb = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]><x>&a;</x>'
        many = json.dumps({"results": [{}] * 10_000}).encode()
        for body in (
            deep,
            many[:65536],
            json.dumps({"results": [{}] * 1001}).encode(),
            b'{"results": 1e999}',
        ):
            await self.assert_refused(post(JSON, body, target="/SMSReceiver/infobip"), 400)
        await self.assert_refused(post("text/xml", bomb, target="/SMSReceiver/infobip"), 415)

    async def test_a_nonce_with_another_request_is_refused(self) -> None:
        [c] = [c for c in self.site.directory.connectors.values() if c.number == "2020"]
        see = self.site.nonces.see
        self.assertTrue(await see(c.id, "n", b"a", True))
        self.assertTrue(await see(c.id, "n", b"a", True))
        self.assertFalse(await see(c.id, "n", b"b", True))
        self.assertTrue(await see(c.id + 1, "n", b"b", True))


class OwnProfileTests(ReactorTest):
    PROFILE = """
name = "gizmo"
description = "Gizmo Telecom"
methods = ["GET"]
[fields]
receiver = "dst"
sender = "src"
text = "txt"
message_id = "ref"
[text]
[[text.rules]]
when = { enc = "ucs2" }
written = "hex"
charset = "utf-16be"
[authentication]
scheme = "token"
parameter = "key"
[answers.success]
body = "OK {message_id}"
[answers.duplicate]
body = "DUP {message_id}"
[answers.401]
status = 403
body = "NO: {detail}"
"""

    async def test_a_provider_is_added_by_a_file_alone(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "gizmo.toml").write_text(self.PROFILE)
        site = await profile_site(self, folder)
        await site.apply(connector("5151", provider="gizmo", provider_secrets=["k1"]))
        site.serve()
        fields = {"dst": "5151", "src": "49789789", "txt": "00fc20ac", "enc": "ucs2", "ref": "r<1>"}
        target = "/SMSReceiver/gizmo?" + urlencode({**fields, "key": "k1"})
        response = await site.ask(get(target))
        self.assertEqual((response.status, response.body), (200, b"OK r<1>"))
        self.assertEqual((await site.ask(get(target))).body, b"DUP r<1>")
        refused = await site.ask(get("/SMSReceiver/gizmo?" + urlencode({**fields, "key": "k2"})))
        self.assertEqual((refused.status, refused.body), (403, b"NO: the parameter key is wrong"))
        self.assertEqual(await site.stored(), [("5151", "+49789789", "ü€", "gizmo", "r<1>")])

    async def test_apply_refuses_what_could_not_work(self) -> None:
        site = await profile_site(self)
        for keys, why in (
            ({"provider": "nobody"}, 'provider "nobody" does not exist'),
            ({"provider": "twilio"}, "provider_secrets is missing, and twilio signs"),
            ({"provider": "bandwidth", "provider_secrets": ["x"]}, "provider_secrets: no. 1 cannot be used"),
            ({"provider": "generic", "provider_secrets": ["x"]}, "none of its providers signs"),
            ({"provider": []}, "must be the name of a profile"),
            ({"provider_secrets": [""]}, "must not hold an empty secret"),
        ):
            with self.assertRaises(ConfigurationError) as caught:
                await site.apply(connector("1000", **keys))
            self.assertIn(why, str(caught.exception))
