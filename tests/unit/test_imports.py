"""Import rules that import-linter cannot say, since it takes an external package as a whole."""

from __future__ import annotations

import ast
from pathlib import Path

import smsdaemon
from tests.support.cases import UnitTest

PACKAGE = Path(smsdaemon.__file__).parent


def imports(path: Path) -> set[str]:
    """Everything that a module imports, wherever in it, as full names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(f"{node.module}.{name.name}" for name in node.names)
    return found


class ImportTests(UnitTest):
    def test_the_core_does_not_know_twisted_web(self) -> None:
        modules = "ports intake dispatch lookout leases breakers places refusals samples errors"
        core = [PACKAGE / f"{name}.py" for name in modules.split()]
        core += (PACKAGE / "domain").glob("*.py")
        of_web = {
            path.name: sorted(name for name in imports(path) if name.startswith("twisted.web"))
            for path in core
        }
        self.assertEqual({name: found for name, found in of_web.items() if found}, {})

    def test_only_what_starts_a_process_takes_the_reactor_from_the_world(self) -> None:
        takers = {
            str(path.relative_to(PACKAGE))
            for path in PACKAGE.rglob("*.py")
            if "twisted.internet.reactor" in imports(path)
        }
        self.assertEqual(takers, {"tap.py", "worker_process.py"})

    def test_modules_stay_small_enough_to_be_read(self) -> None:
        lines = {
            str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines())
            for path in PACKAGE.rglob("*.py")
        }
        self.assertEqual({name: count for name, count in lines.items() if count > 400}, {})
