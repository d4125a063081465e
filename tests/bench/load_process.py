"""Loads a daemon with the engine of `smsdaemon send`, and writes down what was accepted.

Run as ``python -m tests.bench.load_process PORT FILE SECONDS CONNECTIONS SENDERS [RATE [RECEIVERS [FORM
[FIRST]]]]``: prints the summary as JSON; FILE gets ``id due answered number`` of each SMS that was answered
with 200, in seconds of time.monotonic(). SMS ``number`` has sender ``number % SENDERS`` and, of the
receivers (joined by commas, or FIRST:COUNT), ``number % len(RECEIVERS)``. RATE 0: as fast as the daemon
answers. FORM: one of tests.bench.forms, each of whose SMS is sent once, and the load ends with the last;
FIRST: its number.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import react

from smsdaemon.cli.load import Load, Plan, message_id
from smsdaemon.cli.sms_request import parse_url, request_maker
from tests.bench.forms import FORMS

AT_MOST_PER_SECOND = 8000.0
"""So many are made beforehand where each is sent once."""


async def main(
    reactor: Any,
    port: str,
    file: str,
    seconds: str,
    connections: str,
    senders: str,
    rate: str = "0",
    receivers: str = "+49123123",
    form: str = "",
    first: str = "0",
) -> None:
    per_second = float(rate)
    count = round(per_second * float(seconds)) if per_second else None
    if form:
        made = FORMS[form](receivers, int(first), count or round(float(seconds) * AT_MOST_PER_SECOND))
        count = len(made)
        request: Callable[[int], bytes] = made.__getitem__
    else:
        request = _few_fields(port, receivers, int(senders))
    accepted: list[tuple[bytes, float, float, int]] = []

    def seen(number: int, due: float, answered: float, status: int, answer: bytes) -> None:
        if status == 200:
            accepted.append((answer, due, answered, number))

    load = Load(
        plan=Plan(
            request=request,
            count=count,
            rate=per_second or None,
            connections=int(connections),
        ),
        endpoint=TCP4ClientEndpoint(reactor, "127.0.0.1", int(port)),
        reactor=reactor,
        clock=time.monotonic,
        seen=seen,
    )
    gc.disable()
    if not per_second:
        reactor.callLater(float(seconds), load.stop)
    tally = await load.run()
    with open(file, "w", encoding="ascii") as stream:
        stream.writelines(
            f"{message_id(answer)} {due:.6f} {answered:.6f} {number}\n"
            for answer, due, answered, number in accepted
        )
    sys.stdout.write(json.dumps(tally.summary()) + "\n")


def _few_fields(port: str, receivers: str, senders: int) -> Callable[[int], bytes]:
    fields = {"sender": "+4917{n}", "message": "This is a test message"}
    url = parse_url(f"http://127.0.0.1:{port}/SMSReceiver")
    requests = [request_maker(url, "get", {"receiver": r, **fields}) for r in numbers(receivers)]
    # The counter is padded by an offset that keeps all senders at one length.
    offset = 100_000_000
    return lambda n: requests[n % len(requests)](offset + n % senders)


def numbers(receivers: str) -> list[str]:
    """``+49301,+49302``, or ``+49301:1000`` for so many from that one on."""
    first, colon, count = receivers.partition(":")
    return [f"+{int(first) + n}" for n in range(int(count))] if colon else receivers.split(",")


if __name__ == "__main__":
    react(main, sys.argv[1:])
