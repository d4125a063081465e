"""How providers make sure that a URL is meant to hear from them: one module each, as for schemes.

A handshake is a frozen attrs class (smsdaemon.ports.Handshake); its attributes are the keys that a
profile's ``[handshake]`` may hold.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from attrs import has

from smsdaemon.ports import Handshake


def _found() -> dict[str, type[Handshake]]:
    handshakes: dict[str, type[Handshake]] = {}
    for module in iter_modules(__path__, f"{__name__}."):
        for _, found in inspect.getmembers(import_module(module.name), inspect.isclass):
            if found.__module__ == module.name and hasattr(found, "name") and has(found):
                kind: Any = found
                handshakes[kind.name] = kind
    return handshakes


HANDSHAKES: dict[str, type[Handshake]] = _found()
"""By the name that profiles use."""
