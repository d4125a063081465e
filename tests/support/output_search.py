"""The last tests of `make test`: the output of all the others; run by tests/support/suite.py only."""

from __future__ import annotations

import os
import re
from pathlib import Path

from tests.support.cases import UnitTest
from tests.support.secrets_in_tests import KEPT, leaks
from tests.support.suite import PRINTED_IN


class WholeOutputTests(UnitTest):
    """trial's output and log, and whatever the processes printed that tests have started."""

    def setUp(self) -> None:
        folders = [Path(folder) for folder in os.environ[PRINTED_IN].splitlines()]
        self.of_trial = [folder / name for folder in folders for name in ("printed.log", "test.log")]
        self.of_processes = [path for folder in folders for path in sorted((folder / KEPT).glob("*.log"))]

    def test_nothing_that_was_printed_holds_a_token_a_secret_a_text_or_a_number(self) -> None:
        found = {str(path): leaks(searched(path)) for path in self.of_trial + self.of_processes}
        self.assertEqual({name: kinds for name, kinds in found.items() if kinds}, {})

    def test_what_the_daemons_printed_was_kept_for_this_search(self) -> None:
        ran_daemons = any(b"tests.e2e.test_example_calls" in path.read_bytes() for path in self.of_trial)
        printed = sum(path.stat().st_size for path in self.of_processes)
        self.assertGreaterEqual(printed, 1000 if ran_daemons else 0)


def searched(path: Path) -> bytes:
    """What the file holds; without the names by which `apply` tells its user of wrong connectors."""
    printed = path.read_bytes()
    return re.sub(rb'connector "[^"]*"', b"", printed) if path.stem.endswith("-smsdaemon") else printed
