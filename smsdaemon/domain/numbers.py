"""How telephone numbers are compared and written (contract 3, "Numbers"); digits are ASCII digits."""

from __future__ import annotations

import re
from functools import lru_cache

from smsdaemon.domain.model import SenderFormat

_PUNCTUATION = str.maketrans("", "", "-./()")
_INTERNATIONAL = re.compile(r"00(?=[0-9]{8})")
_E164_WITHOUT_PLUS = re.compile(r"[1-9][0-9]{7,14}")
_DIGITS = re.compile(r"[0-9]+")


@lru_cache(maxsize=1024)  # of receivers: each is asked for several times, and there are few
def matching_key(number: str) -> str:
    """What two spellings of one number have in common; "" where nothing of it counts.

    Blanks (also Unicode's) and ``- . / ( )`` go wherever they stand, then one leading ``+``, or a
    leading ``00`` where at least 8 digits follow it.
    """
    compact = _compact(number)
    if compact.startswith("+"):
        return compact[1:]
    if _INTERNATIONAL.match(compact):
        return compact[2:]
    return compact


def normalised_sender(raw: str, sender_format: SenderFormat) -> str:
    """The sender as it is stored and forwarded.

    ``+`` and digits where it came with ``+`` or ``00``, and, for ``e164``, where it is 8 to 15
    digits with no 0 in front; anything else (short codes, names) stripped, as it came.
    """
    compact = _compact(raw)
    if compact.startswith("+") and _DIGITS.fullmatch(compact, 1):
        return compact
    if _INTERNATIONAL.match(compact) and _DIGITS.fullmatch(compact):
        return "+" + compact[2:]
    if sender_format == "e164" and _E164_WITHOUT_PLUS.fullmatch(compact):
        return "+" + compact
    return raw.strip()


def _compact(number: str) -> str:
    # str.split() with no argument knows Unicode's white space, a translation table would not.
    return "".join(number.split()).translate(_PUNCTUATION)
