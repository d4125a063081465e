"""Giving bytes to the kernel at once, where nothing waits in front of them."""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Connection


def send_now(transport: Any, data: bytes) -> None:
    """As ``transport.write(data)``, without waiting until epoll says that it can be written.

    That takes two more system calls and a turn of the reactor for something that nearly always goes
    into the socket's buffer. What does not, and how it failed, is left to the transport. TLS, and
    whatever else is no plain connection, writes as it always does.
    """
    if (
        isinstance(transport, Connection)
        and transport.connected
        and not (transport.disconnecting or transport._writeDisconnected)
        and not (transport.dataBuffer or transport._tempDataBuffer)
    ):
        sent = transport.writeSomeData(data)
        if isinstance(sent, int):
            if sent == len(data):
                return
            data = data[sent:]
    transport.write(data)
