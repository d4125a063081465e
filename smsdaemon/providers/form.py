"""application/x-www-form-urlencoded, in a body and in a query."""

from __future__ import annotations

from collections.abc import Collection

from smsdaemon.domain.forms import form_pairs, pair_count
from smsdaemon.domain.text import decode
from smsdaemon.providers.fields import Values, check_count


def read_form(raw: bytes, wanted: Collection[bytes], charset: str | None) -> tuple[Values, int]:
    """The values of the wanted names, and how many fields there are in all.

    A blank may be written as ``+``; a malformed %-escape stands for itself. ``wanted`` is in lower
    case, names are compared after decoding. Raises MalformedRequest for too many fields.
    """
    values: Values = {}
    if not raw:
        return values, 0
    count = pair_count(raw)
    check_count(count)
    for name, _, value in form_pairs(raw):
        if name not in wanted:
            name = name.lower()
            if name not in wanted:
                continue
        values.setdefault(name, []).append((*decode(value, charset), value))
    return values, count
