"""XML of any charset and shape: what it says, and that neither leaves anything behind or takes long."""

from __future__ import annotations

import encodings
from time import process_time

from smsdaemon.errors import MalformedRequest
from smsdaemon.providers.documents import read_xml
from smsdaemon.providers.field_names import field_names
from smsdaemon.providers.selectors import selector
from tests.support.cases import UnitTest

XML = "application/xml"


def value(raw: bytes, wanted: str = "t", charset: str | None = None) -> tuple[str, str]:
    """The text, and the charset it was read by."""
    found = read_xml(raw, charset).value(selector(wanted))
    return ("", "") if found is None else found[:2]


def declaring(charset: str, text: str = "x") -> str:
    return f"<?xml version='1.0' encoding=\"{charset}\" ?><a><t>{text}</t></a>"


class CharsetTests(UnitTest):
    def test_names_that_nobody_knows_are_refused_and_leave_nothing_behind(self) -> None:
        kept = len(encodings._cache)
        for name in ("leak-%d", "os", "x" * 60_000):
            for n in range(3):
                body = declaring(name.replace("%d", str(n))).encode()
                with self.assertRaises(MalformedRequest):
                    read_xml(body, None)
                field_names(b"", XML, body)
        self.assertEqual(len(encodings._cache), kept)

    def test_what_is_declared_counts(self) -> None:
        for name, codec, label in (
            ("ISO-8859-15", "iso-8859-15", "iso-8859-15"),
            ("windows-1251", "cp1251", "windows-1251"),
            ("Shift_JIS", "shift_jis", "shift_jis"),
            ("UTF-8", "utf-8", "utf-8"),
            ("utf-16", "utf-16", "utf-16"),
            ("utf-16", "utf-16-le", "utf-16le"),
            ("utf-16", "utf-16-be", "utf-16be"),
            ("iso-8859-1", "utf-8-sig", "utf-8"),
        ):
            text = {"cp1251": "Привет", "shift_jis": "日本", "iso-8859-15": "€"}.get(codec, "ü😀")
            raw = declaring(name, text).encode(codec)
            self.assertEqual(value(raw), (text, label), (name, codec))

    def test_a_mark_counts_more_than_the_content_type_and_that_more_than_the_document(self) -> None:
        self.assertEqual(value(declaring("utf-8", "ü").encode("utf-16"), charset="utf-8"), ("ü", "utf-16"))
        latin = declaring("utf-8", "ü").encode("latin-1")
        self.assertEqual(value(latin, charset="ISO-8859-1"), ("ü", "iso-8859-1"))
        self.assertEqual(value(latin, charset="klingon"), ("ü", "windows-1252"))

    def test_what_cannot_be_true_counts_as_not_declared(self) -> None:
        for name in ("utf-16", "UTF-16LE", "utf-32", "us-ascii", "utf-8"):
            self.assertEqual(value(declaring(name, "ü").encode()), ("ü", "utf-8"), name)
            self.assertEqual(value(declaring(name, "ü").encode("cp1252")), ("ü", "windows-1252"), name)


class NamespaceTests(UnitTest):
    def test_they_do_not_count_and_of_equal_names_the_first_does(self) -> None:
        inner = b'<p:t p:k="1" k="2">x</p:t><t>y</t><e n="1" p:n="2"/>'
        body = b'<p:a xmlns:p="urn:p" xmlns="urn:q">' + inner + b"</p:a>"
        self.assertEqual(value(body)[0], "x")
        self.assertEqual(value(body, "t@k")[0], "1")
        self.assertEqual(value(body, "e@n")[0], "1")
        self.assertEqual(value(body, "t@xmlns"), ("", ""))
        self.assertEqual(field_names(b"", XML, body), {"t", "t@k", "e", "e@n"})

    def test_a_long_one_costs_not_many_times_what_a_short_one_does(self) -> None:
        attributes = " ".join(f'p:a{n}="1"' for n in range(2000))
        for body in (
            f'<a xmlns="NAME">{"<b/>" * 8000}</a>',
            f'<p:a xmlns:p="NAME">{"<p:b/>" * 5000}</p:a>',
            f'<a xmlns:p="NAME" {attributes}/>',
        ):
            # In turns, and the best of each: the machine may be busy. It was 30 times as much, and more.
            times: dict[str, list[float]] = {"u": [], "u" * 30_000: []}
            for _ in range(5):
                for name, taken in times.items():
                    taken.append(seconds_to_read(body.replace("NAME", name).encode()))
            short, long = (min(taken) for taken in times.values())
            self.assertLess(long, 10 * short)


def seconds_to_read(body: bytes) -> float:
    began = process_time()
    document = read_xml(body, None)
    for name in ("t", "@t", "//t", "b[@t=1]", "b.t"):
        document.value(selector(name))
    field_names(b"", XML, body)
    return process_time() - began
