"""Many conversations at once, and whether they arrived as contract 5 promises: in order, one at a time."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from tests.support.backend import Attempt, Reply
from tests.support.daemon import Daemon
from tests.support.secrets_in_tests import SENDER_PREFIX, TEXT_MARKER
from tests.support.sms_peers import in_threads

PEERS = 20


class SlowAndFailing:
    """A backend's answers: each takes a while, one in so many is an error; the same in every run."""

    def __init__(self, seconds: float, failing: float) -> None:
        self._random = random.Random(20261122)
        self._seconds, self._failing = seconds, failing

    def __call__(self, _: Attempt) -> Reply:
        time.sleep(self._random.uniform(0, 2 * self._seconds))
        failed = self._random.random() < self._failing
        return Reply(self._random.choice([500, 503, 404])) if failed else Reply()


def send_conversations(daemons: Sequence[Daemon], receiver: str, senders: int, each: int) -> list[str]:
    """Each sender's SMS one after the other, to the daemons in turn; the ids that were answered."""
    ids: list[str] = []

    def send(n: int) -> None:
        peers = [daemon.peer() for daemon in daemons]
        for count in range(each):
            for sender in range(n, senders, PEERS):
                answer = peers[(count + sender) % len(peers)].post_form(
                    receiver=receiver, sender=f"{SENDER_PREFIX}{sender:05d}", message=f"{TEXT_MARKER} {count}"
                )
                assert answer.status == 200, answer.status
                ids.append(answer.id)
        for peer in peers:
            peer.close()

    in_threads(PEERS, send)
    return ids


def faults_of_order(attempts: Sequence[Attempt], senders: int, each: int) -> list[str]:
    """What is wrong with how they arrived; nothing where all is as promised."""
    by_sender: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in sorted(attempts, key=lambda attempt: attempt.began):
        by_sender[attempt.data["sender"]].append(attempt)
    faults = [] if len(by_sender) == senders else [f"{len(by_sender)} conversations of {senders}"]
    for n, conversation in enumerate(by_sender.values()):
        for before, after in pairwise(conversation):
            if before.ended is None or after.began < before.ended:
                faults.append(f"two attempts of conversation {n} at once")
        counts = [int(attempt.data["text"].rpartition(" ")[2]) for attempt in conversation]
        if counts != sorted(counts) or set(counts) != set(range(each)):
            faults.append(f"conversation {n} arrived as {counts}")
    return faults
