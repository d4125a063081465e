"""Makes typed settings of what was given, strictly, and gathers every problem on the way."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_origin

import attrs
from cattrs import BaseValidationError, ClassValidationError, Converter, ForbiddenExtraKeysError
from cattrs.errors import AttributeValidationNote, IterableValidationError
from cattrs.gen import make_dict_structure_fn, override

from smsdaemon.settings_endpoints import absolute_endpoint
from smsdaemon.settings_file import Given, Tree, absolute
from smsdaemon.settings_values import KEYS, TABLES, Rule, Settings, Workers

_KINDS: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "a table",
}


def structure(tree: Tree) -> tuple[Settings | None, Mapping[str, Any], list[str]]:
    """The settings if all is well, each key's value that is sound by itself, and the problems."""
    sound: dict[str, Any] = {}
    for table in tree.names() - {"state_dir"}:
        sound.update(
            (f"{table}.{key.name}", key.default)
            for key in attrs.fields(TABLES[table])
            if key.default is not attrs.NOTHING
        )
    converter = _converter(sound)
    try:
        return converter.structure(tree.entries, Settings), sound, []
    except BaseValidationError as error:
        return None, sound, [tree.problem(key, text) for key, text in _problems(error, "")]


# --- values ------------------------------------------------------------------------------------


def _converter(sound: dict[str, Any]) -> Converter:
    """Structures Settings from a tree's entries; puts into ``sound`` what is in order."""
    converter = Converter(detailed_validation=True, forbid_extra_keys=True)
    for wanted in (bool, int, float, str):
        converter.register_structure_hook(wanted, _exactly)
    converter.register_structure_hook_func(_is_ruled, partial(_by_rule, converter))
    converter.register_structure_hook_func(_is_list, partial(_each, converter))
    converter.register_structure_hook(
        Workers, lambda value, _: value if value == "auto" else _exactly(value, int)
    )
    converter.register_structure_hook_func(_is_choice, lambda value, _: _exactly(value, str))
    # Settings last: cattrs looks the tables' hooks up when it makes the one around them.
    for values in (*TABLES.values(), Settings):
        converter.register_structure_hook(values, _table_hook(converter, values, sound))
    return converter


def _is_choice(wanted: object) -> bool:
    return get_origin(wanted) is Literal


def _is_list(wanted: object) -> bool:
    return get_origin(wanted) is tuple


def _is_ruled(wanted: object) -> bool:
    return get_origin(wanted) is Annotated


def _by_rule(converter: Converter, value: object, wanted: Any) -> Any:
    """One of several values, by the rule in its annotation."""
    kind, rule = get_args(wanted)
    structured = converter.structure(value, kind)
    rule(None, None, structured)
    return structured


def _exactly(value: object, wanted: Any) -> Any:
    """The value if it is of this type; only a whole number may stand for one with a fraction."""
    if type(value) is wanted:
        return value
    if wanted is float and type(value) is int:
        # An integer of TOML has no bound; a float has, and the rules refuse infinity.
        return float(value) if abs(value) < 10**300 else float("inf")
    raise ValueError(f"is {_kind(value)}, not {_KINDS[wanted]}")


def _kind(value: object) -> str:
    return _KINDS.get(type(value), "a date or time")


def _each(converter: Converter, value: object, wanted: Any) -> Any:
    if not isinstance(value, list):
        raise ValueError(f"is {_kind(value)}, not a list")
    elements: Any = list[get_args(wanted)[0]]  # type: ignore[misc]
    return tuple(converter.structure(value, elements))


def _table_hook(converter: Converter, values: Any, sound: dict[str, Any]) -> Callable[[object, Any], Any]:
    attrs.resolve_types(values)
    hooks: dict[str, Any] = {
        key.name: override(struct_hook=partial(_value, converter, key, sound))
        for key in attrs.fields(values)
        if isinstance(key.validator, Rule)
    }
    structured = make_dict_structure_fn(
        values, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True, **hooks
    )

    def table(entries: object, wanted: Any) -> Any:
        if isinstance(entries, Given):
            raise ValueError(f"is {_kind(entries.value)}, not a table; allowed: [{entries.key}]")
        return structured(entries, wanted)  # type: ignore[arg-type]

    return table


def _value(
    converter: Converter, key: attrs.Attribute[Any], sound: dict[str, Any], given: object, _type: object
) -> Any:
    """What was given, as the type that the key wants, by the key's own rule."""
    if not isinstance(given, Given):
        raise ValueError("is a table, not a value")
    sound.pop(given.key, None)
    raw = _parsed(given, key.type) if given.from_environment else given.value
    if key.type in (Path, Path | None):
        value: Any = _path(given, _exactly(raw, str), key.type)
    elif key.name == "listen":
        value = _endpoints(converter, raw, given, sound)
    else:
        value = converter.structure(raw, key.type)  # type: ignore[arg-type]
    key.validator(None, key, value)  # type: ignore[misc]
    sound[given.key] = value
    return value


def _endpoints(converter: Converter, raw: object, given: Given, sound: dict[str, Any]) -> tuple[str, ...]:
    """Endpoint strings; those among others that are none are looked into further, too."""
    texts = [text for text in raw if isinstance(text, str)] if isinstance(raw, list) else []
    sound[given.key] = tuple(absolute_endpoint(text, given.folder) for text in texts)
    converter.structure(raw, tuple[str, ...])
    return cast("tuple[str, ...]", sound[given.key])


def _parsed(given: Given, wanted: object) -> object:
    """A variable's text: itself where text is wanted, else read as a value of TOML."""
    text = str(given.value)
    if wanted in (str, Path, Path | None) or _is_choice(wanted) or (wanted == Workers and text == "auto"):
        return text
    try:
        values = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        values = {}
    if values.keys() != {"value"}:
        raise ValueError("is not a value as TOML writes it")
    return values["value"]


def _path(given: Given, text: str, wanted: object) -> Path | None:
    if not text and type(None) in get_args(wanted):
        return None
    if not text or "\0" in text:
        raise ValueError("is not a path")
    return absolute(given, text)


# --- problems ----------------------------------------------------------------------------------


def _problems(error: Exception, path: str) -> Iterator[tuple[str, str]]:
    """Key and text of everything that went wrong below ``path``."""
    if isinstance(error, ClassValidationError | IterableValidationError):
        noted, others = error.group_exceptions()
        for inner, note in noted:
            if isinstance(note, AttributeValidationNote):
                yield from _problems(inner, f"{path}.{note.name}" if path else note.name)
            else:
                yield from _problems(inner, f"{path}[{note.index}]")
        for inner in others:
            yield from _problems(inner, path)
    elif isinstance(error, ForbiddenExtraKeysError):
        known = ", ".join(sorted(key.name for key in attrs.fields(error.cl)))
        for name in sorted(error.extra_fields):
            yield f"{path}.{name}" if path else name, f"unknown key; allowed: {known}"
    elif isinstance(error, KeyError):
        yield path, f"is missing{_allowed(path)}"
    else:
        yield path, f"{error}{_allowed(path)}"


def _allowed(path: str) -> str:
    rule = KEYS.get(re.sub(r"\[\d+\]$", "", path))
    return f"; allowed: {rule.allowed}" if rule else ""
