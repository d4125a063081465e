"""What chaos prints."""

from __future__ import annotations

import sys


def say(what: object) -> None:
    """A line, at once: somebody may be following."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()
