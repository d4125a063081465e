"""A running daemon gives up an SMS whose parts do not come."""

from __future__ import annotations

from uuid import UUID

from smsdaemon.domain.ids import uuid7
from tests.support.backend import backend
from tests.support.daemon import acd_group, client, connector, daemon, reseller
from tests.support.processes import ProcessTest, until
from tests.support.secrets_in_tests import RECEIVER, SENDER, TEXT_MARKER
from tests.support.stored_sms import utc_now

_PART_TWO_OF_THREE = """
WITH began AS (
    INSERT INTO concatenation (id, key, connector_id, receiver, sender, reference, total, began_at)
    SELECT '{id}', 'k', c.id, c.number, '{sender}', '7', 3, now()
    FROM connector c WHERE c.number = '{receiver}' AND c.removed_at IS NULL
    RETURNING id, connector_id
)
INSERT INTO sms_part (id, concatenation_id, number, digest, received_at, client_id, target_id, sender_raw,
                      text, provider, encoding)
SELECT b.id, b.id, 2, 'd', now(), c.client_id, c.target_id, '{sender}', '{text}', 'generic', 'utf-8'
FROM began b JOIN connector c ON c.id = b.connector_id
"""
"""No provider that ships yet has a field for it."""


class GivingUpTests(ProcessTest):
    def test_it_is_delivered_with_what_is_there_and_the_numbers_of_what_is_not(self) -> None:
        target = backend(self)
        place = daemon(
            self,
            reseller() + client() + acd_group("group", target.url()) + connector(RECEIVER, acd_group="group"),
            "[receiver]\nconcatenation_timeout = 1\n",
        )
        id: UUID = uuid7(utc_now())
        place.ask(_PART_TWO_OF_THREE.format(id=id, sender=SENDER, receiver=RECEIVER, text=TEXT_MARKER))
        until(lambda: bool(target.attempts), "the delivery")
        data = target.attempts[0].data
        self.assertEqual((data["id"], data["text"]), (str(id), TEXT_MARKER))
        self.assertEqual((data["parts"], data["parts_missing"]), (3, [1, 3]))
        self.assertIn("1 concatenated SMS given up: parts are missing", place.log())
