"""The documentation names tests, files and commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

from smsdaemon.cli.main import main
from tests.support.cases import UnitTest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


class DocumentationTests(UnitTest):
    def test_every_test_that_a_guarantee_names_exists(self) -> None:
        source, missing = "", []
        for word in re.findall(r"[\w/]+\.py\b|\btest_\w+", self.text(ROOT / "docs" / "guarantees.md")):
            if word.endswith(".py"):
                source = self.text(ROOT / "tests" / word)
            elif f"def {word}(" not in source:
                missing.append(word)
        self.assertEqual(missing, [])

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
