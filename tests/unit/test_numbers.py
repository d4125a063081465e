"""How numbers are compared and written (contract 3, "Numbers")."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from smsdaemon.domain.numbers import matching_key, normalised_sender
from tests.support.cases import UnitTest

DIGITS = st.text("0123456789", min_size=1, max_size=20)
NOISE = st.text("-./() \t\u00a0\u2003", max_size=3)
ANY = settings(database=None, deadline=None, max_examples=300)


class MatchingKeyTests(UnitTest):
    def test_spellings_of_one_number_have_one_key(self) -> None:
        for spelling in (
            "+49123123",
            "49123123",
            "0049123123",
            " 49123123",  # a "+" that was left unencoded
            "+49 123-123",
            "(+49) 123/123",
            "00.49.123.123",
            "\u00a0+49\u2003123123\u00a0",
        ):
            self.assertEqual(matching_key(spelling), "49123123", spelling)

    def test_a_leading_00_stays_where_fewer_than_8_digits_follow(self) -> None:
        self.assertEqual(matching_key("001234567"), "001234567")
        self.assertEqual(matching_key("0012345678"), "12345678")
        self.assertEqual(matching_key("00"), "00")
        self.assertEqual(matching_key("00abcdefgh"), "00abcdefgh")

    def test_digits_of_other_scripts_are_no_digits(self) -> None:
        self.assertEqual(matching_key("00" + "\u0661" * 8), "00" + "\u0661" * 8)

    def test_only_one_prefix_is_dropped(self) -> None:
        self.assertEqual(matching_key("+0049123123"), "0049123123")
        self.assertEqual(matching_key("++49"), "+49")

    def test_nothing_but_punctuation_has_an_empty_key(self) -> None:
        self.assertEqual(matching_key(" +(-). / "), "")

    @ANY
    @given(DIGITS, st.lists(NOISE, min_size=21, max_size=21), st.sampled_from(["", "+"]))
    def test_blanks_and_punctuation_never_matter(self, digits: str, noise: list[str], plus: str) -> None:
        noisy = noise[0] + plus + "".join(d + n for d, n in zip(digits, noise[1:], strict=False))
        self.assertEqual(matching_key(noisy), matching_key(plus + digits))

    @ANY
    @given(DIGITS)
    def test_plus_and_00_mean_the_same_from_8_digits_on(self, digits: str) -> None:
        assume(len(digits) >= 8)
        self.assertEqual(matching_key("00" + digits), matching_key("+" + digits))

    @ANY
    @given(st.text())
    def test_any_text_has_a_key_without_blanks(self, text: str) -> None:
        key = matching_key(text)
        self.assertEqual(key, "".join(key.split()))


class NormalisedSenderTests(UnitTest):
    def test_an_international_prefix_becomes_a_plus_in_either_format(self) -> None:
        for raw in ("+49 789-789", "0049789789", " (0049) 789 789 "):
            self.assertEqual(normalised_sender(raw, "e164"), "+49789789", raw)
            self.assertEqual(normalised_sender(raw, "as-is"), "+49789789", raw)

    def test_8_to_15_bare_digits_get_a_plus_in_e164_only(self) -> None:
        for digits in ("12345678", "123456789012345"):
            self.assertEqual(normalised_sender(f" {digits} ", "e164"), "+" + digits)
            self.assertEqual(normalised_sender(f" {digits} ", "as-is"), digits)

    def test_what_is_no_international_number_stays_as_it_came(self) -> None:
        for raw in ("1234567", "1234567890123456", "0171 1234567", "72-33", "ACME", "+ACME", "001234567",
                    "\u0661" * 8, "+", "0049 789789 ext 5"):  # fmt: skip
            for sender_format in ("e164", "as-is"):
                self.assertEqual(normalised_sender(f"\u00a0{raw}\t", sender_format), raw)

    @ANY
    @given(st.text(max_size=20) | DIGITS)
    def test_a_normalised_sender_is_not_changed_again(self, raw: str) -> None:
        once = normalised_sender(raw, "e164")
        self.assertEqual(normalised_sender(once, "e164"), once)
