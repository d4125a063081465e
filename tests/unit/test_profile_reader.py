"""What a profile can say, each by a small one of its own, and what hostile requests do to the reader."""

from __future__ import annotations

import json
from time import monotonic
from urllib.parse import quote, urlencode

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from smsdaemon.domain.model import Part, Submission, WireRequest
from smsdaemon.domain.reading import Reading
from smsdaemon.errors import MalformedRequest, RequestRefused, UnsupportedBody
from smsdaemon.providers.loaded import LoadedProfile
from smsdaemon.providers.profile_file import parse
from tests.support.cases import UnitTest

FORM, JSON, XML = "application/x-www-form-urlencoded", "application/json", "application/xml"
FIELDS = '[fields]\nreceiver = "to"\nsender = "from"\ntext = "text"\nmessage_id = "id"\n'


def profile(text: str = "", *, fields: str = FIELDS, head: str = "") -> LoadedProfile:
    document = f'name = "x"\ndescription = "X"\nmethods = ["GET", "POST"]\n{head}{text}\n{fields}'
    return LoadedProfile(parse(document.encode(), "x", "x.toml"))


def wire(
    body: bytes | str = b"", kind: str = "", query: str = "", method: str = "POST", **headers: str
) -> WireRequest:
    raw = body.encode() if isinstance(body, str) else body
    given = {name.replace("_", "-").lower(): (value,) for name, value in headers.items()}
    if kind:
        given["content-type"] = (kind,)
    return WireRequest(
        method=method, url="https://x/SMSReceiver/x", query=query.encode(), headers=given, body=raw
    )


def form(separator: str = "&", **fields: str) -> WireRequest:
    return wire(urlencode({"to": "1", "from": "2", "text": "t", **fields}).replace("&", separator), FORM)


class ReaderTest(UnitTest):
    def one(self, reading: Reading) -> Submission:
        self.assertEqual(reading.kind, "messages")
        [submission] = reading.submissions
        return submission


class FormatTests(ReaderTest):
    def test_names_differ_by_case_and_the_form_wins_over_the_query(self) -> None:
        p = profile(fields='[fields]\nreceiver = "Q"\nsender = "q"\ntext = ["a", "A"]\n')
        got = self.one(p.read(wire("q=2&a=form", FORM, query="Q=1&a=query&A=other")))
        self.assertEqual((got.receiver, got.sender, got.text), ("1", "2", "form"))

    def test_of_repeated_names_the_last_value_counts_where_the_profile_says_so(self) -> None:
        request = wire("to=1&from=2&text=a&text=b&id=1&id=2", FORM)
        self.assertEqual(self.one(profile().read(request)).text, "a")
        got = self.one(profile('[request]\nrepeated = "last"').read(request))
        self.assertEqual((got.text, got.message_id), ("b", "2"))

    def test_pairs_may_be_parted_by_semicolons(self) -> None:
        p = profile('[request]\nseparator = ";"')
        self.assertEqual(self.one(p.read(form(";", text="a&b".replace("&", " ")))).text, "a b")

    def test_without_a_body_the_query_is_read_by_formats_that_are_pairs_and_by_get(self) -> None:
        query = "to=1&from=2&text=t"
        for listed in ('["json", "form"]', '["json", "multipart"]', '["raw"]', "[]"):
            p = profile(f"[request]\nbody = {listed}")
            self.assertEqual(self.one(p.read(wire(query=query))).text, "t")
        for body in ("json", "xml"):
            p = profile(f'[request]\nbody = ["{body}"]')
            self.assertEqual(self.one(p.read(wire(query=query, method="GET"))).text, "t")
            for kind, raw in (("", b""), (f"application/{body}", b""), (FORM, b" \r\n")):
                with self.assertRaisesRegex(MalformedRequest, "the body is empty"):
                    p.read(wire(raw, kind, query=query))

    def test_what_a_signature_of_the_body_does_not_cover_is_not_read(self) -> None:
        fields = '[fields]\nsender = "from"\ntext = "text"\n[authentication]\nscheme = "hmac_body"\n'
        p = profile('[request]\nbody = ["form", "json"]', fields=fields)
        query = "receiver=1&from=forged&text=forged"
        got = self.one(p.read(wire("from=2&text=t", FORM, query=query)))
        self.assertEqual((got.receiver, got.sender, got.text), ("1", "2", "t"))
        for body, method in (("from=2", "POST"), ("&", "POST"), ("", "POST"), ("", "GET"), ("x", "GET")):
            with self.assertRaises(MalformedRequest):
                p.read(wire(body, FORM, query=query, method=method))
        # In Shift JIS the backslash is half of the character before it.
        text = 'あ","text":"forged'
        body = json.dumps({"from": "2", "text": text}, ensure_ascii=False)
        got = self.one(p.read(wire(body, f"{JSON}; charset=shift_jis", query="receiver=1")))
        self.assertEqual(got.text, text)

    def test_a_query_is_read_where_the_signature_covers_it_or_nothing(self) -> None:
        for scheme, read in (
            ('"twilio"', True),
            ('"basic"', True),
            ('"hmac_timestamp"\nsigns = "{timestamp}{url}{body}"', True),
            ('"hmac_timestamp"', False),
            ('"messagebird_jwt"', True),
            ('"messagebird_jwt"\nurl_with_query = false', False),
        ):
            p = profile(fields=f"{FIELDS}[authentication]\nscheme = {scheme}\n")
            request = wire("from=2&text=t", FORM, query="to=1")
            if read:
                self.assertEqual(self.one(p.read(request)).receiver, "1")
            else:
                with self.assertRaisesRegex(MalformedRequest, "receiver"):
                    p.read(request)

    def test_dots_are_part_of_a_name_in_forms_and_steps_in_json(self) -> None:
        p = profile('[request]\nbody = ["form", "json"]', fields=FIELDS.replace('"text"', '"m.text"'))
        self.assertEqual(self.one(p.read(form(**{"m.text": "a"}))).text, "a")
        body = json.dumps({"to": 1, "from": 2, "m": {"text": "b"}})
        self.assertEqual(self.one(p.read(wire(body, JSON))).text, "b")

    def test_json_under_another_type_and_numbers_as_their_text(self) -> None:
        p = profile('[request]\nbody = ["json"]\ncontent_types = { "text/plain" = "json" }')
        body = '{"to": 12345678901234567890123, "from": 1.50, "text": "ü", "id": null}'
        got = self.one(p.read(wire(body, "text/plain; charset=utf-8")))
        self.assertEqual((got.receiver, got.sender, got.text), ("12345678901234567890123", "1.50", "ü"))
        self.assertIsNone(got.message_id)
        self.assertEqual(got.raw_text, "ü".encode())

    def test_paths_lead_through_arrays_by_number_and_by_what_an_element_says(self) -> None:
        fields = """[fields]
receiver = "to[1].n"
sender = "from"
text = ["none[0].x", "parts[type=text].body"]
"""
        p = profile('[request]\nbody = ["json"]', fields=fields)
        body = {"to": [{}, {"n": "1"}], "from": "2", "parts": [{"type": "a"}, {"type": "text", "body": "t"}]}
        got = self.one(p.read(wire(json.dumps(body), JSON)))
        self.assertEqual((got.receiver, got.text), ("1", "t"))

    def test_xml_by_element_attribute_and_descendant_whatever_the_namespace(self) -> None:
        fields = """[fields]
receiver = "head.to"
sender = "head@from"
text = "//content"
message_id = "param[@name=id]@value"
"""
        p = profile('[request]\nbody = ["xml"]', fields=fields)
        body = (
            '<m xmlns:a="urn:a"><a:head from="2"><to>1</to></a:head><param name="n" value="x"/>'
            '<param name="id" value="7"/><b><a:content>a &amp; ü</a:content></b></m>'
        )
        got = self.one(p.read(wire(body, XML)))
        self.assertEqual((got.receiver, got.sender, got.text, got.message_id), ("1", "2", "a & ü", "7"))
        latin = f'<?xml version="1.0" encoding="iso-8859-1"?>{body}'.encode("latin-1")
        self.assertEqual(self.one(p.read(wire(latin, "text/xml"))).text, "a & ü")
        self.assertEqual(self.one(p.read(wire(body.encode("cp1252"), "text/xml"))).text, "a & ü")

    def test_multipart_and_headers_and_a_raw_body(self) -> None:
        fields = '[fields]\nreceiver = "header:X-To"\nsender = "header:x-from"\ntext = "body:"\n'
        p = profile('[request]\nbody = ["raw"]\ncontent_types = { "text/plain" = "raw" }', fields=fields)
        request = wire("Тест".encode("utf-16-be"), "text/plain; charset=UTF-16BE", X_To="1", X_From="2")
        got = self.one(p.read(request))
        self.assertEqual((got.text, got.encoding), ("Тест", "utf-16be"))
        p = profile('[request]\nbody = ["multipart"]')
        parts = "".join(
            f'--b\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n'
            for n, v in (("to", "1"), ("from", "2"), ("text", "€"))
        )
        self.assertEqual(
            self.one(p.read(wire(parts + "--b--\r\n", "multipart/form-data; boundary=b"))).text, "€"
        )

    def test_a_document_inside_a_field(self) -> None:
        head = '[request]\nbody = ["form"]\ndocument = { field = "XML", format = "xml" }'
        inner = "<x><to>1</to><from>2</from><text>t ü</text></x>"
        got = self.one(profile(head).read(wire(f"XML={quote(inner)}", FORM)))
        self.assertEqual((got.receiver, got.text), ("1", "t ü"))

    def test_json_inside_json_with_the_envelope_in_reach(self) -> None:
        head = """[request]
body = ["json"]
document = { field = "Message", format = "json" }
[is_sms]
when = { "request:Type" = "Notification" }
"""
        inner = json.dumps({"to": "1", "from": "2", "text": "😀"})
        p = profile(head)
        body = json.dumps({"Type": "Notification", "Message": inner})
        self.assertEqual(self.one(p.read(wire(body, JSON))).text, "😀")
        self.assertEqual(p.read(wire(body.replace("Notification", "Other"), JSON)).kind, "not_an_sms")

    def test_a_type_that_the_profile_does_not_read_is_refused(self) -> None:
        with self.assertRaises(UnsupportedBody):
            profile().read(wire("{}", JSON))


class BatchTests(ReaderTest):
    HEAD = '[request]\nbody = ["json"]\nbatch = "$"\n[is_sms]\nwhen = { type = "mo" }\notherwise = "report"\n'

    def entry(self, text: str, type: str = "mo") -> dict[str, str]:
        return {"type": type, "to": "1", "from": "2", "text": text}

    def test_what_is_no_sms_in_a_batch_is_named_and_the_rest_is_read(self) -> None:
        body = json.dumps([self.entry("a"), self.entry("b", "dlr"), self.entry("c")])
        reading = profile(self.HEAD).read(wire(body, JSON))
        self.assertEqual([s.text for s in reading.submissions], ["a", "c"])
        self.assertEqual(reading.ignored, ("report",))

    def test_an_empty_batch_is_no_sms_and_none_at_all_is_refused(self) -> None:
        reading = profile(self.HEAD).read(wire("[]", JSON))
        self.assertEqual((reading.kind, reading.name), ("not_an_sms", "empty batch"))
        with self.assertRaises(MalformedRequest):
            profile(self.HEAD).read(wire("{}", JSON))

    def test_several_receivers_are_several_sms(self) -> None:
        p = profile('[request]\nbody = ["json"]', fields=FIELDS.replace('"to"', '"to[*]"'))
        body = json.dumps({"to": ["1", "3", "1"], "from": "2", "text": "t"})
        self.assertEqual([s.receiver for s in p.read(wire(body, JSON)).submissions], ["1", "3"])

    def test_xml_batches_are_all_children_of_a_name(self) -> None:
        p = profile('[request]\nbody = ["xml"]\nbatch = "message"', fields=FIELDS.replace('"id"', '"@id"'))
        one = '<message id="{}"><to>1</to><from>2</from><text>t</text></message>'
        body = f"<all>{one.format(1)}{one.format(2)}</all>"
        self.assertEqual([s.message_id for s in p.read(wire(body, XML)).submissions], ["1", "2"])

    def test_more_than_a_thousand_are_refused(self) -> None:
        with self.assertRaisesRegex(MalformedRequest, "1000"):
            profile(self.HEAD).read(wire(json.dumps([self.entry("x")] * 1001), JSON))
        p = profile('[request]\nbody = ["json"]', fields=FIELDS.replace('"to"', '"to[*]"'))
        with self.assertRaisesRegex(MalformedRequest, "1000"):
            p.read(wire(json.dumps({"to": ["1"] * 1001, "from": "2", "text": "t"}), JSON))


class FieldTests(ReaderTest):
    def test_a_field_may_depend_on_another_and_be_a_constant(self) -> None:
        fields = """[fields]
receiver = [{ path = "short", when = { kind = "s" } }, "long", { constant = "99" }]
sender = "from"
text = "text"
"""
        p = profile(fields=fields)
        self.assertEqual(self.one(p.read(form(short="5", long="6", kind="s"))).receiver, "5")
        self.assertEqual(self.one(p.read(form(short="5", long="6"))).receiver, "6")
        self.assertEqual(self.one(p.read(form(short="5"))).receiver, "99")

    def test_receiver_and_token_may_stand_in_the_urls_query(self) -> None:
        p = profile(fields='[fields]\nsender = "from"\ntext = "text"\n')
        got = self.one(p.read(wire("from=2&text=t", FORM, query="receiver=%2B1&token=t0")))
        self.assertEqual((got.receiver, got.token), ("+1", "t0"))
        with self.assertRaisesRegex(MalformedRequest, "receiver"):
            p.read(wire("from=2&text=t", FORM))

    def test_prefixes_of_numbers_are_stripped_and_nothing_else_of_them(self) -> None:
        p = profile('[request]\nstrip_prefixes = ["tel:", "whatsapp:"]')
        got = self.one(p.read(form(to="tel:007", **{"from": " whatsapp:+1 (2)"})))
        self.assertEqual((got.receiver, got.sender), ("007", "+1 (2)"))

    def test_limits_are_those_of_the_contract(self) -> None:
        for name, length in (("to", 65), ("from", 65), ("id", 257)):
            with self.assertRaises(MalformedRequest):
                profile().read(form(**{name: "1" * length}))
        with self.assertRaises(MalformedRequest):
            profile().read(form(**{f"f{n}": "x" for n in range(100)}))

    def test_a_missing_text_is_refused_or_empty_as_the_profile_says(self) -> None:
        request = wire("to=1&from=2", FORM)
        with self.assertRaisesRegex(MalformedRequest, "text"):
            profile().read(request)
        self.assertEqual(self.one(profile("[text]\nmay_be_missing = true").read(request)).text, "")
        with self.assertRaisesRegex(MalformedRequest, "empty"):
            profile("[text]\nmay_be_empty = false").read(form(text=""))

    def test_head_is_a_probe_and_reads_nothing(self) -> None:
        self.assertEqual(profile().read(wire(method="HEAD")).name, "probe")


class TextTests(ReaderTest):
    def text(self, rule: str, value: str, **fields: str) -> Submission:
        return self.one(profile(f"[[text.rules]]\n{rule}").read(form(text=value, **fields)))

    def test_bytes_in_every_wrapping(self) -> None:
        for rule, value, expected in (
            ('written = "hex"\ncharset = "utf-16be"', "00e4d83dde00", "ä😀"),
            ('written = "hex"\ncharset = "utf-8"', "c3a4", "ä"),
            ('written = "hex"\ncharset = "gsm0338"', "1b65 00 05", "€@é"),
            ('written = "hex"\ncharset = "gsm0338-packed"', "e8329bfd06", "hello"),
            ('written = "base64"\ncharset = "iso-8859-15"', "pA==", "€"),
            ('written = "percent"\ncharset = "iso-8859-1"', "a+%E4", "a+ä"),
            ('written = "form"\ncharset = "utf-16be"', "%00a%00+%00%E4", "a ä"),
            ('charset = "binary"', "\x02\x03", ""),
        ):
            got = self.text(rule, value)
            self.assertEqual(got.text, expected, rule)
            self.assertTrue(got.raw_text or got.text.isascii(), rule)

    def test_the_bytes_of_a_form_may_be_gsm(self) -> None:
        got = self.one(
            profile('[[text.rules]]\nwhen = { coding = "0" }\ncharset = "gsm0338"').read(
                wire(b"to=1&from=2&text=%05v%05&coding=0", FORM)
            )
        )
        self.assertEqual((got.text, got.encoding), ("évé", "gsm0338"))

    def test_the_charset_may_be_named_by_a_field(self) -> None:
        rule = 'written = "form"\ncharset_from = "charset"\ncharset = "utf-8"'
        self.assertEqual(self.text(rule, "%ED", charset="ISO-8859-1").text, "í")
        self.assertEqual(self.text(rule, "%C3%AD").text, "í")
        self.assertEqual(self.text(rule, "%ED", charset="nonsense").encoding, "windows-1252")
        p = profile('[request]\ncharset_from = "cs"')
        self.assertEqual(self.one(p.read(wire(b"to=1&from=2&text=%A4&cs=iso-8859-15", FORM))).text, "€")
        p = profile('[request]\ncharset = "iso-8859-1"')
        got = self.one(p.read(wire(b"", query="to=1&from=2&text=%C3%A4", method="GET")))
        self.assertEqual(got.text, "Ã¤")

    def test_what_is_not_wrapped_as_said_is_refused(self) -> None:
        for wrapping in ("hex", "base64"):
            with self.assertRaises(MalformedRequest):
                self.text(f'written = "{wrapping}"', "zz!")

    def test_a_long_packed_text_takes_no_longer_than_its_length(self) -> None:
        began = monotonic()
        got = self.text('written = "hex"\ncharset = "gsm0338-packed"', "e8329bfd4697d9ec37" * 20_000)
        self.assertGreater(len(got.text), 150_000)
        self.assertLess(monotonic() - began, 5)


class PartTests(ReaderTest):
    UDH = '[parts]\nudh = "udh"\ncount = "n"\n'

    def part(self, udh: str, extra: str = "") -> Part | None:
        return self.one(profile(self.UDH + extra).read(form(udh=udh))).part

    def test_by_a_udh_of_either_reference_also_behind_other_elements(self) -> None:
        self.assertEqual(self.part("050003A70201"), Part(reference="167", number=1, total=2))
        self.assertEqual(self.part("06080401A70302"), Part(reference="423", number=2, total=3))
        self.assertEqual(self.part("0b05040b8423f00003a70202"), Part(reference="167", number=2, total=2))
        self.assertIsNone(self.part("06050415811581"))
        self.assertIsNone(self.part("050003A70101"))

    def test_one_that_lies_is_ignored_or_refused(self) -> None:
        for udh in ("ff0003A70201", "050003A702", "0500ffA70201", "050003A70203", "050003A70200", "zz", "05"):
            self.assertIsNone(self.part(udh), udh)
            with self.assertRaises(MalformedRequest):
                self.part(udh, 'invalid = "refused"\n')

    @given(st.binary(max_size=40))
    def test_no_udh_does_more_harm_than_a_refusal(self, udh: bytes) -> None:
        part = self.part(udh.hex())
        if part is not None:
            self.assertTrue(1 <= part.number <= part.total <= 255)

    def test_by_three_fields(self) -> None:
        p = profile('[parts]\nreference = "r"\nnumber = "k"\ntotal = "n"\n')
        got = self.one(p.read(form(r="a", k="2", n="3")))
        self.assertEqual(got.part, Part(reference="a", number=2, total=3))
        for wrong in ({"k": "4"}, {"k": "0"}, {"k": "x"}, {"n": "256"}, {"n": "9" * 5000}, {"r": "a" * 65}):
            self.assertIsNone(self.one(p.read(form(**{"r": "a", "k": "2", "n": "3", **wrong}))).part)

    def test_of_several_rules_the_first_whose_conditions_hold_is_used(self) -> None:
        p = profile(
            '[[parts]]\nwhen = { hex = true }\nudh = "hex"\n[[parts]]\nudh = "raw"\nudh_format = "bytes"\n'
        )
        expected = Part(reference="167", number=1, total=2)
        self.assertEqual(self.one(p.read(form(hex="050003A70201", raw="x"))).part, expected)
        self.assertEqual(
            self.one(p.read(form(raw="\x05\0\x03\x07\x02\x01"))).part, evolve(expected, reference="7")
        )
        self.assertIsNone(self.one(p.read(form())).part)
        p = profile('[parts]\nwhen = { hex = true }\nudh = "hex"\n')
        self.assertIsNone(self.one(p.read(form())).part)

    def test_the_count_of_a_provider_that_joins_them(self) -> None:
        for count, expected in (("3", 3), ("0", 1), ("x", 1), ("9" * 5000, 1), ("9999", 255)):
            self.assertEqual(self.one(profile(self.UDH).read(form(n=count))).parts, expected)


class ExplainedTests(ReaderTest):
    def test_the_steps_say_where_everything_was_found(self) -> None:
        p = profile('[time]\nfield = "at"\nformats = ["unix_ms"]')
        steps = {step.what: step.found for step in p.explained(form(at="1700000000000", id="7")).steps}
        self.assertEqual(steps["receiver (to)"], "1")
        self.assertEqual(steps["message_id (id)"], "7")
        self.assertEqual(steps["time"], "2023-11-14T22:13:20+00:00")


class HostileTests(ReaderTest):
    def refused(self, p: LoadedProfile, body: bytes, kind: str) -> None:
        began = monotonic()
        with self.assertRaises(RequestRefused):
            p.read(wire(body, kind))
        self.assertLess(monotonic() - began, 1)

    def test_json_that_is_deep_endless_or_none(self) -> None:
        p = profile('[request]\nbody = ["json"]')
        for body in (b"[" * 10_000, b'{"a":' * 10_000, b"NaN", b"", b"\xff\xfe", b'{"to": ' + b"9" * 60_000):
            self.refused(p, body or b" {", JSON)

    def test_xml_bombs_and_external_entities(self) -> None:
        p = profile('[request]\nbody = ["xml"]')
        lol = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
        for body in (
            f'<!DOCTYPE x [<!ENTITY l0 "lol">{lol}]><x>&l9;</x>',
            '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x><text>&e;</text></x>',
            '<!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd"><x/>',
            "<a>" * 10_000,
            "<a>" * 5000 + "</a>" * 5000,
            "<x>&undefined;</x>",
            '<?xml version="1.0" encoding="nonsense"?><x/>',
        ):
            self.refused(p, body.encode(), XML)

    @given(st.binary(max_size=200), st.sampled_from([FORM, JSON, XML, "multipart/form-data; boundary=b", ""]))
    def test_whatever_comes_is_read_or_refused(self, body: bytes, kind: str) -> None:
        p = profile('[request]\nbody = ["form", "json", "xml", "multipart"]\nbatch = "results"')
        try:
            p.read(wire(body, kind))
        except RequestRefused:
            return
