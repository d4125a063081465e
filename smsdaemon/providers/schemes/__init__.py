"""How providers sign their requests: one module each, and nothing else to edit to add one.

A scheme is a frozen attrs class (smsdaemon.ports.Scheme). Its attributes are the keys that a profile's
``[authentication]`` may hold beside ``scheme``; those that a constructor does not take are its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from attrs import fields, has

from smsdaemon.ports import Scheme


def _found() -> dict[str, type[Scheme]]:
    schemes: dict[str, type[Scheme]] = {}
    for module in iter_modules(__path__, f"{__name__}."):
        for _, found in inspect.getmembers(import_module(module.name), inspect.isclass):
            if found.__module__ == module.name and hasattr(found, "name") and has(found):
                kind: Any = found
                schemes[kind.name] = kind
    return schemes


SCHEMES: dict[str, type[Scheme]] = _found()
"""By the name that profiles use."""


def parameters(scheme: type[Scheme]) -> dict[str, Any]:
    """What a profile may set, with the defaults."""
    known: Any = fields(scheme)  # type: ignore[arg-type]
    return {attribute.name: attribute.default for attribute in known if attribute.init}


def make_scheme(name: str, given: Mapping[str, object]) -> Scheme:
    """The scheme with these parameters. Raises ValueError, whose text is a line for whoever wrote them."""
    kind = SCHEMES.get(name)
    if kind is None:
        raise ValueError(f"there is no scheme {name}; there are: {', '.join(sorted(SCHEMES))}")
    known = parameters(kind)
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"scheme {name} knows no {unknown[0]}; it knows: {', '.join(known) or 'nothing'}")
    for key, value in given.items():
        try:
            kind(**{key: value})
        except (ValueError, TypeError) as error:
            raise ValueError(f"{key} of scheme {name}: {_reason(error)}") from error
    return kind(**given)


def _reason(error: Exception) -> str:
    # attrs gives the attribute and the value as further arguments.
    return str(error.args[0]).splitlines()[0] if error.args else type(error).__name__
