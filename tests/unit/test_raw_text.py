"""The bytes of a text that ``/SMSReceiver`` keeps, for `smsdaemon redecode` to read again."""

from __future__ import annotations

import json
from urllib.parse import quote_from_bytes

from hypothesis import given, settings
from hypothesis import strategies as st

from smsdaemon.domain.text import bytes_again, charset_labels, decode
from tests.support.cases import UnitTest
from tests.unit.test_generic_provider import (
    ANY,
    COMPLETE,
    FORM,
    JSON,
    MULTIPART,
    every_way,
    get,
    multipart,
    part,
    post,
)


class RawTextTests(UnitTest):
    def test_they_are_kept_as_they_came_but_for_the_transport(self) -> None:
        latin = "Grüße".encode("latin-1")
        fields = b"receiver=1&sender=2&token=t0&message=" + quote_from_bytes(latin).encode()
        in_parts = multipart(COMPLETE[:2], extra=part(b'name="message"', latin))
        for submission in (
            get(fields),
            post(FORM + "; charset=utf-8", fields),
            post(FORM, b"receiver=1&sender=2&message=Gr\xfc\xdfe"),
            post(MULTIPART, in_parts),
            post(MULTIPART + "; charset=cp850", in_parts),
            post(JSON, b'{"receiver":1,"sender":2,"message":"Gr\xfc\xdfe","token":"t0"}'),
            post(JSON + "; charset=utf-8", b'{"receiver":1,"sender":2,"message":"\\u0047r\xfc\xdfe"}'),
        ):
            self.assertEqual(submission.raw_text, latin)

    def test_none_are_kept_where_they_can_only_mean_this_text(self) -> None:
        for way, submission in every_way(COMPLETE).items():
            self.assertIsNone(submission.raw_text, way)
        escaped = post(JSON, '{"receiver":1,"sender":2,"message":"Gr\\u00fc\\u00dfe"}')
        self.assertEqual((escaped.text, escaped.raw_text), ("Grüße", None))
        beyond = post(JSON + "; charset=latin1", b'{"receiver":1,"sender":2,"message":"\xfc\\u20ac"}')
        self.assertEqual((beyond.text, beyond.raw_text), ("ü€", None))

    def test_bytes_of_utf16_that_look_like_ascii_are_kept(self) -> None:
        body = '{"receiver":1,"sender":2,"message":"\u3179"}'.encode("utf-16-be")
        self.assertTrue(body.isascii())
        self.assertEqual(post(f"{JSON}; charset=utf-16be", body).raw_text, b"1y")

    def test_a_wrongly_named_charset_loses_none_of_them(self) -> None:
        for label in charset_labels():
            if label[:6] in ("utf-16", "utf-32"):
                continue
            submission = post(
                f"{JSON}; charset={label}", b'{"receiver":1,"sender":2,"message":"a\x81\xfc b"}'
            )
            self.assertEqual((submission.raw_text, submission.encoding), (b"a\x81\xfc b", label))

    def test_they_are_never_those_of_another_field(self) -> None:
        submission = post(FORM, b"receiver=1&sender=2&token=%FC&message=plain")
        self.assertIsNone(submission.raw_text)

    @settings(ANY, max_examples=1000)
    @given(st.binary(), st.sampled_from(charset_labels()))
    def test_any_text_in_any_charset_is_what_its_bytes_mean_by_the_charset_used(
        self, raw: bytes, label: str
    ) -> None:
        text = decode(raw, label)[0].replace("\ufffd", "")
        body = bytes_again(
            json.dumps({"receiver": 1, "sender": 2, "message": text}, ensure_ascii=False), label
        )
        parts = multipart(COMPLETE[:2], extra=part(b'name="message"', raw.replace(b"\r\n", b"")))
        for content_type, sent in (
            (FORM, b"receiver=1&sender=2&message=" + quote_from_bytes(raw).encode()),
            (MULTIPART, parts),
            (JSON, body or b'{"receiver":1,"sender":2,"message":""}'),
        ):
            got = post(f"{content_type}; charset={label}", sent)
            if got.raw_text is None:
                # A NUL that JSON has as an escape.
                self.assertTrue(got.text.replace("\ufffd", "").isascii(), content_type)
            else:
                self.assertEqual(decode(got.raw_text, got.encoding), (got.text, label), content_type)
