"""JSON whose members a signature covers one by one."""

from __future__ import annotations

import json
from typing import NoReturn

from smsdaemon.errors import SignatureRefused


class Ambiguous(ValueError):
    """A member comes twice: a signature covers one of them, and who reads it may take the other."""


def signed_object(raw: bytes) -> dict[str, object]:
    """A JSON object in UTF-8, whose numbers stay the text they were written in.

    Raises SignatureRefused for anything else, and where a name comes twice in one object.
    """
    try:
        found = json.loads(
            raw.decode("utf-8"),
            parse_int=str,
            parse_float=str,
            parse_constant=_refuse,
            object_pairs_hook=_members,
        )
    except Ambiguous as error:
        raise SignatureRefused("a member of the JSON object comes twice") from error
    except (ValueError, RecursionError) as error:
        raise SignatureRefused("the body is not valid JSON") from error
    if not isinstance(found, dict):
        raise SignatureRefused("the body is no JSON object")
    return found


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Ambiguous
    return members


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
