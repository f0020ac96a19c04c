"""Where claims begin: behind what was taken, and never behind what came since."""

from services.queue.heads import FIRST, Heads

STRETCH = ("test", 0)


def test_a_claim_begins_where_the_last_one_ended() -> None:
    heads = Heads()
    assert heads.begin([STRETCH]) == [FIRST]
    heads.end({STRETCH: (0, 70)})
    assert heads.begin([STRETCH, ("other", 0)]) == [(0, 70), FIRST]


def test_what_becomes_ready_before_that_is_found() -> None:
    heads = Heads()
    heads.end({STRETCH: (0, 70), ("test", 1): (0, 90), ("other", 0): (0, 5)})
    heads.came([("test", 0, 80), ("test", -5, 99), ("test", 0, 60)])
    assert heads.begin([STRETCH, ("test", 1), ("other", 0)]) == [(-5, 99), (-5, 99), (0, 5)]


def test_what_becomes_ready_during_a_claim_is_found_by_the_next() -> None:
    heads = Heads()
    heads.begin([STRETCH])
    heads.came([("test", 0, 40)])
    heads.end({STRETCH: (0, 70)})
    assert heads.begin([STRETCH]) == [(0, 40)]


def test_forgetting_during_a_claim_holds() -> None:
    heads = Heads()
    heads.begin([STRETCH])
    heads.forget()
    heads.end({STRETCH: (0, 70)})
    assert heads.begin([STRETCH]) == [FIRST]
