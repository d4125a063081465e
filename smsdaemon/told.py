"""What is told, counted and logged, when the outcome of an attempt has been recorded."""

from __future__ import annotations

from twisted.logger import Logger

from smsdaemon.domain.model import Dead, Delivered, Delivery, Outcome, Postponed
from smsdaemon.ports import DeliveryObserver, DirectorySource, UtcClock

_NAMES = {Delivered: "delivered", Postponed: "retry", Dead: "dead"}


class Told:
    """Tells the observer of everything, and the log of what went wrong."""

    def __init__(self, *, directory: DirectorySource, utc_now: UtcClock, observer: DeliveryObserver) -> None:
        self._directory, self._utc_now, self._observer = directory, utc_now, observer
        self._log = Logger(namespace="smsdaemon.dispatch")

    def ended(self, delivery: Delivery, outcome: Outcome) -> None:
        """An attempt, unless none was made, has ended like this."""
        if isinstance(outcome, Postponed) and not outcome.attempted:
            return
        target = self._directory.current().targets.get(delivery.target_id)
        kind = "unknown" if target is None else target.kind
        name = _NAMES[type(outcome)]
        seconds = None
        if isinstance(outcome, Delivered):
            seconds = (self._utc_now() - delivery.sms.received_at).total_seconds()
        else:
            self._log.warn(
                "message {message_id} to target {target_id}: attempt {attempt}, {outcome}: {why}",
                message_id=delivery.sms.id,
                target_id=delivery.target_id,
                attempt=delivery.attempt,
                outcome=name,
                why=outcome.reason,
            )
        self._observer.delivery_ended(kind, name, seconds)
