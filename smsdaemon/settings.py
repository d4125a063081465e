"""Settings, typed and checked as a whole, from a TOML file and the environment (contract 2)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from smsdaemon import settings_checks, settings_file, settings_structure
from smsdaemon.errors import ConfigurationError
from smsdaemon.settings_values import (
    DatabaseSettings,
    Listener,
    LogSettings,
    ReceiverSettings,
    RoutingSettings,
    Settings,
    TlsListener,
)

__all__ = [
    "DatabaseSettings",
    "Listener",
    "LogSettings",
    "ReceiverSettings",
    "RoutingSettings",
    "Settings",
    "TlsListener",
    "current_folder",
    "load",
]


def current_folder() -> Path:
    """Raises ConfigurationError: it may have been removed."""
    try:
        return Path.cwd()
    except OSError as error:
        raise ConfigurationError([f"the current folder cannot be used: {error.strerror}"]) from None


def load(path: Path | None, environ: Mapping[str, str], cwd: Path, *, serving: bool = True) -> Settings:
    """The settings of the file, or without one the built-in defaults, under those of the environment.

    ``path``: None for ``$SMSDAEMON_CONFIG``. ``serving``: False leaves out what only a daemon must
    be able to do: read its certificate and key, write its state folder.
    Raises ConfigurationError with one line for every problem of the file and the environment.
    """
    tree, problems = settings_file.read(path, environ, cwd)
    settings, sound, wrong = settings_structure.structure(tree)
    problems += wrong
    if tree.complete:
        found = settings_checks.problems(sound, tree.names(), serving, datetime.now(UTC))
        problems += [tree.problem(key, text) for key, text in found]
    if problems or settings is None:
        raise ConfigurationError(list(dict.fromkeys(problems)))
    return settings
