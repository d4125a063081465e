"""Profile files (docs/profiles.md): TOML text to a Profile, every problem of it reported at once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, tzinfo
from typing import Any, cast

from attrs import evolve, fields

from smsdaemon.domain.reading import GENERIC
from smsdaemon.domain.text import charset_label
from smsdaemon.errors import ConfigurationError
from smsdaemon.ports import Handshake, PreparedScheme, Scheme
from smsdaemon.providers import times
from smsdaemon.providers.any_scheme import AnyScheme
from smsdaemon.providers.handshakes import HANDSHAKES
from smsdaemon.providers.profile import (
    About,
    Authentication,
    BodyFormat,
    Fields,
    Inner,
    NotAnSms,
    PartRules,
    Profile,
    RequestRules,
    TextRule,
    TextRules,
    TimeRule,
    all_selectors,
)
from smsdaemon.providers.profile_checks import check_together
from smsdaemon.providers.profile_parts import alternatives, answer, answers, conditions
from smsdaemon.providers.profile_table import Problems, Table
from smsdaemon.providers.schemes import make_scheme
from smsdaemon.providers.selectors import Selector, path, selector
from smsdaemon.providers.text_rules import BINARY, GSM, GSM_PACKED, WRAPPINGS, is_charset

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_METHODS = ("GET", "POST", "PUT", "HEAD")
_TYPES: Mapping[str, tuple[str, ...]] = {
    "form": ("application/x-www-form-urlencoded", ""),
    "multipart": ("multipart/form-data",),
    "json": ("application/json",),
    "xml": ("application/xml", "text/xml"),
    "raw": (),
}
"""The Content-Types that each body format has without being asked."""


def parse(content: bytes, name: str, file: str) -> Profile:
    """Read a profile file; raises ConfigurationError with one line for each problem.

    ``name``: the file's name without its suffix, which the profile must have too. ``file``: how
    messages call it.
    """
    problems = Problems(file)
    table = Table(_toml(content, problems), "", problems)
    found = _profile(table, name, file)
    table.close()
    if not problems.lines:
        check_together(found, problems)
    if problems.lines:
        raise ConfigurationError(problems.lines)
    return evolve(found, wanted=_wanted(found))


def _toml(content: bytes, problems: Problems) -> dict[str, Any]:
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        problems.add("", f"is not UTF-8 at byte {error.start + 1}; allowed: a TOML file in UTF-8")
    except (ValueError, RecursionError) as error:
        text = str(error) if isinstance(error, tomllib.TOMLDecodeError) else type(error).__name__
        problems.add("", f"is not valid TOML: {text}; allowed: a profile as docs/profiles.md tells")
    raise ConfigurationError(problems.lines)


def _profile(table: Table, name: str, file: str) -> Profile:
    given = table.value("name", str, "")
    if given != name or not _NAME.fullmatch(name) or name == GENERIC:
        allowed = "the file's name without .toml, of small letters, digits and dashes inside"
        table.wrong("name", f'"{given}" is not allowed; allowed: {allowed} (here "{name}")')
    methods = table.strings("methods", ("POST",))
    if not methods or not set(methods) <= set(_METHODS):
        table.wrong("methods", f"allowed: a list of {', '.join(_METHODS)}")
    return Profile(
        name=name,
        origin=file,
        about=_about(table),
        replaces=table.value("replaces", bool, False),
        methods=methods,
        request=_request(table.table("request")),
        **_is_sms(table),
        not_sms=_not_sms(table),
        fields=_fields(table),
        text=_text(table.table("text")),
        parts=tuple(map(_parts, table.one_or_several("parts"))),
        time=_time(table.table("time")),
        authentication=_authentication(table, table.one_or_several("authentication")),
        handshake=_handshake(table.table("handshake")),
        answers=answers(table.table("answers")),
    )


def _about(table: Table) -> About:
    description = table.value("description", str, "")
    if not description.strip() or "\n" in description:
        table.wrong("description", "allowed: one line that says whose format this is")
    return About(
        description=description,
        setup=table.value("setup", str, ""),
        repeats=table.value("repeats", str, ""),
        quirks=table.strings("quirks"),
        sources=table.strings("sources"),
    )


def _request(table: Table | None) -> RequestRules:
    if table is None:
        return RequestRules(formats=dict.fromkeys(_TYPES["form"], "form"))
    found = RequestRules(
        formats=_formats(table),
        separator=table.choice("separator", ("&", ";"), "&").encode(),
        charset=table.made("charset", _charset_of_requests, None),
        charset_from=table.made("charset_from", selector, None),
        last_value=table.choice("repeated", ("first", "last"), "first") == "last",
        batch=table.made("batch", lambda text: () if text == "$" else path(text), None),
        inner=_inner(table.table("document")),
        strip_prefixes=table.strings("strip_prefixes"),
    )
    table.close()
    return found


def _formats(table: Table) -> Mapping[str, BodyFormat]:
    body = table.strings("body", ("form",))
    if not set(body) <= _TYPES.keys():
        table.wrong("body", f"allowed: a list of {', '.join(_TYPES)}")
        return {}
    types = {kind: cast(BodyFormat, name) for name in body for kind in _TYPES[name]}
    also = table.table("content_types")
    if also is not None:
        for kind in also.names():
            types[kind.lower()] = also.choice(kind, tuple(_TYPES), "form")
    # A profile that reads one format only reads a body without a type as that.
    if len(body) == 1:
        types.setdefault("", cast(BodyFormat, body[0]))
    return types


def _charset_of_requests(text: str) -> str:
    if charset_label(text) is None:
        only = ", which texts can have ([[text.rules]])" if is_charset(text) else ""
        raise ValueError(f'"{text}" is not known{only}; allowed: as in "iso-8859-1" or "utf-16be"')
    return text


def _charset_of_texts(text: str) -> str:
    if not is_charset(text):
        raise ValueError(
            f'"{text}" is not known; allowed: charsets as in "iso-8859-1" or "utf-16be",'
            f' "{GSM}", "{GSM_PACKED}" and "{BINARY}"'
        )
    return text


def _inner(table: Table | None) -> Inner | None:
    if table is None:
        return None
    field = table.made("field", selector, None)
    found = table.choice("format", ("json", "xml", "form"), "json")
    if field is None:
        table.wrong("field", "is missing; allowed: where the document stands")
    table.close()
    return None if field is None else Inner(field=field, format=found)


def _is_sms(table: Table) -> dict[str, Any]:
    inner = table.table("is_sms")
    if inner is None:
        return {}
    found = {
        "is_sms": conditions(inner, "when"),
        "otherwise": inner.value("otherwise", str, "something else"),
    }
    inner.close()
    return found


def _not_sms(table: Table) -> tuple[NotAnSms, ...]:
    found = []
    for entry in table.tables("not_sms"):
        name = entry.value("name", str, "")
        if not re.fullmatch(r"[a-z][a-z ]{0,39}", name):
            entry.wrong("name", 'allowed: small letters and blanks, as in "status report"')
        found.append(
            NotAnSms(
                name=name,
                when=conditions(entry, "when"),
                answer=answer(entry.table("answer"), 200, 299),
            )
        )
        if not found[-1].when:
            entry.wrong("when", "is missing; allowed: at least one condition")
        entry.close()
    return tuple(found)


def _fields(table: Table) -> Fields:
    inner = table.table("fields")
    if inner is None:
        table.wrong("fields", "is missing; allowed: the table with at least sender and text")
        return Fields()
    found = Fields(**{a.name: alternatives(inner, a.name) for a in fields(Fields)})
    if not found.sender and not isinstance(inner.raw("sender"), str | list | dict):
        inner.wrong("sender", "is missing; allowed: where the sender's number stands")
    for name in ("sender", "text", "message_id", "keyword", "token"):
        if any(a.selector and a.selector.several for a in getattr(found, name)):
            inner.wrong(name, "must not have [*]; allowed: only receiver can")
    inner.close()
    return found


def _text(table: Table | None) -> TextRules:
    if table is None:
        return TextRules()
    rules = []
    for entry in table.tables("rules"):
        rules.append(
            TextRule(
                when=conditions(entry, "when"),
                alternatives=alternatives(entry, "field") if entry.has("field") else None,
                wrapping=entry.choice("written", WRAPPINGS, "text"),
                charset=entry.made("charset", _charset_of_texts, None),
                charset_from=entry.made("charset_from", selector, None),
            )
        )
        entry.close(also=("field",))
    found = TextRules(
        rules=tuple(rules),
        may_be_missing=table.value("may_be_missing", bool, False),
        may_be_empty=table.value("may_be_empty", bool, True),
    )
    table.close()
    return found


def _parts(table: Table) -> PartRules:
    found = PartRules(
        when=conditions(table, "when"),
        reference=alternatives(table, "reference"),
        number=alternatives(table, "number"),
        total=alternatives(table, "total"),
        udh=alternatives(table, "udh"),
        udh_format=table.choice("udh_format", ("hex", "bytes", "base64"), "hex"),
        count=alternatives(table, "count"),
        refuse_invalid=table.choice("invalid", ("ignored", "refused"), "ignored") == "refused",
    )
    three = [found.reference, found.number, found.total]
    if any(three) and not all(three):
        table.wrong("", "reference, number and total belong together; allowed: all of them or none")
    table.close()
    return found


def _time(table: Table | None) -> TimeRule | None:
    if table is None:
        return None
    formats = table.strings("formats", ("iso",))
    for wanted in formats:
        if not times.is_format(wanted):
            named = ", ".join(f'"{name}"' for name in times.NAMED_FORMATS)
            table.wrong("formats", f'"{wanted}" is not allowed; allowed: {named} or as of strptime')
    utc: tzinfo = UTC
    found = TimeRule(
        found=alternatives(table, "field"), formats=formats, zone=table.made("zone", times.zone, utc)
    )
    table.close()
    return found


def _authentication(table: Table, entries: Sequence[Table]) -> Authentication | None:
    required = [entry.value("required", bool, True) for entry in entries]
    schemes = [scheme for entry in entries if (scheme := _scheme(entry)) is not None]
    if not schemes:
        return None
    if len(schemes) == 1:
        return Authentication(scheme=schemes[0], required=all(required))
    if any(isinstance(scheme, PreparedScheme) for scheme in schemes):
        table.wrong("authentication", "allowed beside another scheme: one that needs no network")
    return Authentication(scheme=AnyScheme(schemes=tuple(schemes)), required=all(required))


def _scheme(table: Table) -> Scheme | None:
    try:
        return make_scheme(table.value("scheme", str, ""), _given(table))
    except (TypeError, ValueError) as error:
        table.wrong("", str(error))
        return None


def _handshake(table: Table | None) -> Handshake | None:
    if table is None:
        return None
    name = table.value("name", str, "")
    kind: Any = HANDSHAKES.get(name)
    if kind is None:
        table.wrong("name", f'"{name}" is not known; allowed: {", ".join(sorted(HANDSHAKES))}')
        return None
    given = _given(table)
    known = [a.name for a in fields(kind) if a.init]
    for key in given:
        if key not in known:
            table.wrong(key, f"unknown key; allowed: {', '.join(['name', *known])}")
    try:
        return None if set(given) - set(known) else cast(Handshake, kind(**given))
    except (TypeError, ValueError) as error:
        table.wrong("", f"the handshake {name} cannot be used like this: {error.args[0]}")
        return None


def _given(table: Table) -> dict[str, Any]:
    """Everything that was not asked for yet: the parameters of code."""
    given = {key: table.raw(key) for key in table.unasked()}
    return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}


# --- all together -----------------------------------------------------------------------------


def _wanted(profile: Profile) -> frozenset[bytes]:
    selectors: set[Selector] = all_selectors(profile)
    names = {s.wire for s in selectors if s.place in ("entry", "query", "request") and s.wire}
    return frozenset(names | {b"receiver", b"token"})
