"""Amazon SNS: whose certificate is fetched, from where, and what it has signed."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed

from smsdaemon.domain.model import Verified, WireRequest
from smsdaemon.errors import FetchFailed, SignatureRefused
from smsdaemon.ports import Fetch, HandshakeAnswer, PreparedScheme
from smsdaemon.providers.certificates import MAX_KEPT, MAX_UNDER_WAY
from smsdaemon.providers.handshakes.sns_subscription import SnsSubscription
from smsdaemon.providers.schemes.sns import Sns
from tests.support.cases import UnitTest
from tests.support.fired import outcome
from tests.support.vectors import wire_request
from tests.unit.schemes.test_schemes import ANY, changed

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
TOPIC = "arn:aws:sns:eu-central-1:123456789012:mo"
HOST = "sns.eu-central-1.amazonaws.com"
CERTIFICATE = f"https://{HOST}/SimpleNotificationService-0123456789abcdef.pem"
CONFIRM = f"https://{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=t0ken"

BASE = {
    "Type": "Notification",
    "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
    "TopicArn": TOPIC,
    "Message": '{"messageBody": "Grüße"}',
    "Timestamp": "2026-11-26T11:59:58.123Z",
    "SignatureVersion": "2",
    "SigningCertURL": CERTIFICATE,
}
SUBSCRIPTION = {"Type": "SubscriptionConfirmation", "Token": "t0ken", "SubscribeURL": CONFIRM}

ELSEWHERE = (
    CERTIFICATE.replace("https", "http"),
    CERTIFICATE.replace("eu-central-1", "us-east-1"),
    f"https://{HOST}.evil.example/a.pem",
    f"https://evil.example/{HOST}/a.pem",
    f"https://{HOST}@evil.example/a.pem",
    f"https://user:pw@{HOST}/a.pem",
    f"https://{HOST}:8443/a.pem",
    f"https://{HOST}:443/a.pem",
    f"https://{HOST}\\@evil.example/a.pem",
    f"https://{HOST}/a.pem?x=1",
    f"https://{HOST}/a.pem#x",
    f"https://{HOST}/a.txt",
    f"https://{HOST}/../a.pem",
    f"https://{HOST}/b/a.pem",
    f"https://{HOST}/%2e%2e.pem",
    f"HTTPS://{HOST}/a.pem",
    f"https://{HOST.upper()}/a.pem",
    f"https://{HOST}./a.pem",
    f"https://{HOST}/a.pem\n",
    f" https://{HOST}/a.pem",
    f"//{HOST}/a.pem",
    "https://sns.us-east-1.amazonaws.com.cn/a.pem",
    "file:///etc/ssl/a.pem",
    "",
)


@cache
def key_pair(name: str) -> tuple[rsa.RSAPrivateKey, bytes]:
    """A key and its certificate in PEM, made once per run."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key, certificate(key, NOW + timedelta(days=90))


def certificate(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, until: datetime) -> bytes:
    """Of the key, signed by itself."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    builder = x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW - timedelta(days=900)).not_valid_after(until)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


def envelope(**members: str) -> WireRequest:
    """Signed by SNS, with these members instead of the usual ones."""
    return posted(signed({**BASE, **members}))


def signed(members: dict[str, str]) -> dict[str, str]:
    """With its signature, by the rules of AWS' documentation."""
    names = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
    text = "".join(f"{name}\n{members[name]}\n" for name in names if name in members)
    hashed = SHA1() if members["SignatureVersion"] == "1" else SHA256()
    signature = key_pair("sns")[0].sign(text.encode(), PKCS1v15(), hashed)
    return {**members, "Signature": b64encode(signature).decode()}


def posted(members: object) -> WireRequest:
    """As SNS sends it."""
    headers = {"Content-Type": "text/plain; charset=UTF-8"}
    return wire_request(
        "POST", "https://sms.example.com/SMSReceiver/aws-sns", headers, json.dumps(members).encode()
    )


class Network:
    """Answers each URL with what it was given, and remembers what was asked for."""

    def __init__(self, pem: bytes | None = None) -> None:
        self.asked: list[str] = []
        self.pem = pem or key_pair("sns")[1]

    def __call__(self, url: str) -> Deferred[bytes]:
        self.asked.append(url)
        return succeed(self.pem if url.endswith(".pem") else b"<ConfirmSubscriptionResponse/>")


class SilentNetwork:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Deferred[bytes]]] = []

    def __call__(self, url: str) -> Deferred[bytes]:
        self.asked.append((url, Deferred()))
        return self.asked[-1][1]


class SnsTest(UnitTest):
    def setUp(self) -> None:
        self.scheme = Sns()
        self.network = Network()

    def verified(self, request: WireRequest, *, topic: str = TOPIC, now: datetime = NOW) -> Verified:
        """Prepared and verified, as the receiver does."""
        self.prepared(request, topic=topic, now=now)
        return self.scheme.verify(request, [topic], now)

    def prepared(
        self, request: WireRequest, *, topic: str = TOPIC, now: datetime = NOW, fetch: Fetch | None = None
    ) -> None:
        ready = self.scheme.prepare(request, [topic], now, fetch or self.network)
        outcome(ready)


class NotificationTests(SnsTest):
    def test_both_versions_are_good_with_and_without_a_subject(self) -> None:
        for members in (
            {},
            {"SignatureVersion": "1"},
            {"Subject": "s"},
            {"Subject": "s", "SignatureVersion": "1"},
        ):
            self.assertEqual(self.verified(envelope(**members)).nonce, BASE["MessageId"])

    def test_it_needs_to_be_prepared_and_says_so_by_its_type(self) -> None:
        self.assertIsInstance(self.scheme, PreparedScheme)
        with self.assertRaises(SignatureRefused):
            self.scheme.verify(envelope(), [TOPIC], NOW)

    def test_the_certificate_is_fetched_once(self) -> None:
        for _ in range(3):
            self.verified(envelope())
        self.assertEqual(self.network.asked, [CERTIFICATE])

    def test_after_a_day_it_is_fetched_again(self) -> None:
        self.verified(envelope())
        late = NOW + timedelta(hours=25)
        self.verified(envelope(Timestamp="2026-11-27T12:59:00Z"), now=late)
        self.assertEqual(len(self.network.asked), 2)

    def test_nothing_is_fetched_from_elsewhere(self) -> None:
        for url in ELSEWHERE:
            with self.assertRaises(SignatureRefused, msg=url):
                self.verified(envelope(SigningCertURL=url))
        self.assertEqual(self.network.asked, [])

    def test_nothing_is_fetched_for_a_strangers_topic(self) -> None:
        for arn in (
            TOPIC.replace("123456789012", "999999999999"),
            TOPIC + "x",
            "arn:aws:sns:evil.example#:123456789012:x",
        ):
            with self.assertRaises(SignatureRefused):
                self.verified(envelope(TopicArn=arn))
        self.assertEqual(self.network.asked, [])

    def test_a_topic_in_china_has_its_certificate_there(self) -> None:
        arn = "arn:aws-cn:sns:cn-north-1:123456789012:mo"
        url = "https://sns.cn-north-1.amazonaws.com.cn/a.pem"
        self.verified(envelope(TopicArn=arn, SigningCertURL=url), topic=arn)
        self.assertEqual(self.network.asked, [url])

    @ANY
    @given(st.data(), st.sampled_from(["Message", "MessageId", "Timestamp", "Subject", "Type"]))
    def test_a_changed_member_is_refused(self, data: st.DataObject, name: str) -> None:
        members = signed({**BASE, "Subject": "subject"})
        members[name] = changed(data, members[name])
        with self.assertRaises(SignatureRefused):
            self.verified(posted(members))

    @ANY
    @given(st.data())
    def test_a_changed_signature_is_refused(self, data: st.DataObject) -> None:
        members = signed(BASE)
        members["Signature"] = changed(data, members["Signature"])
        with self.assertRaises(SignatureRefused):
            self.verified(posted(members))

    def test_a_member_that_comes_twice_is_refused(self) -> None:
        whole = envelope()
        for name in (b"Message", b"message"):
            body = whole.body.replace(b'{"Type"', b'{"' + name + b'": "forged", "Type"', 1)
            with self.assertRaises(SignatureRefused):
                self.verified(WireRequest(method="POST", url=whole.url, query=b"", headers={}, body=body))

    def test_what_was_published_long_ago_or_in_the_future_is_refused(self) -> None:
        for timestamp, good in (
            ("2026-11-26T11:00:00.000Z", True),
            ("2026-11-26T10:50:00.000Z", False),
            ("2026-11-26T12:04:00.000Z", True),
            ("2026-11-26T12:06:00.000Z", False),
        ):
            request = envelope(Timestamp=timestamp)
            if good:
                self.verified(request)
            else:
                with self.assertRaises(SignatureRefused):
                    self.verified(request)

    def test_a_version_that_the_profile_does_not_take_is_refused(self) -> None:
        self.scheme = Sns(versions=("2",))
        with self.assertRaises(SignatureRefused):
            self.verified(envelope(SignatureVersion="1"))

    @ANY
    @given(
        st.recursive(
            st.none() | st.text() | st.integers(),
            lambda c: st.lists(c) | st.dictionaries(st.sampled_from([*BASE, "Signature", "Subject"]), c),
            max_leaves=20,
        )
    )
    def test_whatever_comes_is_refused(self, document: object) -> None:
        with self.assertRaises(SignatureRefused):
            self.verified(posted(document))
        if isinstance(document, dict):
            with self.assertRaises(SignatureRefused):
                self.verified(posted({**signed(BASE), "Message": "x", **document}))


class CertificateTests(SnsTest):
    def test_what_is_no_usable_certificate_is_our_side_and_not_asked_for_at_once_again(self) -> None:
        weak = certificate(
            rsa.generate_private_key(public_exponent=65537, key_size=1024), NOW + timedelta(days=9)
        )
        other = certificate(ec.generate_private_key(ec.SECP256R1()), NOW + timedelta(days=9))
        expired = certificate(key_pair("sns")[0], NOW - timedelta(seconds=1))
        for pem in (b"<html>", b"\xff", weak, other, expired):
            self.scheme, self.network = Sns(), Network(pem)
            for _ in range(2):
                with self.assertRaises(FetchFailed):
                    self.verified(envelope())
            self.assertEqual(len(self.network.asked), 1)
            self.network.pem = key_pair("sns")[1]
            self.verified(envelope(), now=NOW + timedelta(seconds=11))

    def test_a_certificate_of_another_key_is_refused(self) -> None:
        self.network = Network(key_pair("another")[1])
        with self.assertRaises(SignatureRefused):
            self.verified(envelope())

    def test_all_who_need_it_wait_for_one_fetch_and_one_may_go(self) -> None:
        network = SilentNetwork()
        waiting = [self.prepare(network) for _ in range(3)]
        self.assertEqual(len(network.asked), 1)
        waiting[1].addErrback(lambda failure: None)
        waiting[1].cancel()
        network.asked[0][1].callback(key_pair("sns")[1])
        outcome(waiting[0])
        outcome(waiting[2])

    def test_only_so_many_are_fetched_at_once(self) -> None:
        network = SilentNetwork()
        for n in range(MAX_UNDER_WAY):
            self.prepare(network, SigningCertURL=f"https://{HOST}/{n}.pem").addErrback(lambda failure: None)
        with self.assertRaises(FetchFailed):
            outcome(self.prepare(network, SigningCertURL=f"https://{HOST}/more.pem"))
        for _, answer in network.asked:
            answer.errback(FetchFailed("away"))
        self.assertEqual(len(network.asked), MAX_UNDER_WAY)

    def test_bogus_urls_neither_push_out_a_key_nor_keep_it_from_being_fetched_again(self) -> None:
        self.verified(envelope())
        bogus = Network(b"<html>")
        for n in range(MAX_KEPT + 10):
            self.prepare(bogus, SigningCertURL=f"https://{HOST}/{n}.pem").addErrback(lambda failure: None)
        self.assertEqual(len(bogus.asked), MAX_KEPT + 10)
        self.verified(envelope())
        self.assertEqual(self.network.asked, [CERTIFICATE])
        hanging = SilentNetwork()
        for n in range(MAX_UNDER_WAY):
            url = f"https://{HOST}/hangs-{n}.pem"
            self.prepare(hanging, SigningCertURL=url).addErrback(lambda failure: None)
        self.assertEqual(len(hanging.asked), MAX_UNDER_WAY)
        tomorrow = NOW + timedelta(days=1, seconds=1)
        self.verified(envelope(Timestamp=tomorrow.isoformat()), now=tomorrow)
        self.assertEqual(self.network.asked, [CERTIFICATE] * 2)

    def test_those_of_one_region_do_not_stand_in_the_way_of_another(self) -> None:
        hanging = SilentNetwork()
        for n in range(MAX_UNDER_WAY):
            url = f"https://{HOST}/hangs-{n}.pem"
            self.prepare(hanging, SigningCertURL=url).addErrback(lambda failure: None)
        topic = TOPIC.replace("eu-central-1", "us-east-1")
        url = CERTIFICATE.replace("eu-central-1", "us-east-1")
        request = envelope(TopicArn=topic, SigningCertURL=url)
        outcome(Deferred.fromCoroutine(self.scheme.prepare(request, [topic], NOW, self.network)))
        self.assertEqual(self.network.asked, [url])

    def prepare(self, network: Fetch, **members: str) -> Deferred[object]:
        return Deferred.fromCoroutine(self.scheme.prepare(envelope(**members), [TOPIC], NOW, network))


class SubscriptionTests(SnsTest):
    def test_a_subscription_to_a_topic_of_ours_is_confirmed(self) -> None:
        answer = self.answer(envelope(**SUBSCRIPTION))
        self.assertEqual(answer.status, 200)
        self.assertEqual(self.network.asked, [CERTIFICATE, CONFIRM])

    def test_a_strangers_topic_is_not(self) -> None:
        arn = TOPIC.replace("123456789012", "999999999999")
        self.assert_refused(envelope(**{**SUBSCRIPTION, "TopicArn": arn}))
        self.assertEqual(self.network.asked, [])

    def test_a_forged_one_is_not(self) -> None:
        members = signed({**BASE, **SUBSCRIPTION})
        self.assert_refused(posted({**members, "Token": "another"}))
        self.assertEqual(self.network.asked, [CERTIFICATE])

    def test_no_other_url_is_called_even_if_it_is_signed(self) -> None:
        urls = [url for url in ELSEWHERE if url]
        urls += [f"https://{HOST}/?Action=DeleteTopic", f"https://{HOST}/other?Action=ConfirmSubscription"]
        for url in urls:
            self.assert_refused(envelope(**{**SUBSCRIPTION, "SubscribeURL": url}))
        self.assertEqual(self.network.asked.count(CERTIFICATE), len(self.network.asked))

    def test_that_one_has_ended_is_acknowledged_and_nothing_is_called(self) -> None:
        answer = self.answer(envelope(**{**SUBSCRIPTION, "Type": "UnsubscribeConfirmation"}))
        self.assertEqual(answer.status, 200)
        self.assertEqual(self.network.asked, [CERTIFICATE])

    def test_a_notification_is_none(self) -> None:
        documents: list[object] = [json.loads(envelope().body), None, [], {"Type": 1}, {}]
        for document in documents:
            self.assertFalse(SnsSubscription().recognise(envelope(), document))

    def answer(self, request: WireRequest) -> HandshakeAnswer:
        handshake = SnsSubscription()
        document = json.loads(request.body)
        self.assertTrue(handshake.recognise(request, document))
        answering = handshake.answer(request, document, secrets=[TOPIC], now=NOW, fetch=self.network)
        return outcome(answering)

    def assert_refused(self, request: WireRequest) -> None:
        with self.assertRaises(SignatureRefused):
            self.answer(request)
