"""What is sent to PostgreSQL for a statement that is planned beforehand."""

from __future__ import annotations

from smsdaemon.store.prepared import Prepared
from tests.support.cases import UnitTest

TYPES = {"a": "integer", "b": "text"}


class PreparedTests(UnitTest):
    def test_each_parameter_is_declared_and_given_once_in_the_order_of_its_first_use(self) -> None:
        statement = Prepared("SELECT %(b)s, %(a)s, %(b)s || 'x'", name="one", types=TYPES)
        self.assertEqual(statement.prepare, "PREPARE one_0 (text, integer) AS SELECT $1, $2, $1 || 'x'")
        self.assertEqual(statement.execute, "EXECUTE one_0 (%(b)s, %(a)s)")
        self.assertEqual(statement.forget, "DEALLOCATE one_0")

    def test_of_several_statements_each_has_its_own_parameters(self) -> None:
        statement = Prepared("SELECT %(a)s;\nSELECT %(b)s;\n", name="two", types=TYPES)
        self.assertEqual(statement.execute, "EXECUTE two_0 (%(a)s);EXECUTE two_1 (%(b)s)")

    def test_a_semicolon_in_a_comment_ends_no_statement(self) -> None:
        statement = Prepared("SELECT -- this; and that\n %(a)s", name="one", types=TYPES)
        self.assertEqual(statement.execute, "EXECUTE one_0 (%(a)s)")

    def test_it_is_still_the_text_of_the_statement(self) -> None:
        self.assertEqual(Prepared("SELECT %(a)s", name="one", types=TYPES), "SELECT %(a)s")
