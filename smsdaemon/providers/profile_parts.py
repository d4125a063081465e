"""The parts that come again and again in a profile file: alternatives, conditions, answers."""

from __future__ import annotations

from typing import Any

from smsdaemon.providers.profile import Alternative, Alternatives, AnswerRule, Answers, Condition
from smsdaemon.providers.profile_table import Table
from smsdaemon.providers.selectors import is_header_name, selector
from smsdaemon.providers.templates import header_template, template

_ALLOWED = 'a selector, { path = "…", when = { … } }, { constant = "…" }, or a list of these'
_STATUSES = (400, 401, 404, 405, 413, 415, 500, 502)


def alternatives(table: Table, key: str) -> Alternatives:
    """Where a field may be found, in order; () where nothing is said."""
    found = table.raw(key)
    if found is None:
        return ()
    entries = found if isinstance(found, list) else [found]
    made = [
        _alternative(table, f"{key}[{n}]" if isinstance(found, list) else key, entry)
        for n, entry in enumerate(entries)
    ]
    return tuple(one for one in made if one is not None)


def _alternative(table: Table, key: str, entry: Any) -> Alternative | None:
    if isinstance(entry, str):
        try:
            return Alternative(selector=selector(entry))
        except ValueError as error:
            table.wrong(key, str(error))
            return None
    if not isinstance(entry, dict):
        table.wrong(key, f"is neither string nor table; allowed: {_ALLOWED}")
        return None
    inner = table.sub(entry, key)
    path, constant = inner.made("path", selector, None), inner.raw("constant")
    when = conditions(inner, "when")
    inner.close()
    if (path is None) == (constant is None) and not ("path" in entry and constant is None):
        table.wrong(key, "allowed: either path or constant")
    if constant is not None and not isinstance(constant, str):
        table.wrong(f"{key}.constant", "allowed: a string")
        return None
    return Alternative(selector=path, constant=constant, when=when)


def conditions(table: Table, key: str) -> tuple[Condition, ...]:
    """All of which must hold."""
    inner = table.table(key)
    if inner is None:
        return ()
    found: list[Condition] = []
    for name in inner.names():
        value = inner.raw(name)
        texts = value if isinstance(value, list) else [value]
        try:
            where = selector(name)
        except ValueError as error:
            inner.wrong(name, str(error))
            continue
        if isinstance(value, bool):
            found.append((where, value))
        elif texts and all(isinstance(text, str) for text in texts):
            found.append((where, frozenset(texts)))
        else:
            inner.wrong(name, "allowed: a string, a list of strings, true (is there) or false (is not)")
    return tuple(found)


def answers(table: Table | None) -> Answers:
    if table is None:
        return Answers()
    by_status = {}
    for key in table.names():
        if key.isdigit():
            status = int(key)
            # What could not be stored must be repeated, whatever else a provider would rather hear.
            least = 500 if status >= 500 else 400
            rule = answer(table.table(key), least, 599)
            if status not in _STATUSES:
                table.wrong(key, f"is no status of ours; allowed: {', '.join(map(str, _STATUSES))}")
            elif rule is not None:
                by_status[status] = rule
    found = Answers(
        success=answer(table.table("success"), 200, 299) or AnswerRule(status=200),
        duplicate=answer(table.table("duplicate"), 200, 299),
        not_an_sms=answer(table.table("not_an_sms"), 200, 299),
        errors=answer(table.table("errors"), 400, 599),
        by_status=by_status,
    )
    if found.errors is not None and found.errors.status is not None:
        table.wrong(
            "errors.status", "is not allowed here; allowed: in a table of one status, as [answers.401]"
        )
    table.close()
    return found


def answer(table: Table | None, least: int, most: int) -> AnswerRule | None:
    if table is None:
        return None
    status = table.value("status", int, 0)
    if table.has("status") and not least <= status <= most:
        table.wrong("status", f"allowed: {least} to {most}")
    kind = table.value("content_type", str, AnswerRule().content_type)
    if not kind.isascii() or not kind.isprintable():
        table.wrong("content_type", "allowed: a content type")
    headers = table.table("headers")
    for name in [] if headers is None else headers.names():
        if not is_header_name(name):
            table.wrong("headers", f'"{name}" is no name of a header; allowed: as in "X-Message-Id"')
    rule = AnswerRule(
        status=status if table.has("status") else (200 if least == 200 else None),
        content_type=kind,
        body=table.made("body", lambda text: template(text, kind), None),
        headers=()
        if headers is None
        else tuple(
            (name, headers.made(name, header_template, header_template(""))) for name in headers.names()
        ),
    )
    table.close()
    return rule
