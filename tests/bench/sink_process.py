"""A backend that answers 200 to everything, as cheaply as Python can, and remembers when.

Run as ``python -m tests.bench.sink_process [PORT]``: prints its port, then serves until stdin is closed.
``GET /count`` tells how many different SMS came; ``GET /times`` tells ``id seconds`` of each, on the
clock of time.monotonic(), which all processes of a machine share. ``GET /forget`` begins anew;
``GET /delay/MILLISECONDS`` makes it take so long for each answer from then on.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time

_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
_ID = re.compile(rb'"data":\s*\{"id":\s*"([0-9a-f-]{36})"')
_TAKEN = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Taken:
    """What came so far, and how long an answer takes now, in seconds."""

    def __init__(self) -> None:
        self.times: dict[bytes, float] = {}
        self.delay = 0.0


class Sink(asyncio.Protocol):
    """One connection; requests come one after the other."""

    def __init__(self, taken: Taken) -> None:
        self._taken_so_far = taken
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while (head := self._unread.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._unread, 0, head)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(self._unread) < end:
                return
            request, self._unread = self._unread[:end], self._unread[end:]
            if request.startswith(b"GET "):
                self._transport.write(self._asked(request))
            elif self._taken_so_far.delay:
                loop = asyncio.get_running_loop()
                loop.call_later(self._taken_so_far.delay, self._transport.write, self._taken(request))
            else:
                self._transport.write(self._taken(request))

    def _taken(self, request: bytes) -> bytes:
        found = _ID.search(request)
        if found is None:
            return b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
        self._taken_so_far.times.setdefault(found[1], time.monotonic())
        return _TAKEN

    def _asked(self, request: bytes) -> bytes:
        taken, path = self._taken_so_far, request.split(b" ", 2)[1]
        body = b""
        if path == b"/count":
            body = b"%d\n" % len(taken.times)
        elif path == b"/times":
            body = b"".join(b"%s %.6f\n" % entry for entry in taken.times.items())
        elif path == b"/forget":
            taken.times.clear()
        elif path.startswith(b"/delay/"):
            taken.delay = float(path.removeprefix(b"/delay/")) / 1000
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)


async def main(port: int = 0) -> None:
    taken = Taken()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Sink(taken), "127.0.0.1", port, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    async with server:
        await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
