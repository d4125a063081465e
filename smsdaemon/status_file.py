"""What a running daemon tells of itself in its state folder, for `smsdaemon status`."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smsdaemon.statedir import process_lives

WRITE_SECONDS = 1.0
"""How often it is written."""
FRESH_SECONDS = 5.0
"""What is older than this was written by a daemon that hangs."""


class StatusFile:
    """One JSON object, replaced in one step."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "status.json"

    def write(self, document: Mapping[str, Any]) -> None:
        """Raises OSError."""
        new = self._path.with_name(f".{self._path.name}.new")
        document = {**document, "pid": os.getpid(), "written_at": time.time()}
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as stream:
            json.dump(document, stream)
        new.replace(self._path)

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink()

    def read(self) -> dict[str, Any] | None:
        """What a living daemon wrote, with ``fresh``: whether it still does; None: no daemon runs.

        Raises OSError where the file may not be read.
        """
        try:
            document: dict[str, Any] = json.loads(self._path.read_bytes())
            pid, age = int(document["pid"]), time.time() - float(document["written_at"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        if not process_lives(pid):
            return None
        return {**document, "fresh": abs(age) < FRESH_SECONDS}
