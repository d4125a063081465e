"""The statements of redecode; PAGE to HOLD are steps of one transaction."""

from smsdaemon.store.selection import SELECTED

PAGE = f"""
SELECT m.id::text, m.text, m.encoding, m.raw_text FROM message m
WHERE {SELECTED}
  AND (%(ids)s::uuid[] IS NULL OR m.id = ANY(%(ids)s::uuid[]))
ORDER BY m.id LIMIT %(rows)s
"""

# What stands there already is not written again: every update leaves a dead row behind.
UPDATE = """
UPDATE message m SET text = r.text, encoding = r.encoding
FROM json_to_recordset(%(rows)s) AS r(id uuid, text text, encoding text)
WHERE m.id = r.id AND m.raw_text IS NOT NULL AND (m.text, m.encoding) <> (r.text, r.encoding)
"""

HOLD = """
SELECT d.message_id::text, d.id::text, CASE WHEN d.leased_until >= now() THEN d.lease::text END
FROM delivery d WHERE d.message_id = ANY(%(messages)s::uuid[])
ORDER BY d.id FOR NO KEY UPDATE
"""

LEASED = """
SELECT id::text, lease::text FROM delivery WHERE id = ANY(%(ids)s::uuid[]) AND leased_until >= now()
"""
