"""The first lines of answers: status, date, headers."""

from __future__ import annotations

import time
from email.utils import formatdate

from twisted.web.http import RESPONSES

from smsdaemon.web.answers import Answer


def head_lines(answer: Answer, date_line: bytes, *, closes: bool) -> bytes:
    """Status line and headers, up to and with the empty line."""
    lines = [
        b"HTTP/1.1 %d %s\r\n" % (answer.status, RESPONSES.get(answer.status, b"")),
        date_line,
        b"Content-Type: %s\r\nContent-Length: %d\r\n" % (answer.content_type, len(answer.body)),
        b"Cache-Control: no-store\r\n",
    ]
    lines += [b"%s: %s\r\n" % header for header in answer.headers]
    if closes:
        lines.append(b"Connection: close\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


class DateLine:
    """The Date header, made once a second; by the time of day, which the reactor's clock is not."""

    def __init__(self) -> None:
        self._second = 0
        self._line = b""

    def __call__(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._line = b"Date: %s\r\n" % formatdate(second, usegmt=True).encode()
        return self._line
