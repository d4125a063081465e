"""From a peer's bytes to text that PostgreSQL can hold."""

from __future__ import annotations

import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from smsdaemon.domain.text import (
    bytes_again,
    charset_label,
    charset_labels,
    decode,
    decode_reversibly,
    storable,
    worth_keeping,
)
from tests.support.cases import UnitTest

ANY = settings(database=None, deadline=None, max_examples=300)
ANY_TEXT = st.text(st.characters(exclude_categories=()))
"""Also with lone surrogates."""
WIDE = ("utf-16", "utf-32")


class StorableTests(UnitTest):
    def test_every_code_point_but_nul_and_surrogates_survives(self) -> None:
        for code in range(1, sys.maxunicode + 1, 7):
            character = chr(code)
            expected = "\ufffd" if 0xD800 <= code <= 0xDFFF else character
            if storable(character) != expected:
                self.fail(f"U+{code:04X} became {storable(character)!a}")

    def test_nul_and_lone_surrogates_become_replacement_characters(self) -> None:
        self.assertEqual(storable("a\0b\ud800c\udfffd\U0001f600"), "a\ufffdb\ufffdc\ufffdd\U0001f600")

    @ANY
    @given(ANY_TEXT)
    def test_what_comes_out_can_be_written_as_utf8_and_has_the_same_length(self, text: str) -> None:
        stored = storable(text)
        self.assertNotIn(b"\0", stored.encode())
        self.assertEqual(len(stored), len(text))


class DecodeTests(UnitTest):
    def test_no_charset_means_utf8_and_windows_1252_where_it_is_not_that(self) -> None:
        self.assertEqual(decode("Grüße €".encode(), None), ("Grüße €", "utf-8"))
        self.assertEqual(decode("Grüße €".encode("cp1252"), None), ("Grüße €", "windows-1252"))
        self.assertEqual(decode(b"\x81\xfc", None), ("\ufffdü", "windows-1252"))

    def test_a_named_charset_is_used_and_reported_by_its_usual_name(self) -> None:
        for name, label in (
            ("ISO-8859-1", "iso-8859-1"),
            ("latin1", "iso-8859-1"),
            ("'Windows-1252'", "windows-1252"),
            ("CP437", "ibm437"),
            ("UTF8", "utf-8"),
            ("utf-16BE", "utf-16be"),
            ("UTF-32", "utf-32"),
            ("iso_8859-15", "iso-8859-15"),
        ):
            text = "Grüße"
            self.assertEqual(decode(text.encode(name.strip("'")), name), (text, label))
        for name, label in (("Shift-JIS", "shift_jis"), ("euc-jp", "euc-jp"), ("big5", "big5"),
                            ("GB18030", "gb18030"), ("gbk", "gbk")):  # fmt: skip
            self.assertEqual(decode("日本".encode(name), name), ("日本", label))
        self.assertEqual(decode("привет".encode("koi8-r"), "KOI8-R"), ("привет", "koi8-r"))

    def test_bytes_that_mean_nothing_in_the_named_charset_become_replacement_characters(self) -> None:
        self.assertEqual(decode(b"a\xffb", "utf-8"), ("a\ufffdb", "utf-8"))
        self.assertEqual(decode(b"a\xffb", "us-ascii"), ("a\ufffdb", "us-ascii"))

    def test_what_is_no_text_encoding_counts_as_none_given(self) -> None:
        for name in ("nonsense", "idna", "punycode", "unicode_escape", "raw-unicode-escape", "utf-7", "hex",
                     "base64", "rot13", "zlib", "undefined", "mbcs", "iso-2022-jp", "hz", "", "\0", "\ud800",
                     "ü" * 10, "a" * 10_000, "../../x", "os.path"):  # fmt: skip
            self.assertEqual(decode(b"+AGE-\\u0061\xc3\xbc", name), ("+AGE-\\u0061ü", "utf-8"), name)

    @ANY
    @given(
        st.binary(),
        st.none() | st.text() | st.sampled_from(["utf-8", "utf-16", "utf-32", "gb18030", "euc_jp"]),
    )
    def test_any_bytes_under_any_name_become_storable_text(self, raw: bytes, charset: str | None) -> None:
        text, label = decode(raw, charset)
        self.assertNotIn(b"\0", text.encode())
        self.assertEqual(label, label.lower())

    @ANY
    @given(st.text())
    def test_any_text_survives_as_utf8(self, text: str) -> None:
        self.assertEqual(decode(text.encode(), None), (storable(text), "utf-8"))

    @settings(ANY, max_examples=1000)
    @given(st.binary(), st.none() | st.sampled_from(charset_labels()))
    def test_bytes_mean_the_same_again_by_the_name_that_was_reported(
        self, raw: bytes, charset: str | None
    ) -> None:
        text, label = decode(raw, charset)
        self.assertEqual(decode(raw, label), (text, label))


class BytesAgainTests(UnitTest):
    @settings(ANY, max_examples=1000)
    @given(st.binary(), st.none() | st.sampled_from([n for n in charset_labels() if n[:6] not in WIDE]))
    def test_what_was_decoded_reversibly_has_its_own_bytes(self, raw: bytes, charset: str | None) -> None:
        text, label = decode_reversibly(raw, charset)
        again = bytes_again(text, label)
        if again is None:
            self.fail(f"{raw!r} has no bytes as {label}")
        self.assertEqual(decode(again, label), decode(raw, label))
        if label in ("utf-8", "us-ascii", "windows-1252", "iso-8859-1", "ibm850", "macintosh"):
            self.assertEqual(again, raw)

    @ANY
    @given(st.text(), st.sampled_from(charset_labels()))
    def test_any_text_that_a_charset_has_comes_back_from_its_bytes(self, text: str, label: str) -> None:
        again = bytes_again(text, label)
        if again is not None:
            self.assertEqual(decode(again, label), (storable(text), label))

    def test_a_text_that_a_charset_lacks_has_no_bytes_there(self) -> None:
        for text, label in (
            ("👋", "windows-1252"),
            ("ü", "us-ascii"),
            ("\ud800", "utf-8"),
            ("\udc80", "ibm850"),
        ):
            self.assertIsNone(bytes_again(text, label), label)

    def test_bytes_are_worth_keeping_unless_they_are_the_texts_own_ascii(self) -> None:
        for raw, charset, kept in (
            (b"", None, False),
            (b"plain", None, False),
            (b"plain", "latin1", False),
            ("Grüße".encode(), None, True),
            (b"a\0b", None, True),
            ("plain".encode("utf-16"), "utf-16", True),
            (b"\0p", "utf-16be", True),
        ):
            self.assertEqual(worth_keeping(raw, decode(raw, charset)[0]) == raw, kept, raw)
        self.assertIsNone(worth_keeping(None, "ü"))


class LabelTests(UnitTest):
    def test_every_charset_goes_by_the_name_that_is_reported(self) -> None:
        for label in charset_labels():
            self.assertEqual(charset_label(label), label)
        self.assertEqual(charset_label(" Latin-1"), "iso-8859-1")
        self.assertIsNone(charset_label("klingon"))
