"""Fills the benchmark's database with old SMS, and tells what it is.

Run as ``python -m tests.bench.database_facts CONFIG [ROWS [SECONDS]]`` while no daemon runs: brings the
number of stored SMS to ROWS, or to what it came to in so many seconds, and prints the facts as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from twisted.internet.task import react

from smsdaemon.cli.session import read_settings, usable_database
from tests.bench.filling import fill

_FACTS = """
SELECT (SELECT count(*) FROM message), split_part(current_setting('server_version'), ' ', 1),
       current_setting('fsync'), (SELECT count(*) FROM connector WHERE removed_at IS NULL),
       pg_database_size(current_database())
"""


async def main(reactor: Any, config: str, rows: str = "0", seconds: str = "3600") -> None:
    async with usable_database(reactor, read_settings(Path(config))) as pool:
        await fill(pool, int(rows), seconds=float(seconds))
        [(stored, version, fsync, connectors, size)] = await pool.query(_FACTS)
    facts = {
        "stored_rows": stored,
        "postgresql": version,
        "fsync": fsync,
        "connectors": connectors,
        "database_MB": round(size / 1e6, 1),
    }
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    react(main, sys.argv[1:])
