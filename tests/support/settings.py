"""Settings files for tests, in a folder of their own."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from smsdaemon.errors import ConfigurationError
from smsdaemon.settings import Settings, load
from tests.support.cases import UnitTest

HTTP = '[http]\nlisten = ["tcp:8080"]\n'


class SettingsTest(UnitTest):
    """Loads settings from ``folder``, which is not the one that the program was started in, ``cwd``."""

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name, "conf")
        self.cwd = Path(scratch.name, "cwd")
        self.folder.mkdir()
        self.cwd.mkdir()
        self.file = self.folder / "smsdaemon.toml"

    def load(
        self, text: str | bytes, environ: Mapping[str, str] | None = None, serving: bool = True
    ) -> Settings:
        """What a file with this text makes."""
        self.file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load(self.file, environ or {}, self.cwd, serving=serving)

    def without_file(self, **environ: str) -> Settings:
        """What the variables make, given without their prefix."""
        return load(None, {f"SMSDAEMON_{name}": value for name, value in environ.items()}, self.cwd)

    def assert_problems(
        self, text: str | bytes, *lines: str, environ: Mapping[str, str] | None = None
    ) -> None:
        """These lines, and no others, are the problems; FILE and FOLDER stand for where the text is."""
        with self.assertRaises(ConfigurationError) as caught:
            self.load(text, environ)
        self.assertEqual([self.plain(line) for line in caught.exception.problems], list(lines))

    def plain(self, line: str) -> str:
        """The line without what differs in each run."""
        return line.replace(str(self.file), "FILE").replace(str(self.folder), "FOLDER")
