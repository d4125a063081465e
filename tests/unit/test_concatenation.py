"""Which parts belong together, which are repeats, and what they say when they are joined."""

from __future__ import annotations

from functools import reduce
from uuid import UUID

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from smsdaemon.domain.concatenation import (
    Concatenation,
    PastPart,
    begun,
    digest_of,
    joined,
    key_of,
    missing,
    repeated,
    sound,
)
from smsdaemon.domain.model import InboundSMS, Part
from tests.support.cases import UnitTest
from tests.support.sms_parts import cut, part, raw_part

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=2, max_size=60)
CUTS = st.lists(st.integers(0, 1000), min_size=1, max_size=5)


def whole_of(*parts: InboundSMS) -> Concatenation:
    """As if they had come in this order."""
    return reduce(Concatenation.with_part, parts[1:], begun(parts[0]))


def joined_of(pieces: list[bytes], charset: str | None) -> InboundSMS:
    total = len(pieces)
    return joined(
        whole_of(*(raw_part(raw, n, total, charset=charset) for n, raw in enumerate(pieces, start=1)))
    )


class JoiningTests(UnitTest):
    def test_texts_come_in_the_order_of_their_numbers_whatever_came_first(self) -> None:
        sms = joined(whole_of(part("c", 3, 3), part("a", 1, 3), part("b", 2, 3)))
        self.assertEqual((sms.text, sms.parts, sms.parts_missing, sms.part), ("abc", 3, (), None))

    def test_it_has_the_id_and_time_of_what_came_first_and_the_rest_of_part_one(self) -> None:
        second = part("b", 2, provider_message_id="p2", keyword="B", sender_raw="0049")
        first = part("a", 1, provider_message_id="p1", keyword="A", sender_raw="+49")
        sms = joined(whole_of(second, first))
        self.assertEqual((sms.id, sms.received_at), (second.id, second.received_at))
        self.assertEqual((sms.provider_message_id, sms.keyword, sms.sender_raw), ("p1", "A", "+49"))

    def test_it_goes_where_the_last_part_would_go(self) -> None:
        first, second = part("a", 1, target_id=1, client_id=1), part("b", 2, target_id=5, client_id=3)
        sms = joined(whole_of(first, second))
        self.assertEqual((sms.target_id, sms.client_id), (5, 3))
        self.assertEqual(joined(whole_of(first, second), last=first).target_id, 1)

    def test_where_parts_are_missing_what_is_there_is_joined_and_they_are_named(self) -> None:
        sms = joined(whole_of(part("d", 4, 5), part("b", 2, 5)))
        self.assertEqual((sms.text, sms.parts, sms.parts_missing), ("bd", 5, (1, 3, 5)))

    @given(TEXTS, CUTS)
    def test_utf_8_cut_anywhere_comes_out_right(self, text: str, at: list[int]) -> None:
        sms = joined_of(cut(text.encode(), at), "utf-8")
        self.assertEqual((sms.text, sms.encoding), (text, "utf-8"))

    @given(TEXTS, CUTS)
    def test_utf_8_that_nobody_named_comes_out_right(self, text: str, at: list[int]) -> None:
        sms = joined_of(cut(text.encode(), at), None)
        self.assertEqual((sms.text, sms.encoding), (text, "utf-8"))

    @given(TEXTS, CUTS)
    def test_utf_16_cut_within_surrogate_pairs_comes_out_right(self, text: str, at: list[int]) -> None:
        sms = joined_of(cut(text.encode("utf-16-be"), [2 * place for place in at]), "utf-16be")
        self.assertEqual((sms.text, sms.raw_text), (text, text.encode("utf-16-be")))

    @given(st.text("abcäöüß", min_size=2), CUTS)
    def test_windows_1252_comes_out_right(self, text: str, at: list[int]) -> None:
        self.assertEqual(joined_of(cut(text.encode("cp1252"), at), "windows-1252").text, text)
        self.assertEqual(joined_of(cut(text.encode("cp1252"), at), None).text, text)

    def test_windows_1252_that_could_be_utf_8_stays_what_it_was_named(self) -> None:
        self.assertEqual(joined_of([b"\xc3\xbc", b"x"], "windows-1252").text, "Ã¼x")

    def test_a_mark_at_the_beginning_of_each_part_is_no_character(self) -> None:
        sms = joined_of(["grü".encode("utf-16"), "ße".encode("utf-16")], "utf-16")
        self.assertEqual((sms.text, sms.raw_text), ("grüße", None))

    def test_parts_in_different_charsets_are_joined_as_texts(self) -> None:
        parts = [raw_part(b"gr\xfc", 1, charset="iso-8859-1"), raw_part("ße".encode(), 2, charset="utf-8")]
        sms = joined(whole_of(*parts))
        self.assertEqual((sms.text, sms.encoding, sms.raw_text), ("grüße", "iso-8859-1", None))

    def test_parts_whose_bytes_are_not_known_are_joined_as_texts(self) -> None:
        sms = joined(whole_of(part("grü", 1), raw_part("ße".encode(), 2)))
        self.assertEqual((sms.text, sms.raw_text), ("grüße", None))

    def test_bytes_that_no_charset_decodes_are_kept_and_their_texts_joined(self) -> None:
        binary = [part("", n, 3, encoding="binary", raw_text=raw) for n, raw in ((1, b"\xde"), (3, b"\xbe"))]
        nothing = part("", 2, 3, encoding="binary")
        sms = joined(whole_of(*binary, nothing))
        self.assertEqual((sms.text, sms.encoding, sms.raw_text), ("", "binary", b"\xde\xbe"))
        euro = part("€ ", 1, encoding="gsm0338", raw_text=b"\x1be ")
        sms = joined(whole_of(euro, part("plain", 2, encoding="gsm0338")))
        self.assertEqual((sms.text, sms.encoding, sms.raw_text), ("€ plain", "gsm0338", b"\x1be plain"))
        self.assertIsNone(joined(whole_of(part("a", 1, encoding="gsm0338"), nothing)).raw_text)
        ascii = [part(text, n, encoding="gsm0338") for n, text in ((1, "a"), (2, "b"))]
        self.assertIsNone(joined(whole_of(*ascii)).raw_text)

    def test_two_halves_over_a_gap_make_no_character(self) -> None:
        pair = "👋".encode("utf-16-be")
        high = raw_part(b"\0a" + pair[:2], 1, 3, charset="utf-16be")
        low = raw_part(pair[2:] + b"\0b", 3, 3, charset="utf-16be")
        self.assertEqual(joined(whole_of(high, low)).text, "a\ufffd\ufffdb")

    def test_plain_ascii_keeps_no_bytes(self) -> None:
        self.assertIsNone(joined_of([b"a", b"b"], "utf-8").raw_text)


class BelongingTests(UnitTest):
    def test_connector_sender_receiver_reference_and_total_tell_sms_apart(self) -> None:
        one = part("a", 1, 3)
        same = [part("b", 2, 3), evolve(one, text="z", provider_message_id="p")]
        others = [
            part("a", 1, 2),
            part("a", 1, 3, reference="8"),
            part("a", 1, 3, sender="+491"),
            part("a", 1, 3, connector_id=2),
            part("a", 1, 3, receiver="+492"),
        ]
        self.assertEqual({key_of(sms) for sms in same}, {key_of(one)})
        self.assertEqual(len({key_of(sms) for sms in [one, *others]}), 6)

    def test_a_repeat_has_the_same_number_and_content(self) -> None:
        one = part("a", 1)
        self.assertEqual(digest_of(part("a", 1, provider_message_id="p")), digest_of(one))
        others = [part("a", 2), part("b", 1), part("a", 1, raw_text=b"x"), part("a", 1, reference="8")]
        self.assertEqual(len({digest_of(sms) for sms in [one, *others]}), 5)

    def test_missing_numbers(self) -> None:
        self.assertEqual(missing([2, 4], 4), (1, 3))
        self.assertEqual(missing([1, 2], 2), ())

    def test_a_part_that_cannot_be_one_stands_alone(self) -> None:
        for number, total in [(0, 2), (3, 2), (1, 1), (1, 256), (-1, 3)]:
            self.assertIsNone(sound(Part(reference="7", number=number, total=total)))
        self.assertIsNone(sound(None))
        good = Part(reference="7", number=255, total=255)
        self.assertEqual(sound(good), good)


class RepeatTests(UnitTest):
    OLD = UUID(int=7)

    def past(self, message_id: str | None, *, recent: bool, id: UUID | None = None) -> list[PastPart]:
        return [
            PastPart(
                id=id or UUID(int=8),
                concatenation_id=self.OLD,
                provider_message_id=message_id,
                recent=recent,
            )
        ]

    def test_what_waits_knows_the_same_number_with_the_same_content(self) -> None:
        first = part("a", 1)
        waiting = begun(first)
        self.assertEqual(repeated(part("a", 1), waiting, []), waiting.id)
        self.assertIsNone(repeated(part("b", 1), waiting, []))
        self.assertIsNone(repeated(part("a", 2), waiting, []))

    def test_under_its_providers_id_a_part_is_known_for_long(self) -> None:
        sms = part("a", 1, provider_message_id="p")
        self.assertEqual(repeated(sms, None, self.past("p", recent=False)), self.OLD)
        self.assertEqual(repeated(sms, begun(part("b", 2)), self.past("p", recent=False)), self.OLD)

    def test_without_one_for_a_short_while(self) -> None:
        for now, then in (("p", None), (None, "p"), (None, None)):
            sms = part("a", 1, provider_message_id=now)
            self.assertEqual(repeated(sms, None, self.past(then, recent=True)), self.OLD)
            self.assertIsNone(repeated(sms, None, self.past(then, recent=False)))

    def test_under_another_one_only_while_the_others_wait(self) -> None:
        sms = part("a", 1, provider_message_id="p")
        waiting = begun(part("a", 1, provider_message_id="q"))
        self.assertEqual(repeated(sms, waiting, []), waiting.id)
        self.assertIsNone(repeated(sms, None, self.past("q", recent=True)))

    def test_what_is_missing_from_what_waits_is_rather_a_part_of_that(self) -> None:
        self.assertIsNone(repeated(part("a", 1), begun(part("b", 2)), self.past(None, recent=True)))

    def test_the_same_request_is_the_same_part_however_long_ago(self) -> None:
        sms = part("a", 1)
        self.assertEqual(repeated(sms, None, self.past(None, recent=False, id=sms.id)), self.OLD)
