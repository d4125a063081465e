"""Anything at all sent to ``/SMSReceiver`` over real sockets (Hypothesis, in a thread of its own)."""

from __future__ import annotations

import json
from collections.abc import Callable
from urllib.parse import quote, urlencode

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.threads import deferToThread

from tests.support.cases import ReactorTest
from tests.support.raw_peer import BlockingPeer
from tests.support.receivers import RecordingReceiver, Served

ANY = settings(database=None, deadline=None, max_examples=150)
TYPES = (
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=b",
    "application/json",
    "text/xml",
    "",
)
STATUSES = {200, 400, 405, 413, 414, 415}
"""Of the table in contract 3, those that can come with a receiver that takes everything."""

RAW = st.binary(max_size=2000)
PIECES = st.sampled_from(
    [b"receiver=1", b"&sender=2", b"&message=", b"%", b"+", b"{", b'"data":', b"--b\r\n", b"\0"]
)
BYTES = RAW | st.lists(PIECES | st.binary(max_size=3)).map(b"".join)
IN_A_LINE = st.binary(max_size=300).map(lambda raw: raw.translate(None, b"\r\n"))
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=300)


def request(method: bytes, target: bytes, content_type: bytes, body: bytes) -> bytes:
    head = b"%s %s HTTP/1.1\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (method, target, content_type, len(body)) + body


def post(content_type: str, body: bytes) -> bytes:
    return request(b"POST", b"/SMSReceiver", content_type.encode(), body)


def contracted(text: str) -> str:
    """The text as it must arrive: NUL and lone surrogates replaced."""
    return "".join("\ufffd" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in text)


class PropertyTests(ReactorTest):
    timeout = 120

    async def hold(self, examine: Callable[[BlockingPeer, RecordingReceiver], Callable[[], None]]) -> None:
        """Run a property away from the reactor, against a server on it."""
        receiver = RecordingReceiver()
        peer = BlockingPeer(Served(self, receiver).port)
        try:
            await deferToThread(examine(peer, receiver))
        finally:
            peer.close()

    async def test_any_text_survives_get_and_each_type_of_post(self) -> None:
        def examine(peer: BlockingPeer, receiver: RecordingReceiver) -> Callable[[], None]:
            @ANY
            @given(st.text(max_size=300))
            def survives(text: str) -> None:
                fields = {"receiver": "1", "sender": "2", "message": text}
                form = urlencode(fields).encode()
                parts = "".join(
                    f'--b\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n'
                    for n, v in fields.items()
                )
                for sent in (
                    request(b"GET", b"/SMSReceiver?" + form, b"", b""),
                    post(TYPES[0], form),
                    post(TYPES[1], parts.encode() + b"--b--\r\n"),
                    post(TYPES[2], json.dumps(fields).encode()),
                    post(TYPES[2], json.dumps(fields, ensure_ascii=False).encode()),
                ):
                    self.assertEqual(peer.ask(sent).status, 200)
                    self.assertEqual(receiver.submissions.pop().text, contracted(text))

            return survives

        await self.hold(examine)

    async def test_lone_surrogates_which_only_json_can_hold_are_replaced(self) -> None:
        def examine(peer: BlockingPeer, receiver: RecordingReceiver) -> Callable[[], None]:
            @ANY
            @given(ANY_TEXT)
            def survives(text: str) -> None:
                escaped = json.dumps({"receiver": "1", "sender": "2", "message": text})
                self.assertEqual(peer.ask(post(TYPES[2], escaped.encode())).status, 200)
                # json.loads() joins what json.dumps() wrote as a pair.
                self.assertEqual(receiver.submissions.pop().text, contracted(json.loads(escaped)["message"]))

            return survives

        await self.hold(examine)

    async def test_any_bytes_in_query_and_body_give_a_status_of_the_table(self) -> None:
        def examine(peer: BlockingPeer, receiver: RecordingReceiver) -> Callable[[], None]:
            @settings(ANY, max_examples=600)
            @given(
                st.sampled_from([b"GET", b"POST", b"POST", b"PUT"]),
                BYTES.map(quote).map(str.encode) | BYTES.map(lambda raw: raw.translate(None, b"\r\n ")),
                st.sampled_from(TYPES).map(str.encode) | IN_A_LINE,
                BYTES,
            )
            def answers(method: bytes, query: bytes, content_type: bytes, body: bytes) -> None:
                response = peer.ask(request(method, b"/SMSReceiver?" + query, content_type, body))
                self.assertIn(response.status, STATUSES)
                if response.status != 200:
                    self.assertEqual(response.body.count(b"\n"), 1)

            return answers

        await self.hold(examine)

    async def test_any_bytes_on_the_connection_give_a_status_of_the_table(self) -> None:
        def examine(peer: BlockingPeer, receiver: RecordingReceiver) -> Callable[[], None]:
            @settings(ANY, max_examples=300)
            @given(st.lists(IN_A_LINE, min_size=1, max_size=5))
            def answers(lines: list[bytes]) -> None:
                # A known last header ends the request whatever came before; 404 for another path.
                sent = b"\r\n".join([b"x" + lines[0], *lines[1:], b"Connection: close", b"", b""])
                self.assertIn(peer.ask(sent).status, STATUSES | {404})
                peer.close()

            return answers

        await self.hold(examine)
