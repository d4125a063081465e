"""The documentation names tests, files and commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

from smsdaemon.cli.main import main
from smsdaemon.providers.described import signature
from smsdaemon.providers.schemes import SCHEMES, make_scheme
from tests.chaos.checker import INVARIANTS
from tests.support.cases import UnitTest
from tests.support.provider_docs import PAGE, page

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_NO_METRICS = {"directory", "delivery", "breaker"}
"""Channels of notifications."""


class DocumentationTests(UnitTest):
    def test_every_test_that_a_guarantee_names_exists(self) -> None:
        source, missing = "", []
        for word in re.findall(r"[\w/]+\.py\b|\btest_\w+", self.text(ROOT / "docs" / "guarantees.md")):
            if word.endswith(".py"):
                source = self.text(ROOT / "tests" / word)
            elif f"def {word}(" not in source:
                missing.append(word)
        self.assertEqual(missing, [])

    def test_every_guarantee_names_a_test_or_what_chaos_checks(self) -> None:
        page = self.text(ROOT / "docs" / "guarantees.md")
        unproved, rows, proved = [], 0, False
        for line in page.splitlines():
            if not line.startswith("| "):
                proved = False
            elif line.endswith("| shown by |"):
                proved = True
            elif proved and not line.startswith("| ---"):
                rows += 1
                if not re.search(r"\btest_\w|\*chaos:\*", line.rpartition(" | ")[2]):
                    unproved.append(line)
        self.assertGreater(rows, 50)
        self.assertEqual(unproved, [])

    def test_what_chaos_is_said_to_check_is_checked(self) -> None:
        page = self.text(ROOT / "docs" / "guarantees.md")
        named = {name for names in re.findall(r"\*chaos:\* ([a-z ,]+\w)", page) for name in names.split(", ")}
        self.assertEqual(named - set(INVARIANTS), {"secrets in the log"})
        self.assertEqual({name for name in INVARIANTS if f"\n| {name} | " not in page}, set())

    def test_every_metric_in_the_documents_is_counted(self) -> None:
        source = self.text(ROOT / "smsdaemon" / "metrics.py")
        named = {name for page in PAGES for name in re.findall(r"\bsmsdaemon_([a-z_]+)", self.text(page))}
        missing = {
            name
            for name in named - _NO_METRICS
            if f'"{name.removesuffix("_total")}"' not in source
            and f'"smsdaemon_{name.removesuffix("_total")}"' not in source
            and f'"{name.removesuffix("_seconds")}"' not in source
        }
        self.assertEqual(missing, set())

    def test_the_page_of_providers_is_made_of_the_profiles(self) -> None:
        self.assertTrue(self.text(PAGE) == page(), "make docs-providers")

    def test_every_scheme_is_told_with_what_signs_and_what_it_covers(self) -> None:
        untold = []
        for name in SCHEMES:
            told = signature(make_scheme(name, {}))
            if not (told.place and told.covers):
                untold.append(name)
        self.assertEqual(untold, [])

    def test_every_link_leads_to_a_file(self) -> None:
        missing = [
            f"{page.name}: {target}"
            for page in PAGES
            for target in re.findall(r"\]\(([^)#]+)\)", self.text(page))
            if "://" not in target and not (page.parent / target).exists()
        ]
        self.assertEqual(missing, [])

    def test_every_module_in_the_architecture_exists(self) -> None:
        named = re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", self.text(ROOT / "docs" / "architecture.md"))
        self.assertNotEqual(named, [])
        self.assertEqual([name for name in named if not self.exists(name)], [])

    def test_the_readme_names_every_command_and_no_other(self) -> None:
        _, _, table = self.text(ROOT / "README.md").partition("\n## The command\n")
        rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
        named = {word for row in rows for word in re.findall(r"`([a-z]+)", row)}
        self.assertEqual(named, set(main.commands))

    def exists(self, name: str) -> bool:
        return (ROOT / name).exists() or (ROOT / "smsdaemon" / name).exists()

    def text(self, page: Path) -> str:
        return page.read_text(encoding="utf-8")
