"""Forms, taken apart."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st

from smsdaemon.domain.forms import form_pairs, pair_count
from tests.support.cases import UnitTest

_PIECES = (b"&", b";", b"=", b"%", b"2", b"6", b"D", b"a", b"+", b"\xff")
_ESCAPES = (b"%26", b"%3D", b"%3d", b"%3B", b"%3b", b"%25", b"%41", b"%C3%A4", b"%00")
_RAW = st.lists(st.sampled_from(_PIECES + _ESCAPES)).map(b"".join)


class FormPairsTests(UnitTest):
    def test_names_and_values_are_decoded_in_their_order(self) -> None:
        self.assertEqual(
            form_pairs(b"b=%C3%A4+x&&a%3D1=2%26&b=&c&=d"),
            [
                (b"b", b"=", "ä x".encode()),
                (b"a=1", b"=", b"2&"),
                (b"b", b"=", b""),
                (b"c", b"", b""),
                (b"", b"=", b"d"),
            ],
        )

    @given(_RAW, st.sampled_from([b"&", b";"]))
    def test_whatever_is_escaped_each_name_and_value_is_decoded_by_itself(
        self, raw: bytes, separator: bytes
    ) -> None:
        expected = []
        for piece in raw.split(separator):
            name, equals, value = (part.replace(b"+", b" ") for part in piece.partition(b"="))
            if piece:
                expected.append((unquote_to_bytes(name), equals, unquote_to_bytes(value)))
        self.assertEqual(form_pairs(raw, separator), expected)
        self.assertEqual(pair_count(raw, separator), len(expected))
