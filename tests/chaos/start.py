"""Becomes the daemon: start.py BROKEN OPTION…, where BROKEN (see broken.py) may be empty.

Run as a file: it comes before every start of the daemon, so it imports next to nothing.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def main(broken: str, options: list[str]) -> None:
    """The daemon ends with whoever started it, however that went."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # As tests.support.daemon.TWISTD, which would bring half of Twisted.
    twistd = str(Path(sys.executable).with_name("twistd"))
    arguments = [twistd, "--nodaemon", "--pidfile=", "smsdaemon", *options]
    if not broken:
        os.execv(twistd, arguments)
    sys.path[0] = str(Path(__file__).parents[2])
    from tests.chaos.broken import run

    run(broken, arguments)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
