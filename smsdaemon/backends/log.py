"""A target of scheme log: what is delivered to it becomes one log event."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from smsdaemon.domain.masking import masked_number
from smsdaemon.domain.model import Answer, Client, Delivery, Target


class LogBackend:
    """Takes every delivery at once; for trying things out, and for clients that only want history.

    Numbers are masked, and the text is left out unless ``message_text``.
    """

    schemes: Sequence[str] = ("log",)

    def __init__(self, *, message_text: bool) -> None:
        self._message_text = message_text
        self._log = Logger(namespace="smsdaemon.backends.log")

    def deliver(
        self, delivery: Delivery, target: Target, client: Client, check_lease: Callable[[], None]
    ) -> Deferred[Answer]:
        sms = delivery.sms
        fields = {
            "message_id": str(sms.id),
            "receiver": masked_number(sms.receiver),
            "sender": masked_number(sms.sender),
            "delivery_id": str(delivery.id),
            "kind": target.kind,
            "target": f"{client.reseller}/{client.name}/{target.name}",
            "attempt": delivery.attempt,
        }
        event = (
            "message {message_id} from {sender} to {receiver} delivered"
            " to {kind} {target} as {delivery_id}, attempt {attempt}"
        )
        if self._message_text:
            self._log.info(event + ": {text!r}", text=sms.text, **fields)
        else:
            self._log.info(event, **fields)
        return succeed(Answer(status=200))
