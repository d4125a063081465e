"""What the tests send that nothing may ever print, and the search for it in what was printed.

Tests of whole processes use these values, and hand what the processes printed to :func:`keep`. The last
step of `make test` (tests/support/output_checks.py) looks for the values in all of that, in trial's own
output and in its log.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path

TOKEN = "b6f1d04c9e7a4b53a1e8d7720c5f9e31aa64c0d2e98b47f6935d10be7c2f8a4d"
"""A connector's token; `wrong` ones are made by changing its last character."""
OTHER_TOKEN = "0f4e7b92d8a3c615e6b1709d3f5a8c24b7e9016dc3a5f8420e1d7b6c94a2f58e"
"""A second one of the same connector, as during rotation."""
EXAMPLE_TOKEN = "5760da99304185ca54edad4704379dd02e8d90419ab5e1fa5e066699bd9525de"
"""The one of the API description's example calls and of etc/demo.toml."""
SECRET = "whsec_Qm9yc2NodC1hbmQtcHVtcGVybmlja2VsLTQyNzE5"
"""A target's secret."""
PASSWORD = "Xk7-knallerbse-91"
"""A database user's."""
TEXT_MARKER = "Quittenbrot31415"
"""Part of every text: ``f"{TEXT_MARKER} {whatever}"``."""
SENDER = "+4915550104711"
OTHER_SENDER = "+4915550108822"
RECEIVER = "+4969550123456"
OTHER_RECEIVER = "+4969550127890"
SENDER_PREFIX = "+49155502"
"""Where many senders are needed: ``f"{SENDER_PREFIX}{n:05d}"``."""

NUMBERS = (SENDER, OTHER_SENDER, RECEIVER, OTHER_RECEIVER, SENDER_PREFIX)

_SOUGHT = {
    "a token": (TOKEN, OTHER_TOKEN, EXAMPLE_TOKEN),
    "a secret": (SECRET.removeprefix("whsec_"),),
    "a password": (PASSWORD,),
    "a text": (TEXT_MARKER,),
    "a number": tuple(number.lstrip("+") for number in NUMBERS),
}

KEPT = "printed-by-processes"
"""Folder below trial's temporary folder (which is the current one while a test runs)."""

_count = itertools.count()


def keep(name: str, printed: bytes) -> Path:
    """Keep what a process printed (and wrote into log files) for the search after the run.

    Call it once for each process, when it has ended, in a test or its clean-up.
    """
    folder = Path(KEPT)
    folder.mkdir(exist_ok=True)
    path = folder / f"{os.getpid()}-{next(_count)}-{name}.log"
    path.write_bytes(printed)
    return path


def leaks(printed: bytes) -> list[str]:
    """What kinds of values are in there, without the values."""
    text = printed.decode("utf-8", "replace")
    return [kind for kind, values in _SOUGHT.items() if any(value in text for value in values)]
