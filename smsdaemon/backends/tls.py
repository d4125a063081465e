"""TLS to targets: the certificate has to be of the URL's host."""

from __future__ import annotations

from typing import Any

from service_identity.hazmat import DNS_ID
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.ssl import optionsForClientTLS

_ANY_NAME = "name.invalid"


def creator(host: str, trust_root: Any) -> Any:
    """What twisted.internet.endpoints.wrapClientTLS takes; ``host``: an address or ASCII name.

    Raises ValueError where no certificate could be of that host, such as an address written as one number.
    """
    if not (isIPAddress(host) or isIPv6Address(host)):
        DNS_ID(host)
    try:
        return optionsForClientTLS(host, trust_root)
    except UnicodeError:
        # Twisted has each name encoded for IDNA, which refuses underscores and A-labels of older rules. A
        # name of ASCII is encoded already, and service-identity, which compares it, has nothing against it.
        options: Any = optionsForClientTLS(_ANY_NAME, trust_root)
        options._hostname = options._hostnameASCII = host
        options._hostnameBytes = host.encode("ascii")
        return options
