"""Which hosts can be called."""

from __future__ import annotations

import re
from ipaddress import IPv6Address

MAX_NAME = 253
HOST_RULE = (
    "an address, or labels of 1 to 63 letters, digits, - and _ with dots between them, none with - at an "
    f"end, {MAX_NAME} characters at most"
)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.IGNORECASE | re.ASCII)


def is_host(text: str) -> bool:
    """Whether it is an address, or can be a name in the DNS or in /etc/hosts.

    With underscores: containers and services are called so (``acd_backend``), and resolvers take them.
    """
    if ":" in text:
        return _is_ipv6(text)
    name = text.removesuffix(".")
    return len(name) <= MAX_NAME and all(map(_LABEL.fullmatch, name.split(".")))


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text.partition("%")[0])
    except ValueError:
        return False
    return True
