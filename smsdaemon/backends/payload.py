"""The JSON of one delivery, as contract section 5 writes it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

from smsdaemon.domain.model import Client, Delivery, InboundSMS, Target

# Made once: json.dumps makes a new encoder in every call that asks for other than its defaults.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_FIELD = re.compile(r"\{(sender|receiver|keyword)\}")
_LINE_BREAKS = str.maketrans("", "", "\r\n")


def body(delivery: Delivery, target: Target, client: Client) -> bytes:
    """The body of one attempt, UTF-8; the text goes out as it came in."""
    sms = delivery.sms
    received_at = utc_text(sms.received_at)
    data: dict[str, object] = {
        "id": str(sms.id),
        "delivery": str(delivery.id),
        "receiver": sms.receiver,
        "sender": sms.sender,
        "sender_raw": sms.sender_raw,
        "text": sms.text,
        "keyword": sms.keyword,
        "received_at": received_at,
        "reseller": client.reseller,
        "client": client.name,
        # The receiver is stored as the directory writes the connector's number (contract 3).
        "connector": sms.receiver,
        "provider": sms.provider,
        "provider_message_id": sms.provider_message_id,
        "encoding": sms.encoding,
        "parts": sms.parts,
        "target": {"kind": target.kind, "name": target.name, "subject": subject(target.subject, sms)},
        "attempt": delivery.attempt,
        "hops": [{"kind": hop.kind, "name": hop.name} for hop in delivery.hops],
    }
    if sms.parts_missing:
        data["parts_missing"] = list(sms.parts_missing)
    return _ENCODER.encode({"type": "sms.received", "timestamp": received_at, "data": data}).encode()


def subject(template: str, sms: InboundSMS) -> str:
    """The target's subject with the SMS' values put in literally, on one line.

    In one pass: a sender called "{receiver}" stays as it is.
    """
    values = {"sender": sms.sender, "receiver": sms.receiver, "keyword": sms.keyword or ""}
    return _FIELD.sub(lambda found: values[found[1]], template).translate(_LINE_BREAKS)


def utc_text(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds: ``2026-11-22T16:43:42.123456Z``."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
