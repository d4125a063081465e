"""How many attempts may be in flight, and when the store is worth a question."""

from __future__ import annotations

from collections import Counter

from smsdaemon.places import Places
from tests.support.cases import UnitTest


class PlacesTests(UnitTest):
    def test_a_target_gets_its_bound_and_no_more_while_another_still_gets_places(self) -> None:
        places = Places(per_target=2, in_all=10)
        self.assertEqual([places.reserve(1) for _ in range(3)], [True, True, False])
        self.assertTrue(places.reserve(2))

    def test_all_targets_together_are_bounded(self) -> None:
        places = Places(per_target=2, in_all=3)
        self.assertEqual([places.reserve(n) for n in (1, 1, 2, 3)], [True, True, True, False])

    def test_a_freed_place_can_be_taken_again(self) -> None:
        places = Places(per_target=1, in_all=1)
        places.reserve(1)
        places.free(1)
        self.assertTrue(places.reserve(1))
        self.assertEqual((places.total, places.room()), (1, {1: 0}))

    def test_nothing_is_worth_a_look_where_nothing_was_refused(self) -> None:
        places = Places(per_target=4, in_all=10)
        places.reserve(1)
        places.free(1)
        self.assertFalse(places.worth_a_look(1))

    def test_a_refused_target_is_worth_a_look_when_a_quarter_of_its_places_is_free(self) -> None:
        places = Places(per_target=4, in_all=10)
        for _ in range(5):
            places.reserve(1)
        self.assertFalse(places.worth_a_look(1))
        places.free(1)
        self.assertTrue(places.worth_a_look(1))

    def test_a_target_with_one_place_is_worth_a_look_when_that_is_free(self) -> None:
        places = Places(per_target=1, in_all=10)
        places.reserve(1)
        places.reserve(1)
        places.free(1)
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
