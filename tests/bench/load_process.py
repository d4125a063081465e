"""Loads a daemon with the engine of `smsdaemon send`, and writes down what was accepted.

Run as ``python -m tests.bench.load_process PORT FILE SECONDS CONNECTIONS SENDERS [RATE]``: prints the
summary as JSON; FILE gets ``id due answered`` of each SMS that was answered with 200, in seconds of
time.monotonic().
"""

from __future__ import annotations

import gc
import json
import sys
import time
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import react

from smsdaemon.cli.load import Load, Plan, message_id
from smsdaemon.cli.sms_request import parse_url, request_maker


async def main(
    reactor: Any, port: str, file: str, seconds: str, connections: str, senders: str, rate: str = ""
) -> None:
    fields = {"receiver": "+49123123", "sender": "+4917{n}", "message": "This is a test message"}
    # The counter is padded by an offset that keeps all senders at one length.
    request = request_maker(parse_url(f"http://127.0.0.1:{port}/SMSReceiver"), "get", fields)
    offset, cycle = 100_000_000, int(senders)
    accepted: list[tuple[bytes, float, float]] = []

    def seen(_number: int, due: float, answered: float, status: int, answer: bytes) -> None:
        if status == 200:
            accepted.append((answer, due, answered))

    load = Load(
        plan=Plan(
            request=lambda n: request(offset + n % cycle),
            count=round(float(rate) * float(seconds)) if rate else None,
            rate=float(rate) if rate else None,
            connections=int(connections),
        ),
        endpoint=TCP4ClientEndpoint(reactor, "127.0.0.1", int(port)),
        reactor=reactor,
        clock=time.monotonic,
        seen=seen,
    )
    gc.disable()
    if not rate:
        reactor.callLater(float(seconds), load.stop)
    tally = await load.run()
    with open(file, "w", encoding="ascii") as stream:
        stream.writelines(
            f"{message_id(answer)} {due:.6f} {answered:.6f}\n" for answer, due, answered in accepted
        )
    sys.stdout.write(json.dumps(tally.summary()) + "\n")


if __name__ == "__main__":
    react(main, sys.argv[1:])
