"""Builds deliveries and what belongs to them; name what matters to the test, the rest is filled in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from smsdaemon.domain.ids import uuid7
from smsdaemon.domain.model import Client, Delivery, InboundSMS, Target

RECEIVED_AT = datetime(2026, 11, 22, 16, 43, 42, 123456, tzinfo=UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def sms(**fields: Any) -> InboundSMS:
    values: dict[str, Any] = {
        "id": uuid7(RECEIVED_AT),
        "received_at": RECEIVED_AT,
        "connector_id": 1,
        "client_id": 1,
        "target_id": 1,
        "receiver": "+49123123",
        "sender": "+49789789",
        "sender_raw": "49789789",
        "text": "This is a test message",
    }
    return InboundSMS(**{**values, **fields})


def delivery(**fields: Any) -> Delivery:
    values: dict[str, Any] = {
        "id": uuid7(RECEIVED_AT),
        "sms": fields.get("sms") or sms(),
        "target_id": 1,
        "lease": UUID(int=1),
        "attempt": 1,
        "round_attempt": 1,
        "round_seconds": 0.0,
    }
    return Delivery(**{**values, **fields})


def target(**fields: Any) -> Target:
    values: dict[str, Any] = {
        "id": 1,
        "client_id": 1,
        "kind": "acd_group",
        "name": "support",
        "url": "http://127.0.0.1/sms",
        "secret": SECRET,
    }
    return Target(**{**values, **fields})


def client(**fields: Any) -> Client:
    return Client(**{"id": 1, "reseller": "acme", "name": "shop", **fields})


def held() -> None:
    """The check of a lease that is not over."""
