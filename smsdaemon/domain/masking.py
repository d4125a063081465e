"""Numbers and texts such that a log or a terminal may show them."""

from __future__ import annotations

HIDDEN = "…"
_SHORTEST_SHOWN = 9
"""Characters; of less than that, a few at both ends would be most of the number."""


def masked_number(number: str) -> str:
    """``+497…89``: the first four characters and the last two; of a short one nothing is left.

    A sender of letters is masked alike. What is left may still hold control characters.
    """
    return f"{number[:4]}{HIDDEN}{number[-2:]}" if len(number) >= _SHORTEST_SHOWN else HIDDEN


def masked_text(text: str) -> str:
    """``12 characters``."""
    return "1 character" if len(text) == 1 else f"{len(text)} characters"
