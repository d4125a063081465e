"""Binds the ports, all of them or none, and says under which URLs they are reached."""

from __future__ import annotations

import os
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.python.failure import Failure

from smsdaemon.errors import ConfigurationError

QUEUE = 1024


@frozen(kw_only=True)
class Opening:
    """One endpoint to listen on."""

    key: str
    """The settings' key that asks for it, as in ``http.listen``."""
    endpoint: str
    factory: IProtocolFactory
    scheme: str
    path: str


@frozen
class Listening:
    """Ports that are bound."""

    ports: Sequence[tuple[Opening, IListeningPort]]

    def urls(self) -> list[str]:
        """What a peer calls, one for each port."""
        return [_url(opening, port.getHost()) for opening, port in self.ports]

    def hosts(self, key: str) -> set[str]:
        """The addresses that the ports of one settings key are bound to."""
        return {
            str(getattr(port.getHost(), "host", "")) for opening, port in self.ports if opening.key == key
        }

    def close(self) -> Deferred[Any]:
        """Take no more connections; those that are open go on."""
        return gatherResults([maybeDeferred(port.stopListening) for _, port in self.ports])


def bind(openings: Sequence[Opening], reactor: object) -> Listening:
    """Bind every endpoint; raises ConfigurationError with a line for each that cannot be.

    Endpoints of servers bind at once, so this needs no running reactor and a port in use is found
    while the process can still refuse to start (DESIGN, F5).
    """
    ports: list[tuple[Opening, IListeningPort]] = []
    problems: list[str] = []

    def failed(failure: Failure, opening: Opening) -> None:
        cause = getattr(failure.value, "socketError", failure.value)
        why = getattr(cause, "strerror", None) or str(cause)
        problems.append(f'{opening.key}: cannot listen on "{opening.endpoint}": {why.lower()}')

    def bound(port: IListeningPort, opening: Opening) -> None:
        _lengthen_queue(port, opening.endpoint)
        ports.append((opening, port))

    for opening in openings:
        d = maybeDeferred(serverFromString(reactor, opening.endpoint).listen, opening.factory)
        d.addCallbacks(bound, failed, callbackArgs=(opening,), errbackArgs=(opening,))
    if problems:
        Listening(ports).close()
        raise ConfigurationError(problems)
    return Listening(ports)


def _lengthen_queue(port: Any, endpoint: str) -> None:
    """Unless the endpoint says how many connections may wait to be accepted; Twisted would have 50 wait.

    What is beyond that hears nothing, and tries again after a second or more.
    """
    if hasattr(port, "socket") and "backlog=" not in endpoint and not endpoint.startswith("systemd:"):
        port.socket.listen(QUEUE)


def _url(opening: Opening, host: Any) -> str:
    name = getattr(host, "host", None)
    if name is None:
        return f"{opening.scheme}+unix:{os.fsdecode(getattr(host, 'name', None) or b'')}{opening.path}"
    try:
        shown = f"[{name}]" if ip_address(name).version == 6 else name
    except ValueError:
        shown = name
    return f"{opening.scheme}://{shown}:{host.port}{opening.path}"
