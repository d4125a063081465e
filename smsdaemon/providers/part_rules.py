"""Which part of a concatenated SMS a request brings, as its profile tells."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable

from smsdaemon.domain.model import Part
from smsdaemon.errors import MalformedRequest
from smsdaemon.providers.fields import Value
from smsdaemon.providers.profile import PartRules
from smsdaemon.providers.scope import Scope
from smsdaemon.providers.udh import checked_part, part_of

_MAX_UDH = 256
_MAX_COUNT = 255


def part_and_count(all_rules: tuple[PartRules, ...], scope: Scope) -> tuple[Part | None, int]:
    """The part, if it is one, and how many the provider has joined itself.

    By the first rules whose conditions hold. Raises MalformedRequest for what cannot be, where the
    profile wants that refused; otherwise the SMS is taken as if nothing had been said of parts.
    """
    rules = next((rules for rules in all_rules if scope.all_hold(rules.when)), None)
    if rules is None:
        return None, 1
    try:
        part = _part(rules, scope)
    except ValueError as error:
        if rules.refuse_invalid:
            raise MalformedRequest(f"the parts cannot be understood: {error}") from error
        part = None
    return part, _count(rules, scope)


def _part(rules: PartRules, scope: Scope) -> Part | None:
    reference = scope.first_not_blank(rules.reference)
    if reference is not None:
        number, total = scope.first_not_blank(rules.number), scope.first_not_blank(rules.total)
        if number is not None and total is not None:
            return checked_part(reference.strip(), _whole(number), _whole(total))
    header = scope.first_not_empty(rules.udh)
    if header is None or not header[0].strip():
        return None
    return part_of(_BYTES[rules.udh_format](header))


def _whole(text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 4:
        raise ValueError("numbers of parts must be small whole numbers")
    return int(text)


def _count(rules: PartRules, scope: Scope) -> int:
    text = (scope.first_not_blank(rules.count) or "").strip() if rules.count else ""
    # isdecimal() would take other alphabets' digits.
    if not (text.isascii() and text.isdigit()) or len(text) > 4:
        return 1
    return min(max(int(text), 1), _MAX_COUNT)


def _short(text: str) -> str:
    if len(text) > 2 * _MAX_UDH:
        raise ValueError("the UDH is too long")
    return text


def _from_hex(header: Value) -> bytes:
    return bytes.fromhex(_short(header[0]))


def _from_base64(header: Value) -> bytes:
    return b64decode(_short(header[0]), validate=True)


def _from_bytes(header: Value) -> bytes:
    raw = header[2] if header[2] is not None else header[0].encode("latin-1")
    if len(raw) > _MAX_UDH:
        raise ValueError("the UDH is too long")
    return raw


_BYTES: dict[str, Callable[[Value], bytes]] = {
    "hex": _from_hex,
    "base64": _from_base64,
    "bytes": _from_bytes,
}
