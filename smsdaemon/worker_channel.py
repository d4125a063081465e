"""What a supervisor and its workers say to each other, and through which descriptors.

To the worker: its charge, once, and then orders, a line each. Back: reports, one JSON object a line.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Iterator
from typing import Any

from attrs import field, frozen

from smsdaemon.settings_values import Settings

# A worker's descriptors. From FIRST_SOCKET on: what it listens on, in the order of its charge.
ORDERS, REPORTS, LOCK, FIRST_SOCKET = 3, 4, 5, 6

DATABASE_READY = b"database"
"""Order: the schema is there; connect, and deliver."""
STOP = b"stop"
"""Order: an ordered end."""

_LENGTH = struct.Struct("!I")
_LONGEST_LINE = 1 << 20


@frozen(kw_only=True)
class Charge:
    """What a worker is told at its start. Only ever on a pipe of its own: it may hold passwords."""

    number: int
    """From 1 on; its successor after a death has the same."""
    supervisor: int
    """Process id."""
    settings: Settings
    dsn: str = field(repr=False)
    endpoints: tuple[tuple[str, str], ...]
    """For each listening socket the settings' key, as in ``http.listen``, and the endpoint string."""


def charge_bytes(charge: Charge) -> bytes:
    pickled = pickle.dumps(charge)
    return _LENGTH.pack(len(pickled)) + pickled


def read_charge(descriptor: int) -> Charge:
    """Read exactly what our own parent wrote, waiting for it; raises EOFError where that is gone."""
    [length] = _LENGTH.unpack(_read(descriptor, _LENGTH.size))
    charge = pickle.loads(_read(descriptor, length))
    assert isinstance(charge, Charge)
    return charge


def _read(descriptor: int, count: int) -> bytes:
    found = bytearray()
    while len(found) < count:
        piece = os.read(descriptor, count - len(found))
        if not piece:
            raise EOFError
        found += piece
    return bytes(found)


def report_line(kind: str, content: object) -> bytes:
    """``kind``: state, log or dropped."""
    return json.dumps([kind, content]).encode("ascii") + b"\n"


def read_report(line: bytes) -> tuple[str, Any]:
    """Kind and content; raises ValueError."""
    kind, content = json.loads(line)
    return str(kind), content


class Lines:
    """Puts lines together from pieces; one that has no end is cut."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:_LONGEST_LINE]
        yield from lines

    def rest(self) -> bytes:
        """What had no line break yet."""
        rest, self._rest = self._rest, b""
        return rest
