"""The search for what nothing may print; that it finds something is what its silence is worth."""

from __future__ import annotations

from pathlib import Path

from tests.support.cases import UnitTest
from tests.support.secrets_in_tests import (
    EXAMPLE_TOKEN,
    PASSWORD,
    RECEIVER,
    SECRET,
    SENDER_PREFIX,
    TEXT_MARKER,
    TOKEN,
    keep,
    leaks,
)


class SearchTests(UnitTest):
    def test_each_kind_of_value_is_found(self) -> None:
        for value, kind in (
            (TOKEN, "a token"),
            (EXAMPLE_TOKEN, "a token"),
            (SECRET, "a secret"),
            (PASSWORD, "a password"),
            (TEXT_MARKER, "a text"),
            (RECEIVER, "a number"),
            (f"{SENDER_PREFIX}00017", "a number"),
        ):
            self.assertEqual(leaks(f"a line\nGET /?x={value}&y HTTP".encode()), [kind])

    def test_a_number_is_found_in_an_url_and_without_its_plus(self) -> None:
        self.assertEqual(leaks(f"sender=%2B{RECEIVER[1:]}".encode()), ["a number"])
        self.assertEqual(leaks(RECEIVER[1:].encode()), ["a number"])

    def test_what_a_log_may_show_is_not_found(self) -> None:
        self.assertEqual(leaks(b"from +491\xe2\x80\xa611, whsec_\xe2\x80\xa6, ?\xe2\x80\xa6"), [])

    def test_what_is_kept_lies_where_the_search_looks(self) -> None:
        path = keep("unit", b"nothing secret\n")
        self.addCleanup(path.unlink)
        self.assertEqual(path.absolute().parent, Path("printed-by-processes").absolute())
        self.assertEqual(path.read_bytes(), b"nothing secret\n")
