"""What tests of several workers look at: who serves which connection, and what /metrics adds up."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.support.daemon import Daemon
from tests.support.sms_peers import Peer

_ESTABLISHED = "01"


def connections_of(pids: set[int], port: int) -> Counter[int]:
    """How many established connections to a port of this machine each process holds."""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == _ESTABLISHED:
            inodes.add(f"socket:[{fields[9]}]")
    return Counter({pid: len(inodes & open_files(pid)) for pid in pids})


def open_files(pid: int) -> set[str]:
    """What a process has open, as /proc names it."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(os.readlink(link))
        except FileNotFoundError:
            continue  # closed in the meantime
    return found


def process_is_gone(pid: int) -> bool:
    """Whether it has ended, be it that nobody has asked for its status yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def metric(running: Daemon, name: str, **labels: str) -> float:
    """One value of /metrics; 0 where it was not counted yet."""
    for family in text_string_to_metric_families(_admin(running, "/metrics").decode()):
        for sample in family.samples:
            if (sample.name, sample.labels) == (name, labels):
                return float(sample.value)
    return 0.0


def health(running: Daemon) -> dict[str, Any]:
    """What /health/ready says."""
    found: dict[str, Any] = json.loads(_admin(running, "/health/ready"))
    return found


def _admin(running: Daemon, path: str) -> bytes:
    peer = Peer(running.port("admin"))
    try:
        return peer.ask("GET", path).body
    finally:
        peer.close()
