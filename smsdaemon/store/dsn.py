"""What is added to the operator's DSN: what we rely on, and the addresses of hosts that it names.

A DSN is a mapping here, as libpq's own parser gives it: host, port … each with its text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

Given = Mapping[str, str]


def completed(given: Given, *, statement_timeout: float, name: str) -> dict[str, Any]:
    """With time-outs on the server and the socket, UTF-8, UTC.

    What the operator wrote wins, except for the session's own settings.
    """
    session = (
        f"-c statement_timeout={int(statement_timeout * 1000)} -c TimeZone=UTC -c DateStyle=ISO"
        " -c idle_in_transaction_session_timeout=60000 -c plan_cache_mode=force_generic_plan -c jit=off"
        " -c enable_seqscan=off"
    )
    ours: dict[str, Any] = {
        "application_name": name,
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 10000,
        "connect_timeout": 10,
    }
    if "," in given.get("host", ""):
        ours["target_session_attrs"] = "read-write"
    merged = {**ours, **given, "client_encoding": "UTF8"}
    merged["options"] = f"{given.get('options', '')} {session}".strip()
    return merged


# --- hosts and their addresses ----------------------------------------------------------------


def names_in(given: Given, environment: Given) -> list[str]:
    """The hosts whose addresses libpq would look up, each once.

    None where addresses are given, or where a service file says what only libpq reads.
    """
    return list(dict.fromkeys(host for host in _hosts(given, environment) if _is_name(host)))


def with_addresses(
    given: Given, environment: Given, found: Mapping[str, Sequence[str]]
) -> dict[str, str] | None:
    """With ``hostaddr`` beside ``host``, so that libpq has nothing to look up; None: no host is left.

    A host with several addresses comes once for each, since the lists must be of one length; ``host``
    stays what TLS and .pgpass go by. A name that was not found is left out.
    """
    hosts = _hosts(given, environment)
    ports = given.get("port", environment.get("PGPORT", "")).split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        return dict(given)  # libpq refuses it before it looks anything up
    ways = [
        (host, address, port)
        for host, port in zip(hosts, ports, strict=True)
        for address in (found.get(host, ()) if _is_name(host) else ("",))
    ]
    if not ways:
        return None
    lists = [",".join(column) for column in zip(*ways, strict=True)]
    return {**given, **dict(zip(("host", "hostaddr", "port"), lists, strict=True))}


def _hosts(given: Given, environment: Given) -> list[str]:
    if "service" in given or "PGSERVICE" in environment:
        return []
    if given.get("hostaddr", environment.get("PGHOSTADDR", "")):
        return []
    return given.get("host", environment.get("PGHOST", "")).split(",")


def _is_name(host: str) -> bool:
    if not host or host.startswith(("/", "@")):  # the default, or a Unix socket
        return False
    try:
        ip_address(host)
    except ValueError:
        return True
    return False
