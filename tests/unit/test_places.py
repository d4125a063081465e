"""How many attempts may be in flight, and when the store is worth a question."""

from __future__ import annotations

from collections import Counter

from smsdaemon.places import Places
from tests.support.cases import UnitTest


class PlacesTests(UnitTest):
    def test_a_target_gets_its_bound_and_no_more_while_another_still_gets_places(self) -> None:
        places = Places(per_target=2, in_all=10)
        self.assertEqual([places.reserve(1, 1) for _ in range(3)], [True, True, False])
        self.assertTrue(places.reserve(2, 1))

    def test_all_targets_together_are_bounded(self) -> None:
        places = Places(per_target=2, in_all=3)
        self.assertEqual([places.reserve(n, 1) for n in (1, 1, 2, 3)], [True, True, True, False])

    def test_a_freed_place_can_be_taken_again(self) -> None:
        places = Places(per_target=1, in_all=1)
        places.reserve(1, 1)
        places.free(1, 1)
        self.assertTrue(places.reserve(1, 1))
        self.assertEqual((places.total, places.room()), (1, {1: 0}))

    def test_nothing_is_worth_a_look_where_nothing_was_refused(self) -> None:
        places = Places(per_target=4, in_all=10)
        places.reserve(1, 1)
        places.free(1, 1)
        self.assertFalse(places.worth_a_look(1))

    def test_a_refused_target_is_worth_a_look_when_a_quarter_of_its_places_is_free(self) -> None:
        places = Places(per_target=4, in_all=10)
        for _ in range(5):
            if not places.reserve(1, 1):
                places.refused(1)
        self.assertFalse(places.worth_a_look(1))
        places.free(1, 1)
        self.assertTrue(places.worth_a_look(1))

    def test_a_target_with_one_place_is_worth_a_look_when_that_is_free(self) -> None:
        places = Places(per_target=1, in_all=10)
        places.reserve(1, 1)
        places.refused(1)
        places.free(1, 1)
        self.assertTrue(places.worth_a_look(1))

    def test_a_claim_that_left_room_says_that_there_is_no_more(self) -> None:
        places = Places(per_target=4, in_all=10)
        places.waits(1)
        places.claimed({}, 4, Counter({1: 3}), cut=False)
        self.assertFalse(places.worth_a_look(1))

    def test_a_claim_that_filled_all_room_says_that_there_is_probably_more(self) -> None:
        places = Places(per_target=4, in_all=10)
        places.claimed({}, 4, Counter({1: 4}), cut=False)
        self.assertTrue(places.worth_a_look(1))

    def test_a_claim_that_was_cut_says_nothing_of_the_targets_it_did_not_reach(self) -> None:
        places = Places(per_target=4, in_all=10)
        places.waits(7)
        places.claimed({}, 4, Counter({1: 2}), cut=True)
        self.assertTrue(places.worth_a_look(7))


class HangingTargetsTests(UnitTest):
    def test_however_many_hang_each_further_target_still_gets_places_and_claims(self) -> None:
        places = Places(per_target=32, in_all=2000)
        for target in range(300):  # 9,600 attempts, if they could
            while places.reserve(target, 1):
                pass
        self.assertLess(places.total, 2000)
        self.assertTrue(places.reserve(1000, 1))
        self.assertGreaterEqual(places.room_elsewhere(), 1)

    def test_one_target_alone_gets_all_of_its_places(self) -> None:
        places = Places(per_target=32, in_all=64)
        self.assertEqual(sum(places.reserve(1, 1) for _ in range(100)), 32)

    def test_what_is_offered_to_a_target_never_uses_up_what_is_free(self) -> None:
        places = Places(per_target=32, in_all=2000)
        for target in range(300):
            for _ in range(min(places.room_elsewhere(), (places.room_in_all() + 1) // 2)):
                places.take(target, 1)
            for _ in range(places.room()[target]):
                places.take(target, 1)
        self.assertGreater(places.room_in_all(), 0)

    def test_a_target_that_may_take_none_is_not_worth_a_look(self) -> None:
        places = Places(per_target=4, in_all=8)
        for target in (1, 2, 2, 3, 4, 5, 6, 7):
            places.reserve(target, 1)
        places.waits(1)
        self.assertEqual(places.room()[1], 0)
        self.assertFalse(places.worth_a_look(1))


class SharedTargetTests(UnitTest):
    def setUp(self) -> None:
        self.places = Places(per_target=8, in_all=100)

    def flood(self, connector_id: int = 1) -> int:
        return sum(self.places.reserve(1, connector_id) for _ in range(20))

    def test_who_is_alone_gets_all(self) -> None:
        self.assertEqual(self.flood(), 8)

    def test_who_shares_gets_three_quarters_and_the_rest_stays_for_the_others(self) -> None:
        self.places.reserve(1, 2)
        self.places.free(1, 2)
        self.assertEqual(self.flood(), 6)
        self.assertEqual([self.places.reserve(1, 2) for _ in range(3)], [True, True, False])

    def test_who_was_refused_a_place_is_known_the_next_time(self) -> None:
        self.flood()
        self.assertFalse(self.places.reserve(1, 2))
        for _ in range(3):
            self.places.free(1, 1)
        self.assertEqual(self.flood(), 1)
        self.assertTrue(self.places.reserve(1, 2))

    def test_of_many_connectors_none_gets_more_than_its_share(self) -> None:
        for connector in range(2, 50):
            self.places.reserve(1, connector)
        self.assertEqual(self.places.total, 8)
        for connector in range(2, 10):
            self.places.free(1, connector)
        self.assertEqual(self.flood(60), 6)

    def test_claims_leave_a_quarter_of_a_shared_target_too(self) -> None:
        self.places.reserve(1, 1)
        self.assertEqual(self.places.room(), {1: 7})
        self.places.reserve(1, 2)
        self.assertEqual(self.places.room(), {1: 4})
        self.assertEqual(self.places.room_elsewhere(), 6)  # who uses that is not known

    def test_who_stays_away_is_forgotten(self) -> None:
        self.places.reserve(1, 2)
        self.places.free(1, 2)
        self.places.forget_users()
        self.assertEqual(self.flood(), 6)
        for _ in range(6):
            self.places.free(1, 1)
        self.places.forget_users()
        self.assertEqual(self.flood(), 8)

    def test_one_place_is_for_everybody(self) -> None:
        places = Places(per_target=1, in_all=10)
        for connector in (1, 2):
            self.assertTrue(places.reserve(1, connector))
            places.free(1, connector)
