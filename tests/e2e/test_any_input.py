"""Whatever a sender sends: any text arrives unchanged, and any bytes are answered by the table."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.backend import Backend
from tests.support.daemon import Daemon, acd_group, client, connector, reseller, shared_daemon
from tests.support.processes import ProcessTest, until
from tests.support.raw_peer import BlockingPeer
from tests.support.secrets_in_tests import RECEIVER, SECRET, SENDER
from tests.support.sms_peers import Answer, Peer

CLIENT = "acme/any-input"
NUMBER = f"{RECEIVER}21"
STATUSES = {200, 400, 401, 404, 405, 413, 414, 415, 502}

# The same examples in every run: what fails once can be run again.
examples = partial(settings, deadline=None, derandomize=True, database=None)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
"""All that is text; NUL is in it, lone surrogates, which no encoding can carry, are not."""
TEXTS_OF_JSON = st.text(st.characters(), max_size=300)
"""JSON's escapes can also say lone surrogates."""


@cache
def scene() -> tuple[Daemon, Backend]:
    """The run's daemon with a connector of these tests', and where its SMS go."""
    target, daemon = Backend(), shared_daemon()
    daemon.apply(
        reseller()
        + client("any-input")
        + acd_group("group", target.url(), CLIENT, secret=SECRET)
        + connector(NUMBER, CLIENT, acd_group="group")
    )
    return daemon, target


def contracted(text: str) -> str:
    """What PostgreSQL cannot hold is replaced (contract 3)."""
    return "".join("\ufffd" if mark == "\0" or "\ud800" <= mark <= "\udfff" else mark for mark in text)


class AnyTextTests(ProcessTest):
    def setUp(self) -> None:
        super().setUp()
        self.daemon, self.target = scene()
        self.peer = self.daemon.peer()
        self.addCleanup(self.peer.close)

    def arrives(self, send: Callable[..., Answer], text: str) -> None:
        answer = send(receiver=NUMBER, sender=SENDER, message=text)
        self.assertEqual(answer.status, 200)
        until(lambda: answer.id in self.target.ids(), "the delivery")
        [attempt] = [found for found in self.target.attempts if found.data["id"] == answer.id]
        payload = attempt.verify(SECRET)
        self.target.attempts.clear()
        self.assertEqual(payload["data"]["text"], contracted(text))

    @examples(max_examples=100)
    @given(TEXTS)
    def test_any_text_survives_a_get(self, text: str) -> None:
        self.arrives(self.peer.get, text)

    @examples(max_examples=100)
    @given(TEXTS)
    def test_any_text_survives_a_form(self, text: str) -> None:
        self.arrives(self.peer.post_form, text)

    @examples(max_examples=100)
    @given(TEXTS)
    def test_any_text_survives_multipart(self, text: str) -> None:
        self.arrives(self.peer.post_multipart, text)

    @examples(max_examples=100)
    @given(TEXTS_OF_JSON)
    def test_any_text_survives_json(self, text: str) -> None:
        self.arrives(self.peer.post_json, text)

    def test_every_character_of_unicode_survives(self) -> None:
        everything = [chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
        size = 4000
        for start in range(0, len(everything), size):
            self.arrives(self.peer.post_form, "".join(everything[start : start + size]))


# --- any bytes --------------------------------------------------------------------------------------

_START = b"receiver=%s&sender=1&message=" % NUMBER.encode().replace(b"+", b"%2B")
_QUERY_BYTES = st.binary(max_size=200).filter(lambda raw: not set(raw) & set(b" \r\n"))
QUERIES = st.one_of(
    _QUERY_BYTES,
    _QUERY_BYTES.map(lambda raw: _START + raw),
    st.lists(
        st.sampled_from([b"&", b"=", b"%", b"+", b"receiver", b"sender", b"message", b"\xff", b"%0"])
    ).map(b"".join),
)
_JSON_PIECES = [b"{", b"}", b"[", b'"', b":", b",", b"1", b"null", b'"receiver"', b"\\ud800", b"\xff", b"-"]
_MULTIPART_PIECES = [
    b"--x\r\n",
    b"--x--\r\n",
    b"\r\n",
    b'Content-Disposition: form-data; name="message"\r\n\r\n',
    b"Content-Type: text/plain; charset=nonsense\r\n",
    b"\xff\x00",
]
BODIES = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=300).map(lambda raw: _START + raw),
    st.lists(st.sampled_from(_JSON_PIECES), max_size=30).map(b"".join),
    st.lists(st.sampled_from(_MULTIPART_PIECES), max_size=10).map(b"".join),
)
_HEADER_BYTES = st.binary(max_size=30).filter(lambda raw: not set(raw) & set(b"\r\n\0"))
CONTENT_TYPES = st.one_of(
    st.sampled_from(
        [
            b"",
            b"application/x-www-form-urlencoded",
            b"application/x-www-form-urlencoded; charset=utf-16",
            b"application/json",
            b"application/json; charset=utf-32",
            b"multipart/form-data; boundary=x",
            b"multipart/form-data",
        ]
    ),
    _HEADER_BYTES,
    _HEADER_BYTES.map(lambda raw: b"multipart/form-data; boundary=" + raw),
    _HEADER_BYTES.map(lambda raw: b"application/json; charset=" + raw),
)


class AnyBytesTests(ProcessTest):
    def setUp(self) -> None:
        super().setUp()
        self.daemon, _ = scene()

    def ask(self, request: bytes) -> int:
        peer = BlockingPeer(self.daemon.port())
        try:
            return peer.ask(request).status
        finally:
            peer.close()

    def answered_by_the_table(self, method: bytes, query: bytes, content_type: bytes, body: bytes) -> None:
        lines = [b"%s /SMSReceiver?%s HTTP/1.1" % (method, query), b"Host: x", b"Connection: close"]
        lines += [b"Content-Type: %s" % content_type] if content_type else []
        lines += [b"Content-Length: %d" % len(body), b"", body]
        self.assertIn(self.ask(b"\r\n".join(lines)), STATUSES)

    @examples(max_examples=150, suppress_health_check=[HealthCheck.filter_too_much])
    @given(QUERIES)
    def test_any_query_is_answered_by_the_table(self, query: bytes) -> None:
        self.answered_by_the_table(b"GET", query, b"", b"")

    @examples(max_examples=250)
    @given(QUERIES, CONTENT_TYPES, BODIES)
    def test_any_body_is_answered_by_the_table(self, query: bytes, content_type: bytes, body: bytes) -> None:
        self.answered_by_the_table(b"POST", query, content_type, body)

    @examples(max_examples=150)
    @given(st.binary(max_size=200))
    def test_any_bytes_instead_of_http_are_answered_400_or_by_the_table(self, raw: bytes) -> None:
        self.assertIn(self.ask(raw + b"\r\n\r\n\r\n\r\n"), STATUSES)

    def test_zz_after_all_that_the_daemon_still_takes_sms_and_logged_no_traceback(self) -> None:
        peer = Peer(self.daemon.port())
        self.addCleanup(peer.close)
        self.assertEqual(peer.get(receiver=NUMBER, sender=SENDER, message="x").status, 200)
        self.assertNotIn("Traceback", self.daemon.log())
