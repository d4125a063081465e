"""What the adversary can do, by name, and what each excuses."""

from __future__ import annotations

POSTGRES_KILLED = "postgres killed"
POSTGRES_STOPPED = "postgres stopped"
POSTGRES_FROZEN = "postgres frozen"
COMMIT_CUT = "commit cut"
DATABASE_SILENT = "database silent"
DATABASE_REFUSED = "database refused"
WORKER_KILLED = "worker killed"
SUPERVISOR_KILLED = "supervisor killed"
DAEMON_KILLED = "daemon killed"
DAEMON_RESTARTED = "daemon restarted"
WORKER_FROZEN = "worker frozen"
SUPERVISOR_FROZEN = "supervisor frozen"
DISK_FULL = "disk full"
CLOCK_FORWARD = "clock forward"
CLOCK_BACK = "clock back"

OF_POSTGRES = (
    POSTGRES_KILLED,
    POSTGRES_STOPPED,
    POSTGRES_FROZEN,
    COMMIT_CUT,
    DATABASE_SILENT,
    DATABASE_REFUSED,
)
"""While only these happen, nobody hears anything but 200."""
OF_THE_DAEMON = (
    WORKER_KILLED,
    SUPERVISOR_KILLED,
    DAEMON_KILLED,
    DAEMON_RESTARTED,
    WORKER_FROZEN,
    SUPERVISOR_FROZEN,
)
OF_THE_MACHINE = (DISK_FULL, CLOCK_FORWARD, CLOCK_BACK)
LANES = (OF_POSTGRES, OF_THE_DAEMON, OF_THE_MACHINE)
"""Each happens one after the other within its lane, and side by side with the other lanes."""
ALL = tuple(kind for lane in LANES for kind in lane)

FREEZES = (WORKER_FROZEN, SUPERVISOR_FROZEN)
"""A process that wakes up may do what it was about to do, although its lease was lost meanwhile."""
LOSE_OUTCOMES = (*OF_POSTGRES, WORKER_KILLED, SUPERVISOR_KILLED, DAEMON_KILLED, WORKER_FROZEN)
"""What can keep an answer that came from being recorded. A restart by SIGTERM is none of them."""
