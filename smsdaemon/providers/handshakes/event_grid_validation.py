"""Azure Event Grid asks whether events are wanted here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar

from attrs import frozen

from smsdaemon.domain.model import WireRequest
from smsdaemon.errors import MalformedRequest
from smsdaemon.ports import Fetch, HandshakeAnswer

_EVENT = "Microsoft.EventGrid.SubscriptionValidationEvent"
_MAX_CODE_LENGTH = 256


@frozen(kw_only=True)
class EventGridValidation:
    """The code of the validation event is given back; the event's URL is never called.

    Source: MicrosoftDocs/azure-docs:articles/event-grid.
    """

    name: ClassVar[str] = "event_grid_validation"
    signed: ClassVar[bool] = True

    def recognise(self, request: WireRequest, document: object) -> bool:
        """By the event's type; it comes alone."""
        return _event(document) is not None

    async def answer(
        self,
        request: WireRequest,
        document: object,
        *,
        secrets: Sequence[str],
        now: datetime,
        fetch: Fetch,
    ) -> HandshakeAnswer:
        """Raises MalformedRequest where there is no code."""
        data = (_event(document) or {}).get("data")
        code = data.get("validationCode") if isinstance(data, dict) else None
        if not isinstance(code, str) or not 0 < len(code) <= _MAX_CODE_LENGTH:
            raise MalformedRequest("the validation event has no validationCode")
        body = json.dumps({"validationResponse": code}).encode()
        return HandshakeAnswer(200, "application/json", body, {})


def _event(document: object) -> dict[str, object] | None:
    if isinstance(document, list) and len(document) == 1 and isinstance(document[0], dict):
        event: dict[str, object] = document[0]
        if event.get("eventType") == _EVENT:
            return event
    return None
