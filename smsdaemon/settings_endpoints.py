"""Reads Twisted server endpoint strings without listening."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from attrs import define, frozen
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.protocol import Factory

# An argument of an endpoint string, in which a backslash makes the next character literal.
_ARGUMENT = r"((?:[^\\:=]|\\.)+)(?=:|$)"
_UNIX_PATHS = (
    re.compile(rf"^((?:haproxy:)?unix:){_ARGUMENT}"),
    re.compile(rf"^((?:haproxy:)?unix:(?:.*:)?)address={_ARGUMENT}"),
)


@frozen
class Socket:
    """Where an endpoint listens; a port of None is known to Twisted only."""

    kind: str
    """``tcp4``, ``tcp6``, ``unix``, or another of Twisted's."""
    address: str = ""
    """The interface, "" for all, or the path of a UNIX socket."""
    port: int | None = None

    def is_private(self) -> bool:
        """Whether nobody on another machine can connect."""
        if self.kind not in ("tcp4", "tcp6"):
            return self.kind == "unix"
        try:
            return self.address == "localhost" or ipaddress.ip_address(self.address).is_loopback
        except ValueError:
            return False

    def overlaps(self, other: Socket) -> bool:
        """Whether both cannot be listened on at once."""
        if self.kind != other.kind or self.port != other.port or self.port == 0:
            return False
        everywhere = {"", "0.0.0.0", "::"}
        if self.kind in ("tcp4", "tcp6") and everywhere & {self.address, other.address}:
            return True
        return self.address == other.address and self.kind in ("tcp4", "tcp6", "unix")


@define
class DryReactor:
    """Notes where an endpoint would listen, and listens nowhere."""

    socket: Socket | None = None

    def listenTCP(self, port: int, _factory: object, backlog: int = 50, interface: str = "") -> None:
        self.socket = Socket("tcp6" if ":" in interface else "tcp4", interface, port)

    def listenUNIX(self, address: str, _factory: object, **_options: object) -> None:
        self.socket = Socket("unix", address)


def socket_of(endpoint: str, *, serving: bool = True) -> Socket:
    """Where the endpoint string would listen. A ValueError says why Twisted cannot read it.

    ``serving``: systemd has passed its sockets to this process; only the daemon has them.
    """
    kind = endpoint.removeprefix("haproxy:").partition(":")[0].lower()
    reactor = DryReactor()
    try:
        parsed = serverFromString(reactor, endpoint)
    except TypeError:
        raise ValueError("has too few or unknown arguments") from None
    except LookupError as error:
        if kind == "systemd" and not serving:
            return Socket(kind)
        raise ValueError(f"names what is not there, {error}") from None
    if kind in ("tcp", "tcp6", "unix"):
        # Only these: others take hold of a descriptor as soon as they listen.
        parsed.listen(Factory())
    found = reactor.socket or Socket(kind)
    if found.port is not None and not 0 <= found.port <= 65535:
        raise ValueError(f"has port {found.port}, not one from 0 to 65535")
    return found


def absolute_endpoint(endpoint: str, folder: Path) -> str:
    """The endpoint with the path of a UNIX socket as seen from ``folder``."""
    for pattern in _UNIX_PATHS:
        found = pattern.search(endpoint)
        if found:
            path = folder / re.sub(r"\\(.)", r"\1", found[2])
            return f"{found[1]}address={quoteStringArgument(str(path))}{endpoint[found.end() :]}"
    return endpoint
