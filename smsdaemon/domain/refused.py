"""What was answered 502: valid, for a connector of ours, which could not pass it on."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from attrs import field, frozen

from smsdaemon.domain.model import Submission


def _without_token(_instance: object, _attribute: object, submission: Submission) -> None:
    if submission.token is not None:
        raise ValueError("a refused SMS is kept without its token")


@frozen(kw_only=True)
class RefusedSMS:
    """An SMS that waits for its connector to be mended."""

    id: UUID
    """UUIDv7 of ``received_at``; the SMS keeps it if it is accepted later."""
    received_at: datetime
    reason: str
    connector_id: int
    receiver: str
    """The connector's number as the directory has it."""
    sender: str
    provider_key: bytes | None
    """intake.provider_key() of the SMS it would have been."""
    submission: Submission = field(validator=_without_token)
