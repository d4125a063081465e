"""What becomes of a refusal besides its answer: samples in the log, and the store of refused SMS."""

from __future__ import annotations

from twisted.logger import Logger

from smsdaemon.domain.masking import masked_number
from smsdaemon.domain.model import Submission
from smsdaemon.domain.refused import RefusedSMS
from smsdaemon.errors import RequestRefused
from smsdaemon.ports import RefusedSink
from smsdaemon.samples import Samples


class Refusals:
    """Implements ports.RefusalObserver.

    Whoever has no connector or no token can send as much as they like: of that nothing is kept, and
    the log has a line now and then, so that nobody can fill the disk.
    """

    def __init__(self, *, samples: Samples, kept: RefusedSink) -> None:
        self._samples, self._kept = samples, kept
        self._log = Logger(namespace="smsdaemon.intake")

    def turned_away(self, refusal: RequestRefused, submission: Submission) -> None:
        more = self._samples.take(type(refusal).__name__)
        if more is not None:
            self._log.warn(
                "refused: {why} (receiver {receiver}, sender {sender}; {more} more since the last such line)",
                why=str(refusal),
                receiver=masked_number(submission.receiver),
                sender=masked_number(submission.sender),
                more=more,
            )

    def not_routable(self, sms: RefusedSMS) -> None:
        self._kept.keep(sms)
