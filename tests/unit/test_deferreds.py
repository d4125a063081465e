"""Followers of a Deferred."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from smsdaemon.deferreds import follower
from smsdaemon.errors import StoreUnavailable
from tests.support.cases import UnitTest


class FollowerTests(UnitTest):
    def test_it_fires_as_its_leader_does(self) -> None:
        leader: Deferred[int] = Deferred()
        followed = follower(leader)
        self.assertNoResult(followed)
        leader.callback(7)
        self.assertEqual(self.successResultOf(followed), 7)

    def test_it_fails_as_its_leader_does(self) -> None:
        leader: Deferred[int] = Deferred()
        followed = follower(leader)
        leader.errback(StoreUnavailable("away"))
        self.failureResultOf(followed, StoreUnavailable)

    def test_cancelling_it_leaves_the_leader_alone(self) -> None:
        cancelled: list[object] = []
        leader: Deferred[int] = Deferred(cancelled.append)
        followed = follower(leader)
        followed.cancel()
        self.failureResultOf(followed, CancelledError)
        self.assertEqual(cancelled, [])
        leader.callback(7)

    def test_a_late_failure_of_ours_is_nobodys_and_a_late_bug_is_logged(self) -> None:
        for error, logged in ((StoreUnavailable("away"), 0), (ZeroDivisionError("bug"), 1)):
            leader: Deferred[int] = Deferred()
            followed = follower(leader)
            followed.cancel()
            self.failureResultOf(followed, CancelledError)
            leader.errback(error)
            self.assertEqual(len(self.flushLoggedErrors()), logged)
