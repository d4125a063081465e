"""What is left of numbers and texts where a log or a terminal shows them."""

from __future__ import annotations

from smsdaemon.domain.masking import masked_number, masked_text
from tests.support.cases import UnitTest
from tests.support.secrets_in_tests import SENDER, TEXT_MARKER


class MaskingTests(UnitTest):
    def test_a_number_keeps_its_first_four_and_last_two_characters(self) -> None:
        self.assertEqual(masked_number(SENDER), f"{SENDER[:4]}…{SENDER[-2:]}")
        self.assertEqual(masked_number("Sparkasse"), "Spar…se")

    def test_of_a_short_one_nothing_is_left(self) -> None:
        for number in ("", "1", "12345", "+4917155"):
            self.assertEqual(masked_number(number), "…", number)

    def test_of_a_text_only_the_length_is_left(self) -> None:
        self.assertEqual(masked_text(TEXT_MARKER), f"{len(TEXT_MARKER)} characters")
        self.assertEqual([masked_text(text) for text in ("", "ä")], ["0 characters", "1 character"])
