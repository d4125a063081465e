"""Where a command on the same machine reaches the daemon's listeners."""

from __future__ import annotations

from collections.abc import Iterator

from smsdaemon.settings import Listener, TlsListener
from smsdaemon.settings_endpoints import socket_of

_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "[::1]"}


def authorities(listener: Listener | TlsListener | None) -> Iterator[str]:
    """``host:port`` of each endpoint whose port the settings tell."""
    for endpoint in listener.listen if listener is not None else ():
        socket = socket_of(endpoint, serving=False)
        if socket.port and socket.kind in ("tcp4", "tcp6"):
            host = f"[{socket.address}]" if ":" in socket.address else socket.address
            yield f"{_LOOPBACK.get(socket.address, host)}:{socket.port}"
