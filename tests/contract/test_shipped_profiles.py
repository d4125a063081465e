"""The shipped profiles: each reads an example, and answers what its provider wants to hear."""

from __future__ import annotations

import json
from base64 import b64encode
from functools import reduce
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from attrs import evolve

from smsdaemon.domain.concatenation import Concatenation, joined
from smsdaemon.domain.model import Part, Submission, WireRequest
from smsdaemon.domain.reading import ProviderAnswer
from smsdaemon.providers.catalogue import load
from smsdaemon.providers.loaded import LoadedProfile
from tests.support.cases import UnitTest
from tests.support.sms_parts import part as sms_part
from tests.support.vectors import BASE_URL, request_of, vectors, wire_request

PROFILES = load(None)
OUR_ID = "01900000-0000-7000-8000-000000000001"

XML = '<?xml version="1.0" encoding="UTF-8"?><Response/>'
ERROR_XML = '<?xml version="1.0" encoding="UTF-8"?><!--  --><Response/>'
DEMANDS: dict[str, tuple[str, str]] = {
    "twilio": ("text/xml", XML),
    "signalwire": ("text/xml", XML),
    "plivo": ("text/xml", "<Response/>"),
    "messagebird": ("text/plain", "OK"),
    "jasmin": ("text/plain", "ACK/Jasmin"),
    "dartmedia": ("text/plain", "000"),
    "macrokiosk": ("text/plain", "-1"),
    "mobivate": ("text/plain", "0"),
    "m3tech": ("application/json", f"SMS Accepted: {OUR_ID}"),
    "openmarket-uk": ("text/plain", "OK"),
    "smsdeliverer": ("text/plain", "ce563271-ac66-4d48-acea-edb3af7beea9"),
    "smssync": ("application/json", '{"payload": {"success": true, "error": null}}'),
    "startmobile": ("text/xml", '<answer type="async"><state>Accepted</state></answer>'),
}
"""What they must hear; all others hear 200 with an empty body, which those need that send it to the phone."""

TO_THE_PHONE = ("twilio", "signalwire", "46elks", "gupshup", "kannel", "telerivet", "i2sms")
"""Whatever their answers hold may be sent to the phone, or must be empty: errors say nothing."""

NO_REPEAT_AFTER_4XX = ("sinch", "mblox", "aws-sns", "textbee")
"""They would lose what comes while a connector is missing or has the wrong secret."""

CONSTRUCTED: dict[str, dict[str, Any]] = {
    "vonage-messages": {
        "channel": "sms",
        "message_uuid": "aaaaaaaa-bbbb-cccc-dddd-0123456789ab",
        "to": "447700900000",
        "from": "447700900001",
        "text": "hello",
        "timestamp": "2026-01-01T14:00:00.000Z",
    },
    "telnyx-v1": {
        "sms_id": "834f3d53-8a3c-4aa0-a733-7f2d682a72df",
        "direction": "inbound",
        "from": "+13129450002",
        "to": "+13125550001",
        "body": "Hello!",
    },
}
"""Where no vector holds an SMS."""


def posted(document: object) -> WireRequest:
    headers = {"Content-Type": "application/json"}
    return wire_request("POST", BASE_URL + "/SMSReceiver/x", headers, json.dumps(document).encode())


def got(**fields: str | bytes) -> WireRequest:
    return wire_request("GET", f"{BASE_URL}/SMSReceiver/x?{urlencode(fields)}")


def form(**fields: str | bytes) -> WireRequest:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return wire_request("POST", BASE_URL + "/SMSReceiver/x", headers, urlencode(fields).encode())


def example(name: str) -> WireRequest:
    """An SMS of this provider's, with a receiver in the URL in any case."""
    if name in CONSTRUCTED:
        request = posted(CONSTRUCTED[name])
    else:
        request = next(
            request_of(vector)
            for vector in vectors()
            if vector["provider"] == name and vector["expect"]["kind"] in ("mo", "batch")
        )
    return (
        evolve(request, query=request.query + b"&receiver=49123") if request.query else with_receiver(request)
    )


def with_receiver(request: WireRequest) -> WireRequest:
    return evolve(request, query=b"receiver=49123")


def read(name: str, request: WireRequest) -> Submission:
    """The one SMS in it."""
    [submission] = PROFILES[name].read(request).submissions
    return submission


class AnswerTests(UnitTest):
    def test_each_has_an_example_and_reads_it(self) -> None:
        for name, profile in PROFILES.items():
            reading = profile.read(example(name))
            self.assertEqual(reading.kind, "messages", name)
            for submission in reading.submissions:
                self.assertEqual(submission.provider, name)
                self.assertTrue(submission.receiver and submission.sender and submission.text is not None)

    def answer(self, profile: LoadedProfile, duplicate: bool) -> ProviderAnswer:
        request = example(profile.name)
        return profile.success(request, profile.read(request), OUR_ID, duplicate)

    def test_success_and_repeat_hear_what_the_provider_demands(self) -> None:
        self.assertEqual(set(DEMANDS) - set(PROFILES), set())
        for name, profile in PROFILES.items():
            kind, body = DEMANDS.get(name, ("text/plain", ""))
            for duplicate in (False, True):
                answer = self.answer(profile, duplicate)
                self.assertEqual(answer.status, 200, name)
                self.assertEqual(
                    (answer.content_type.partition(";")[0], answer.body.decode()), (kind, body), name
                )

    def test_errors_that_might_be_sent_to_the_phone_say_nothing(self) -> None:
        for name in TO_THE_PHONE:
            for status in (400, 401, 404, 413, 415, 500, 502):
                answer = PROFILES[name].refusal(status, "")
                assert answer is not None, name
                self.assertIn(answer.body.decode(), ("", "<Response/>", XML, ERROR_XML), name)

    def test_no_error_hears_what_success_does(self) -> None:
        for name in DEMANDS:
            for status in (400, 401, 404, 500, 502):
                answer = PROFILES[name].refusal(status, "it is wrong")
                self.assertTrue(answer is None or answer.status >= 400, name)

    def test_what_could_not_be_stored_is_always_5xx(self) -> None:
        for name, profile in PROFILES.items():
            for status in (500, 502):
                answer = profile.refusal(status, "")
                self.assertTrue(answer is None or answer.status >= 500, name)

    def test_who_never_repeats_after_4xx_hears_5xx_of_what_can_be_mended_here(self) -> None:
        for name in NO_REPEAT_AFTER_4XX:
            for status in (401, 404):
                answer = PROFILES[name].refusal(status, "no connector")
                assert answer is not None
                self.assertEqual((answer.status, answer.body), (503, b"no connector"), name)
            self.assertIsNone(PROFILES[name].refusal(400, "cannot be read"))

    def test_vonage_repeats_what_came_without_its_signature(self) -> None:
        answer = PROFILES["vonage-messages"].refusal(401, "")
        assert answer is not None
        self.assertEqual(answer.status, 503)

    def test_head_is_a_probe_for_all(self) -> None:
        for name, profile in PROFILES.items():
            reading = profile.read(wire_request("HEAD", BASE_URL))
            assert reading.answer is not None
            self.assertEqual((reading.kind, reading.answer.status), ("not_an_sms", 200), name)

    def test_smssync_is_told_that_there_is_nothing_to_do(self) -> None:
        for task, expected in (
            ("send", {"payload": {"task": "send", "secret": "", "messages": []}}),
            ("sent", {"message_uuids": []}),
            ("result", {"message_uuids": []}),
        ):
            reading = PROFILES["smssync"].read(got(task=task))
            assert reading.answer is not None
            self.assertEqual((reading.kind, json.loads(reading.answer.body)), ("not_an_sms", expected))


class AboutTests(UnitTest):
    def test_setup_names_the_url_with_what_the_requests_lack(self) -> None:
        for name, profile in PROFILES.items():
            setup = " ".join(profile.profile.about.setup.split())
            self.assertIn(f"https://HOST/SMSReceiver/{name}", setup)
            self.assertEqual("provider_secrets" in setup, profile.has_scheme, name)
            if not profile.has_scheme:
                self.assertIn("token=", setup, name)
            if not profile.profile.fields.receiver:
                self.assertIn("receiver=NUMBER", setup, name)

    def test_who_has_no_id_says_that_repeats_cannot_be_told(self) -> None:
        for name, profile in PROFILES.items():
            if not profile.profile.fields.message_id:
                self.assertIn("a repeat cannot be told", " ".join(profile.profile.about.quirks), name)


class PartTests(UnitTest):
    """What the vectors have no example of."""

    PART = Part(reference="167", number=1, total=2)

    def test_openmarket_in_three_writings(self) -> None:
        fields = {"smsto": "913", "smsfrom": "44793", "smsid": "1", "smsudh": "050003A70201"}
        for bits, field, text in (
            ("7", "smsmsg", "price € 5".encode("iso-8859-15")),
            ("16", "smsucs2", "Тест".encode("utf-16be").hex()),
        ):
            sms = read("openmarket-uk", got(**fields, bits=bits, **{"smsmsg": "?", field: text}))
            self.assertIn(sms.text, ("price € 5", "Тест"))
            self.assertEqual(sms.part, self.PART)
        sms = read("openmarket-uk", got(**fields, bits="8", smsmsg="020a3a51c9"))
        self.assertEqual((sms.text, sms.encoding), ("", "binary"))

    def test_a_udh_in_hex(self) -> None:
        sap = {"msisdn": "49", "originatingAddress": "1", "message": "a", "messageId": "1"}
        for name, request in (
            ("geniq", got(recipient="1", originator="49", message="a", messageId="1", udh="050003A70201")),
            ("saplivelink", posted(sap | {"parameters": {"dcs": "7b", "udh": "050003A70201"}})),
            ("clickatell-classic", got(to="1", **{"from": "49"}, text="a", moMsgId="1", udh="050003A70201")),
            ("vonage", got(to="1", msisdn="49", type="binary", data="ff", messageId="1", udh="050003A70201")),
        ):
            self.assertEqual(read(name, request).part, self.PART, name)

    def test_sinch_s_binary_parts(self) -> None:
        sms = {"type": "mo_binary", "id": "1", "to": "1", "from": "49", "udh": "050003A70201"}
        for name in ("sinch", "mblox"):
            found = read(name, posted(sms | {"body": b64encode(b"\xff\x00").decode()}))
            self.assertEqual((found.part, found.text, found.encoding), (self.PART, "", "binary"))

    def test_kannel_s_of_the_url_as_bytes_and_of_the_header_in_hex(self) -> None:
        fields = {"from": "49", "to": "1", "text": "a"}
        of_url = got(**fields, udh=b"\x05\x00\x03\xa7\x02\x01")
        headers = {"X-Kannel-From": "49", "X-Kannel-To": "1", "X-Kannel-UDH": "050003A70201"}
        headers["Content-Type"] = "text/plain; charset=UTF-8"
        of_header = wire_request("POST", BASE_URL, headers, b"a")
        for request in (of_url, of_header):
            self.assertEqual(read("kannel", request).part, self.PART)


class TextTests(UnitTest):
    """What the vectors have no example of."""

    def test_jasmin_s_codings_as_number_and_as_byte(self) -> None:
        for number, content, text in (
            (0, b"\x05v\x05nement \x1be", "événement €"),
            (3, "fünf".encode("latin-1"), "fünf"),
            (8, "😀".encode("utf-16be"), "😀"),
            (4, b"\xff\x00", ""),
        ):
            for coding in (str(number).encode(), bytes([number])):
                request = got(id="1", **{"from": "49"}, to="1", content=content, coding=coding)
                self.assertEqual(read("jasmin", request).text, text, coding)

    def test_a_medium_is_not_taken_for_a_text(self) -> None:
        sms = {"type": "mo_media", "id": "1", "to": "1", "from": "49"}
        for name in ("sinch", "mblox"):
            self.assertEqual(read(name, posted(sms | {"body": {"message": "m", "media": []}})).text, "m")
            self.assertEqual(read(name, posted(sms | {"body": {"media": []}})).text, "")
        reading = PROFILES["mblox"].read(posted(sms | {"type": "delivery_report_sms"}))
        self.assertEqual((reading.kind, reading.name), ("not_an_sms", "status report"))

    def test_of_thinq_s_mms_the_bytes_are_kept(self) -> None:
        sms = {"from": "2065551234", "to": "2065551212", "type": "mms", "message": "hello there"}
        found = read("thinq", form(**sms))
        self.assertEqual((found.text, found.encoding, found.raw_text), ("", "binary", b"hello there"))

    def test_receipts_of_bulkvs_and_inteliquent_are_no_sms(self) -> None:
        bulkvs = {"From": "49", "To": ["1"], "Message": "id:1 stat:DELIVRD"}
        other = {"from": "49", "to": ["1"], "text": "", "referenceId": "1"}
        for name, report, sms in (
            ("bulkvs", bulkvs | {"DeliveryReceipt": True}, bulkvs | {"DeliveryReceipt": False}),
            ("bulkvs", bulkvs | {"DeliveryReceipt": "true"}, bulkvs | {"DeliveryReceipt": ""}),
            ("bulkvs", bulkvs | {"DeliveryReceipt": "1"}, bulkvs),
            (
                "inteliquent",
                other | {"deliveryReceipt": True},
                other | {"deliveryReceipt": False},
            ),
        ):
            reading = PROFILES[name].read(posted(report))
            self.assertEqual((reading.kind, reading.name), ("not_an_sms", "status report"))
            self.assertEqual(read(name, posted(sms)).receiver, "1")

    def test_kannel_s_charset_of_the_url_counts(self) -> None:
        fields = {"from": "49", "to": "1"}
        for charset, text in (("UTF-16BE", "ä \u2020 😀"), ("UTF-8", "ä"), ("ISO-8859-1", "ä")):
            sms = read("kannel", got(**fields, text=text.encode(charset), charset=charset))
            self.assertEqual((sms.text, sms.encoding, sms.sender), (text, charset.lower(), "49"))
        sms = read("kannel", got(**fields, text=b"\xff\x00", charset="8-BIT", coding="1"))
        self.assertEqual((sms.text, sms.encoding, sms.raw_text), ("", "binary", b"\xff\x00"))

    def test_clickatell_s_charset_counts_for_the_text_only_and_forms_are_decoded_once(self) -> None:
        for name, numbers in (
            ("clickatell", {"fromNumber": "49", "toNumber": "1"}),
            ("clickatell-classic", {"from": "49", "to": "1"}),
        ):
            for charset, text in (("ISO-8859-1", "café 1+1 %41"), ("UTF-16BE", "ü 😀"), ("UTF-8", "ü")):
                sms = read(name, form(**numbers, text=text.encode(charset), charset=charset))
                self.assertEqual((sms.text, sms.sender, sms.receiver), (text, "49", "1"), (name, charset))

    def test_openmarket_s_binary_parts_keep_their_bytes(self) -> None:
        parts = [
            read("openmarket-uk", got(smsto="1", smsfrom="49", bits="8", smsmsg=text, smsudh=udh))
            for text, udh in (("DEADBEEF01", "0500032A0201"), ("02FF", "0500032A0202"))
        ]
        whole = reduce(
            Concatenation.with_part,
            (sms_part("", 0, part=p.part, encoding=p.encoding, raw_text=p.raw_text) for p in parts),
            Concatenation(id=UUID(int=0), parts={}),
        )
        sms = joined(evolve(whole, id=whole.first.id))
        self.assertEqual(
            (sms.text, sms.encoding, sms.raw_text), ("", "binary", bytes.fromhex("DEADBEEF0102FF"))
        )

    def test_android_s_data_sms_are_kept_as_bytes(self) -> None:
        payload = {
            "messageId": "1",
            "sender": "49",
            "recipient": "1",
            "data": b64encode(b"\xff\x00").decode(),
        }
        sms = read("android-sms-gateway", posted({"event": "sms:data-received", "payload": payload}))
        self.assertEqual((sms.receiver, sms.text, sms.encoding), ("1", "", "binary"))

    def test_percent_signs_of_bulkvs_and_clickatell_survive(self) -> None:
        sms = {"From": "49", "To": ["1"], "Message": "50%25+%2B+more"}
        self.assertEqual(read("bulkvs", posted(sms)).text, "50% + more")
        click = {"fromNumber": "49", "toNumber": "1", "text": "50% + more", "charset": "UTF-8"}
        self.assertEqual(read("clickatell", posted(click)).text, "50% + more")
