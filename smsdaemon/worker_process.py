"""What a supervisor runs, with the descriptors of worker_channel: ``python -m smsdaemon.worker_process N``.

Nothing of the program is imported before this process is tied to its supervisor's life.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_supervisor() -> None:
    """Be killed when it ends, however it ends. All that matters is durable, or stays to be done."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def main() -> None:
    die_with_supervisor()
    # Ctrl-C at a terminal reaches every process of ours; the supervisor alone says what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    faulthandler.enable()

    from smsdaemon.worker_channel import ORDERS, read_charge

    try:
        charge = read_charge(ORDERS)
    except EOFError:
        sys.exit(1)
    if os.getppid() != charge.supervisor:  # it ended before we were tied to it
        sys.exit(1)

    from twisted.internet import reactor

    from smsdaemon.steady_time import keep_steady
    from smsdaemon.worker_run import run

    keep_steady(reactor)
    run(charge, reactor)


if __name__ == "__main__":
    main()
