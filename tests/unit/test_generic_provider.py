"""What ``/SMSReceiver`` reads out of a request (contract 3)."""

from __future__ import annotations

import json
import time
from urllib.parse import quote_from_bytes, urlencode

from hypothesis import given, settings
from hypothesis import strategies as st

from smsdaemon.domain.model import RawRequest, Submission
from smsdaemon.domain.text import storable
from smsdaemon.errors import MalformedRequest, RequestRefused, UnsupportedBody
from smsdaemon.providers.generic import GenericProvider
from tests.support.cases import UnitTest

ANY = settings(database=None, deadline=None, max_examples=200)
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b"
JSON = "application/json"

ODD_QUERIES = st.binary() | st.lists(
    st.sampled_from([b"receiver=1", b"&", b"sender=", b"%", b"+", b"message"])
).map(b"".join)
_PIECES = [
    b"--b",
    b"\r\n",
    b"Content-Disposition: form-data; name=",
    b"data",
    b'"',
    b";",
    b"--",
    b"\xff",
    b" ",
]
ODD_BODIES = st.binary() | st.lists(st.sampled_from([*_PIECES, b"Content-Length:", b"{", b'":'])).map(
    b"".join
)
ODD_TYPES = st.text() | st.sampled_from(
    ["", FORM, MULTIPART, JSON, "multipart/form-data", JSON + ";charset=utf-16"]
)

Fields = list[tuple[str, str]]
COMPLETE: Fields = [("receiver", "+49123123"), ("sender", "+49789789"), ("message", "This is a test")]


def get(query: bytes | str, content_type: str = "") -> Submission:
    raw = query.encode() if isinstance(query, str) else query
    return GenericProvider().read(RawRequest(method="GET", query=raw, content_type=content_type, body=b""))


def post(content_type: str, body: bytes | str, query: bytes = b"") -> Submission:
    raw = body.encode() if isinstance(body, str) else body
    return GenericProvider().read(RawRequest(method="POST", query=query, content_type=content_type, body=raw))


def multipart(fields: Fields, *, extra: bytes = b"") -> bytes:
    parts = (part(f'name="{name}"'.encode(), value.encode("utf-8")) for name, value in fields)
    return b"".join(parts) + extra + b"--b--\r\n"


def part(parameters: bytes, content: bytes, headers: bytes = b"") -> bytes:
    return b"--b\r\nContent-Disposition: form-data; %s\r\n%s\r\n%s\r\n" % (parameters, headers, content)


def every_way(fields: Fields) -> dict[str, Submission]:
    """The same fields in GET and in each type of POST body."""
    return {
        "GET": get(urlencode(fields)),
        "form": post(FORM, urlencode(fields)),
        "multipart": post(MULTIPART, multipart(fields)),
        "JSON": post(JSON, json.dumps(dict(fields))),
    }


class ProviderTest(UnitTest):
    def refused(self, text: str, *request: bytes | str) -> None:
        """Refused as malformed, in these words; ``request``: a query, or a type and a body."""
        error = self.assertRaises(MalformedRequest, post if len(request) == 2 else get, *request)
        self.assertEqual(str(error), text)


class FieldTests(ProviderTest):
    def test_every_way_of_sending_says_the_same(self) -> None:
        for way, submission in every_way(
            [*COMPLETE, ("keyword", " K "), ("token", "t0"), ("message_id", "m1")]
        ).items():
            expected = Submission(
                receiver="+49123123",
                sender="+49789789",
                text="This is a test",
                keyword="K",
                token="t0",
                message_id="m1",
                encoding="utf-8",
                provider="generic",
            )
            self.assertEqual(submission, expected, way)

    def test_every_alias_in_any_case_is_understood(self) -> None:
        for receiver in ("receiver", "ziel", "system", "Receiver", "ZIEL"):
            for sender in ("sender", "absender", "ABSENDER"):
                for message in ("message", "data", "smstext", "SmsText"):
                    for message_id in ("message_id", "messageid", "msgid", "MessageId"):
                        fields = [(receiver, "1"), (sender, "2"), (message, "3"), (message_id, "4")]
                        for way, got in every_way(fields).items():
                            said = (got.receiver, got.sender, got.text, got.message_id)
                            self.assertEqual(said, ("1", "2", "3", "4"), (way, fields))

    def test_names_may_be_percent_encoded(self) -> None:
        self.assertEqual(get("%72eceiver=1&s%45nder=2&message%5Fid=4&message=3").message_id, "4")

    def test_canonical_names_come_before_aliases_and_the_body_before_the_query(self) -> None:
        self.assertEqual(get("system=3&ziel=2&receiver=1&sender=s&message=").receiver, "1")
        self.assertEqual(get("system=3&ziel=2&sender=s&message=").receiver, "2")
        self.assertEqual(post(FORM, "system=b", b"receiver=q&sender=s&message=m").receiver, "b")
        self.assertEqual(post(FORM, "receiver=+%20", b"receiver=q&sender=s&message=m").receiver, "q")

    def test_the_first_value_that_is_not_empty_counts(self) -> None:
        submission = get("receiver=&receiver=+&receiver=1&receiver=2&sender=&absender=s&message=&data=m")
        self.assertEqual((submission.receiver, submission.sender, submission.text), ("1", "s", "m"))

    def test_fields_may_be_split_between_body_and_query(self) -> None:
        for content_type, body in ((FORM, b"message=m"), (MULTIPART, multipart([("message", "m")])),
                                   (JSON, b'{"message": "m"}')):  # fmt: skip
            submission = post(content_type, body, b"receiver=1&sender=2&token=t")
            self.assertEqual((submission.text, submission.receiver, submission.token), ("m", "1", "t"))

    def test_a_message_may_be_empty_but_must_be_there(self) -> None:
        for way, submission in every_way([*COMPLETE[:2], ("message", "")]).items():
            self.assertEqual(submission.text, "", way)
        self.assertEqual(get("receiver=1&sender=2&smstext").text, "")
        self.refused("missing: message (or data, smstext)", "receiver=1&sender=2")

    def test_blanks_of_the_message_are_kept_and_others_stripped(self) -> None:
        fields = [("receiver", " 1\u00a0"), ("sender", " 2 "), ("message", " \n m \t"), ("token", " t ")]
        for way, submission in every_way(fields).items():
            self.assertEqual((submission.receiver, submission.token), ("1", "t"), way)
            self.assertEqual(submission.text, " \n m \t", way)
            self.assertEqual(submission.sender, " 2 ", "sender_raw is what came")
        self.assertEqual(get("receiver=1&sender=2&message=&message=+&data=m").text, " ")

    def test_what_is_missing_is_named_with_its_aliases(self) -> None:
        everything = "missing: receiver (or ziel, system), sender (or absender), message (or data, smstext)"
        self.refused(everything, "")
        self.refused(everything, FORM, "")
        self.refused(everything, "other=x&receiver=%20&sender=%C2%A0")
        self.refused("missing: sender (or absender)", "ziel=1&message=")

    def test_optional_fields_that_are_blank_are_not_there(self) -> None:
        submission = get("receiver=1&sender=2&message=3&keyword=+&token=&message_id=%20")
        self.assertEqual((submission.keyword, submission.token, submission.message_id), (None, None, None))

    def test_malformed_escapes_stand_for_themselves(self) -> None:
        for raw, text in (("%", "%"), ("%4", "%4"), ("%zz%41", "%zzA"), ("100%+sure%%41", "100% sure%A")):
            self.assertEqual(get(f"receiver=1&sender=2&message={raw}").text, text)
            self.assertEqual(post(FORM, f"receiver=1&sender=2&message={raw}").text, text)

    def test_the_body_of_a_get_is_not_read(self) -> None:
        raw = RawRequest(method="GET", query=b"receiver=1&sender=2", content_type=FORM, body=b"message=m")
        self.assertRaises(MalformedRequest, GenericProvider().read, raw)


class LimitTests(ProviderTest):
    def test_lengths_are_counted_in_characters_after_stripping(self) -> None:
        for name, limit in (
            ("receiver", 64),
            ("sender", 64),
            ("keyword", 64),
            ("token", 256),
            ("message_id", 256),
        ):
            others = [pair for pair in COMPLETE if pair[0] != name]
            for way, submission in every_way([*others, (name, f" {'ü' * limit} ")]).items():
                self.assertEqual(getattr(submission, name).strip(), "ü" * limit, way)
            for request in (
                (urlencode([*others, (name, "ü" * (limit + 1))]),),
                (JSON, json.dumps(dict([*others, (name, "ü" * (limit + 1))]))),
            ):
                self.refused(f"{name} is longer than {limit} characters", *request)

    def test_a_hundred_fields_are_taken_and_one_more_is_not(self) -> None:
        others = [(f"x{n}", "") for n in range(97)]
        every_way([*COMPLETE, *others])
        for request in (
            (urlencode([*COMPLETE, *others, ("y", "")]),),
            (FORM, urlencode([*COMPLETE, *others, ("y", "")])),
            (MULTIPART, multipart([*COMPLETE, *others, ("y", "")])),
            (JSON, json.dumps(dict([*COMPLETE, *others, ("y", "")]))),
        ):
            self.refused("more than 100 fields", *request)

    def test_fields_of_query_and_body_count_together(self) -> None:
        many = urlencode([(f"x{n}", "") for n in range(50)]).encode()
        self.assertRaises(MalformedRequest, post, FORM, many + b"&" + urlencode(COMPLETE).encode(), many)

    def test_empty_pairs_are_no_fields(self) -> None:
        self.assertEqual(get("&" * 5000 + "receiver=1&&sender=2&message=3&").text, "3")


class CharsetTests(ProviderTest):
    def test_text_is_utf8_or_else_windows_1252(self) -> None:
        for raw, text, encoding in (
            ("Grüße €".encode(), "Grüße €", "utf-8"),
            ("Grüße €".encode("cp1252"), "Grüße €", "windows-1252"),
            (b"\x81", "\ufffd", "windows-1252"),
            (b"a\0b", "a\ufffdb", "utf-8"),
        ):
            fields = b"receiver=1&sender=2&message=" + quote_from_bytes(raw).encode()
            in_parts = multipart([("receiver", "1"), ("sender", "2")], extra=part(b'name="message"', raw))
            for submission in (get(fields), post(FORM, fields), post("", fields), post(MULTIPART, in_parts)):
                self.assertEqual((submission.text, submission.encoding), (text, encoding))

    def test_the_charset_of_the_content_type_is_used(self) -> None:
        fields = b"receiver=1&sender=2&message=%E4"
        latin = ("ä", "iso-8859-1")
        for submission in (
            post(FORM + "; charset=ISO-8859-1", fields),
            post(FORM + ';CharSet="latin1"', fields),
            post("; charset=latin1", fields),
            post(
                MULTIPART + "; charset=latin1", multipart(COMPLETE[:2], extra=part(b"name=message", b"\xe4"))
            ),
            post(JSON + ";charset=latin1", b'{"receiver":1,"sender":2,"message":"\xe4"}'),
            get(fields, FORM + "; charset=latin1"),
            post(FORM + "; charset=latin1", b"", fields),
        ):
            self.assertEqual((submission.text, submission.encoding), latin)

    def test_the_charset_of_a_body_does_not_govern_the_query(self) -> None:
        submission = post(FORM + "; charset=latin1", b"receiver=1&sender=2", b"message=%C3%A4")
        self.assertEqual((submission.text, submission.encoding), ("ä", "utf-8"))

    def test_a_parts_own_charset_comes_first(self) -> None:
        sent = part(b'name="message"', b"\xe4", b"Content-Type: text/plain; charset=cp437\r\n")
        submission = post(MULTIPART + "; charset=latin1", multipart(COMPLETE[:2], extra=sent))
        self.assertEqual((submission.text, submission.encoding), ("Σ", "ibm437"))

    def test_a_charset_that_is_none_counts_as_not_given(self) -> None:
        for charset in ("nonsense", "idna", "unicode_escape", "utf-7", "x" * 200):
            fields = b"receiver=1&sender=2&message=%C3%A4"
            self.assertEqual(post(f"{FORM}; charset={charset}", fields).text, "ä", charset)


class BodyTypeTests(ProviderTest):
    def test_types_are_matched_in_any_case_and_with_parameters(self) -> None:
        form = urlencode(COMPLETE)
        for content_type in (FORM.upper(), FORM + " ;a=b", "", " ", ";"):
            self.assertEqual(post(content_type, form).text, "This is a test")
        self.assertEqual(post("Application/JSON; a=b", json.dumps(dict(COMPLETE))).text, "This is a test")

    def test_other_types_are_not_supported(self) -> None:
        for content_type in ("text/xml", "application/jsonx", "multipart/mixed; boundary=b", "x" * 2000, "ü"):
            self.assertRaises(UnsupportedBody, post, content_type, urlencode(COMPLETE))

    def test_with_no_body_any_type_will_do(self) -> None:
        for content_type in (FORM, MULTIPART, "multipart/form-data", JSON, "text/xml"):
            query = urlencode(COMPLETE).encode()
            self.assertEqual(post(content_type, b"", query).text, "This is a test", content_type)


class MultipartTests(ProviderTest):
    def test_file_parts_are_ignored(self) -> None:
        for name in (b'filename="x.txt"', b'filename=""'):
            parts = part(b'name="message"; ' + name, b"of the file", b"Content-Type: text/plain\r\n")
            body = parts + multipart(COMPLETE)
            self.assertEqual(post(MULTIPART, body).text, "This is a test")
            self.assertRaises(MalformedRequest, post, MULTIPART, parts + multipart(COMPLETE[:2]))

    def test_what_is_no_complete_multipart_body_is_refused(self) -> None:
        whole = multipart(COMPLETE)
        for content_type, body in (
            ("multipart/form-data", whole),
            ("multipart/form-data; boundary=", whole),
            ("multipart/form-data; boundary=other", whole),
            (MULTIPART, whole[:-8]),
            (MULTIPART, whole[:60]),
            (MULTIPART, b"--b\r\n\r\nno headers\r\n--b--"),
            (MULTIPART, b"--b\r\n: x\r\n\r\nx\r\n--b--"),
            (MULTIPART, b"receiver=1"),
            (MULTIPART, whole.replace(b"\r\n", b"\n")),
        ):
            self.refused("the multipart body cannot be parsed", content_type, body)

    def test_line_breaks_in_a_part_are_kept(self) -> None:
        self.assertEqual(
            post(MULTIPART, multipart([*COMPLETE[:2], ("message", "a\r\n\r\nb\r\n")])).text, "a\r\n\r\nb\r\n"
        )


class JsonTests(ProviderTest):
    def say(self, message: str) -> str:
        return post(JSON, '{"receiver": 49123123, "sender": "2", "message": ' + message + "}").text

    def test_values_that_are_no_strings_count_as_their_text(self) -> None:
        for literal in (
            "0",
            "-0",
            "12.50",
            "1E5",
            "9" * 6000,
            "0." + "1" * 6000,
            "1e999999",
            "true",
            "false",
        ):
            self.assertEqual(self.say(literal), literal)

    def test_null_counts_as_absent(self) -> None:
        self.refused("missing: message (or data, smstext)", JSON, '{"receiver":1,"sender":2,"message":null}')
        self.assertEqual(post(JSON, '{"receiver":1,"sender":2,"message":null,"data":"d"}').text, "d")

    def test_every_member_counts_also_where_names_come_twice(self) -> None:
        self.assertEqual(
            post(JSON, '{"receiver":"","receiver":1,"RECEIVER":2,"sender":3,"data":4}').receiver, "1"
        )

    def test_a_byte_order_mark_is_no_part_of_it(self) -> None:
        self.assertEqual(
            post(JSON, b"\xef\xbb\xbf" + json.dumps(dict(COMPLETE)).encode()).text, "This is a test"
        )
        wide = json.dumps(dict(COMPLETE)).encode("utf-16")
        self.assertEqual(post(JSON + "; charset=utf-16", wide).encoding, "utf-16")

    def test_surrogate_pairs_are_joined_and_lone_ones_replaced(self) -> None:
        self.assertEqual(
            self.say('"\\ud83d\\ude00 \\ud800 \\u0000 \\udfff"'), "\U0001f600 \ufffd \ufffd \ufffd"
        )

    def test_what_is_not_flat_is_refused(self) -> None:
        for value in ("[]", "{}", '["a"]', '{"a": 1}', "[[[]]]"):
            for name in ("message", "other"):
                body = f'{{"receiver":1,"sender":2,"{name}":{value}}}'
                self.refused("the JSON object is not flat", JSON, body)

    def test_what_is_no_object_is_refused(self) -> None:
        for body in ("[]", '"text"', "1", "null", '[["receiver", "1"]]', "[1, 2]"):
            self.refused("the JSON body is not an object", JSON, body)

    def test_what_is_no_json_is_refused(self) -> None:
        for body in ("{", "receiver=1", '{"receiver":1,}', "{'receiver':1}", '{"a":NaN}', '{"a":-Infinity}',
                     '{"a":"\n"}', '{"a":1} x', "\0", '{"a":"\\u12"}'):  # fmt: skip
            self.refused("the body is not valid JSON", JSON, body)

    def test_deep_nesting_and_long_numbers_are_answered_at_once(self) -> None:
        before = time.perf_counter()
        for body in ("[" * 60_000, '{"a":' * 10_000 + "1" + "}" * 10_000, "[" * 10_000 + "]" * 10_000):
            self.assertRaises(MalformedRequest, post, JSON, body)
        self.say("9" * 60_000)
        self.assertLess(time.perf_counter() - before, 1)


class PropertyTests(ProviderTest):
    @ANY
    @given(st.text())
    def test_any_text_survives_every_way_of_sending(self, text: str) -> None:
        for way, submission in every_way([*COMPLETE[:2], ("message", text)]).items():
            self.assertEqual((submission.text, submission.encoding), (storable(text), "utf-8"), way)

    @ANY
    @given(st.text(st.characters(exclude_categories=())))
    def test_any_json_string_survives_but_for_nul_and_lone_surrogates(self, text: str) -> None:
        joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        submission = post(JSON, json.dumps({"receiver": "1", "sender": "2", "message": text}))
        if "\ufffd" not in joined:
            self.assertEqual(submission.text, storable(joined))
        submission.text.encode()

    @settings(ANY, max_examples=500)
    @given(ODD_QUERIES, ODD_BODIES, ODD_TYPES, st.sampled_from(["GET", "POST"]))
    def test_any_bytes_are_read_or_refused(
        self, query: bytes, body: bytes, content_type: str, method: str
    ) -> None:
        raw = RawRequest(method=method, query=query, content_type=content_type, body=body)
        try:
            submission = GenericProvider().read(raw)
        except RequestRefused as error:
            self.assertEqual(str(error), " ".join(str(error).split()))
        else:
            self.assertTrue(submission.receiver)
            (submission.receiver + submission.sender + submission.text).encode()

    @ANY
    @given(st.sampled_from(["receiver", "sender", "keyword", "token", "message_id"]))
    def test_errors_name_fields_and_never_values(self, name: str) -> None:
        fields = [pair for pair in COMPLETE if pair[0] != name] + [(name, "secret" * 100)]
        error = self.assertRaises(MalformedRequest, get, urlencode(fields))
        self.assertNotIn("secret", str(error))
