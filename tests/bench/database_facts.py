"""Fills the benchmark's database with old SMS, and tells what it is.

Run as ``python -m tests.bench.database_facts CONFIG ROWS`` while no daemon runs: brings the number of
stored SMS to ROWS, all delivered, over the last 60 days, and prints the facts as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from twisted.internet.task import react

from smsdaemon.cli.session import read_settings, usable_database

_FILL = """
WITH old AS (
    SELECT i, now() - interval '60 days' * (1 - i / (%(rows)s + 1.0)) AS at
    FROM generate_series((SELECT count(*) FROM message) + 1, %(rows)s) AS i
), numbered AS (
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '70008000' ||
            lpad(to_hex(i), 12, '0'))::uuid AS id, at, '+49160' || (1000000 + i %% 5000) AS sender
    FROM old
), stored AS (
    INSERT INTO message (id, received_at, connector_id, client_id, receiver, sender, sender_raw, text,
                         provider, encoding, parts)
    SELECT n.id, n.at, c.id, c.client_id, c.number, n.sender, n.sender, 'This is an old test message',
           'generic', 'utf-8', 1
    FROM numbered n CROSS JOIN (SELECT id, client_id, number FROM connector LIMIT 1) c
)
INSERT INTO ended_delivery (message_id, seq, id, connector_id, sender, target_id, state, reason,
                            attempts, hops, ended_at)
SELECT n.id, nextval('delivery_seq_seq'), gen_random_uuid(), c.id, n.sender, c.target_id, 'delivered', '',
       1, '[]', n.at
FROM numbered n CROSS JOIN (SELECT id, target_id FROM connector LIMIT 1) c
"""
_MONTHS = "SELECT make_partitions(now() - months * interval '1 month') FROM generate_series(0, 2) AS months"
_FACTS = """
SELECT (SELECT count(*) FROM message), split_part(current_setting('server_version'), ' ', 1),
       current_setting('fsync')
"""


async def main(reactor: Any, config: str, rows: str) -> None:
    async with usable_database(reactor, read_settings(Path(config))) as pool:
        if int(rows):
            await pool.query(_MONTHS)
            await pool.query(_FILL, {"rows": int(rows)})
            await pool.query("ANALYZE")
        [(stored, version, fsync)] = await pool.query(_FACTS)
    sys.stdout.write(json.dumps({"stored_rows": stored, "postgresql": version, "fsync": fsync}) + "\n")


if __name__ == "__main__":
    react(main, sys.argv[1:])
