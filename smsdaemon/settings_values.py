"""What can be set, its defaults and its bounds (contract 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from attrs import Attribute, field, fields, frozen

Workers = int | Literal["auto"]
LogFormat = Literal["text", "json"]
LogLevelName = Literal["debug", "info", "warn", "error", "critical"]

_ONE_YEAR = 365 * 86400
_MOST_BYTES = 64 * 1024 * 1024


@frozen
class Rule:
    """An attrs validator that can also tell beforehand what it lets pass."""

    allowed: str
    accepts: Callable[[Any], bool]
    secret: bool = False
    """The value must not be shown."""

    def __call__(self, _instance: object, _attribute: Attribute[Any] | None, value: object) -> None:
        if not self.accepts(value):
            raise ValueError("is not allowed" if self.secret else f"{_shown(value)} is not allowed")


def _shown(value: object) -> str:
    if isinstance(value, str):
        # A connection string in the wrong place must not show its password.
        return f'"{value}"' if len(value) <= 40 and not set(value) & set(":=@/") else "this text"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _whole(least: int, most: int) -> Any:
    return Rule(f"a whole number from {least} to {most}", lambda value: least <= value <= most)


def _in_time(seconds: float) -> bool:
    return math.isfinite(seconds) and 0 <= seconds <= _ONE_YEAR


def _one_of(names: object) -> Any:
    choices = get_args(names)
    *others, last = (f'"{name}"' for name in choices)
    return Rule(f"{', '.join(others)} or {last}", choices.__contains__)


def _plausible_dsn(dsn: str) -> bool:
    """libpq knows two forms, and the driver is the store's own; this only catches what is neither."""
    return not dsn.strip() or (
        "\0" not in dsn and (dsn.startswith(("postgresql://", "postgres://")) or "=" in dsn)
    )


def _none_of_blanks(dsn: str) -> str:
    # Otherwise not stripped: a blank at the end may be part of a password.
    return dsn if dsn.strip() else ""


def _is_base_url(url: str) -> bool:
    if not url:
        return True
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and not set(url) & set('?# "<>\\^`{|}@')
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0


_SECONDS = Rule(f"a number of seconds from 0 to {_ONE_YEAR}", _in_time)
_SOME_SECONDS = Rule(
    f"a number of seconds above 0, up to {_ONE_YEAR}", lambda value: _in_time(value) and value > 0
)
_SCHEDULE = Rule(
    f"a list of at least one number of seconds, each from 0 to {_ONE_YEAR}",
    lambda values: len(values) > 0 and all(map(_in_time, values)),
)
_LEASE = Rule(f"a number of seconds from 1 to {_ONE_YEAR}", lambda value: 1 <= value <= _ONE_YEAR)
_JOURNAL_AFTER = Rule(
    "a number of seconds from 0.01 to 4 (a peer hears 500 after 5)", lambda value: 0.01 <= value <= 4
)
_CONCATENATION_TIMEOUT = Rule(
    "a number of seconds from 1 to 604800 (a week)", lambda value: 1 <= value <= 604800
)
Seconds = Annotated[float, _SECONDS]

_ENDPOINTS = Rule(
    'a list of Twisted server endpoints, as in ["tcp:8080:interface=127.0.0.1"]',
    lambda values: len(values) > 0,
)
_FOLDER = Rule("the path of a folder", lambda _: True)
_PEM_FILE = Rule('the path of a PEM file; "" with both for a self-signed certificate', lambda _: True)
_PROFILES = Rule('the path of a folder with profiles (*.toml); "" for none', lambda _: True)
_PUBLIC_URL = Rule(
    'as in "https://sms.example.com", without query and fragment; "" for what requests say', _is_base_url
)
_FLAG = Rule("true or false", lambda _: True)
_WORKERS = Rule('a whole number from 1 to 256, or "auto"', lambda value: value == "auto" or 1 <= value <= 256)
_DSN = Rule('a libpq connection string or URI; "" for the embedded PostgreSQL', _plausible_dsn, secret=True)


@frozen(kw_only=True)
class Listener:
    """Where plain HTTP is spoken."""

    listen: tuple[str, ...] = field(validator=_ENDPOINTS)
    """Twisted server endpoint strings."""


@frozen(kw_only=True)
class TlsListener:
    """Where HTTPS is spoken; without a pair of files a self-signed one is made at first start."""

    listen: tuple[str, ...] = field(validator=_ENDPOINTS)
    """``tcp:`` endpoint strings; the TLS around them is ours."""
    certificate: Path | None = field(default=None, validator=_PEM_FILE)
    """PEM, the server's own certificate first, then its chain."""
    key: Path | None = field(default=None, validator=_PEM_FILE)


@frozen(kw_only=True)
class DatabaseSettings:
    """Which PostgreSQL, and how many connections to it."""

    dsn: str = field(default="", repr=False, validator=_DSN, converter=_none_of_blanks)
    """May hold a password; empty, as blanks become: the embedded PostgreSQL."""
    pool: int = field(default=4, validator=_whole(1, 1000))
    """Connections per worker."""
    allow_unsafe: bool = field(default=False, validator=_FLAG)
    """Start although a COMMIT is no promise: fsync or the like is off."""


@frozen(kw_only=True)
class ReceiverSettings:
    """Bounds of what a provider may send."""

    max_body_bytes: int = field(default=65536, validator=_whole(1024, _MOST_BYTES))
    max_url_bytes: int = field(default=16384, validator=_whole(1024, _MOST_BYTES))
    journal: bool = field(default=True, validator=_FLAG)
    """Accept while PostgreSQL is away."""
    journal_after: float = field(default=0.5, validator=_JOURNAL_AFTER)
    """Seconds without a commit until the journal is used."""
    public_url: str = field(default="", validator=_PUBLIC_URL)
    """Where providers call us, up to the host or a path before /SMSReceiver; empty: as the request says."""
    profiles: Path | None = field(default=None, validator=_PROFILES)
    """A folder with provider profiles besides those that are shipped."""
    concatenation_timeout: float = field(default=1800.0, validator=_CONCATENATION_TIMEOUT)
    """Seconds after its first part, when an SMS is delivered although parts are missing."""


@frozen(kw_only=True)
class RoutingSettings:
    """When attempts are made, repeated and given up; all times in seconds."""

    retry_schedule: tuple[Seconds, ...] = field(
        default=(0.0, 2.0, 10.0, 30.0, 120.0, 300.0, 900.0, 1800.0, 3600.0), validator=_SCHEDULE
    )
    """Seconds before attempt 1, 2, 3 …; the last repeats."""
    give_up_after: float = field(default=86400.0, validator=_SECONDS)
    timeout: float = field(default=10.0, validator=_SOME_SECONDS)
    concurrency: int = field(default=32, validator=_whole(1, 10000))
    lease: float = field(default=60.0, validator=_LEASE)
    """Prolonged by heartbeats while an attempt lasts."""
    breaker_failures: int = field(default=10, validator=_whole(1, 1_000_000))
    """Failures in a row that open a target's breaker."""
    breaker_probe: float = field(default=5.0, validator=_SOME_SECONDS)
    """Between probes of a target whose breaker is open."""


@frozen(kw_only=True)
class LogSettings:
    """How log events are written, and which."""

    format: LogFormat = field(default="text", validator=_one_of(LogFormat))
    level: LogLevelName = field(default="info", validator=_one_of(LogLevelName))
    message_text: bool = field(default=False, validator=_FLAG)


@frozen(kw_only=True)
class Settings:
    """Everything that can be set; a listener that is None is off. All paths are absolute."""

    state_dir: Path = field(validator=_FOLDER)
    workers: Workers = field(default=1, validator=_WORKERS)
    shutdown_seconds: float = field(default=20.0, validator=_SECONDS)
    http: Listener | None = None
    https: TlsListener | None = None
    admin: Listener | None = None
    database: DatabaseSettings = field(factory=DatabaseSettings)
    receiver: ReceiverSettings = field(factory=ReceiverSettings)
    routing: RoutingSettings = field(factory=RoutingSettings)
    log: LogSettings = field(factory=LogSettings)


TABLES: Mapping[str, type] = {
    "http": Listener,
    "https": TlsListener,
    "admin": Listener,
    "database": DatabaseSettings,
    "receiver": ReceiverSettings,
    "routing": RoutingSettings,
    "log": LogSettings,
}


def _rules(values: Any, table: str) -> dict[str, Rule]:
    return {table + key.name: key.validator for key in fields(values) if isinstance(key.validator, Rule)}


KEYS: Mapping[str, Rule] = _rules(Settings, "") | {
    key: rule for table, values in TABLES.items() for key, rule in _rules(values, f"{table}.").items()
}
"""What each key lets pass; the key of a table is written ``table.key``."""
