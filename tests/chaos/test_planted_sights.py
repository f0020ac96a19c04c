"""Every rule that callers can see broken is shown a broken promise, and has to notice."""

import random
from collections.abc import Callable

import httpx
import pytest

from tests.chaos.account import NEVER, Account
from tests.chaos.ledger import Ledger, Seen, Turn
from tests.chaos.run import ending_is_fine, said
from tests.chaos.turns import Line


def _lost(account: Account) -> None:
    account.acknowledge("a")
    account.check([])


def _two_jobs(account: Account) -> None:
    account.acknowledge("a", "b")


def _stale(account: Account) -> None:
    account.stale("a", "settled")


def _out_of_order(account: Account) -> None:
    account.by_key["k"] += [account.acknowledge("a"), account.acknowledge("b")]
    account.check([("b", "k"), ("a", "k")])


def _effect_twice(account: Account) -> None:
    account.acknowledge("a")
    account.check([("a", ""), ("a", "")])


def _effect_of_the_doomed(account: Account) -> None:
    account.doomed.add(account.acknowledge("a"))
    account.check([("a", "")])


def _early(account: Account) -> None:
    account.due["a"] = 100.0
    account.start("a", 1, now=99.0)


def _late(account: Account) -> None:
    account.late("a", 2.0)


def _fired_twice(account: Account) -> None:
    account.check_ticks("s", ["1", "2"], ["1", "2", "2"])


def _did_not_fire(account: Account) -> None:
    account.check_ticks("s", ["1", "2"], ["2"])


def _fired_without_a_tick(account: Account) -> None:
    account.check_ticks("s", ["1"], ["1", "2"], pending=["3"])


def _ran_after_its_cancellation(account: Account) -> None:
    account.cancel("a", leased=False, attempt=0)
    account.start("a", 1)


def _ran_again_after_its_cancellation(account: Account) -> None:
    account.start("a", 1)
    account.cancel("a", leased=True, attempt=1)
    account.start("a", 2)


def _effect_of_the_cancelled(account: Account) -> None:
    account.cancelled[account.acknowledge("a")] = NEVER
    account.check([("a", "")])


def _told_late(account: Account) -> None:
    account.stopped("a", 6.0, told=True, calm=True)


def _never_told(account: Account) -> None:
    account.stopped("a", 1.0, told=False, calm=True)


def _too_many(account: Account) -> None:
    for _ in range(account.concurrency + 1):
        account.run()


def _deaf(account: Account) -> None:
    account.unheard("a")


@pytest.mark.parametrize(
    ("number", "plant"),
    [
        ("I1", _lost),
        ("I2", _two_jobs),
        ("I3", _stale),
        ("I4", _out_of_order),
        ("I5", _effect_twice),
        ("I5", _effect_of_the_doomed),
        ("I8", _early),
        ("I8", _late),
        ("I9", _fired_twice),
        ("I9", _did_not_fire),
        ("I9", _fired_without_a_tick),
        ("I10", _ran_after_its_cancellation),
        ("I10", _ran_again_after_its_cancellation),
        ("I10", _effect_of_the_cancelled),
        ("I10", _told_late),
        ("I10", _never_told),
        ("I11", _too_many),
        ("I12", _deaf),
    ],
)
def test_callers_see_a_broken_promise(number: str, plant: Callable[[Account], None]) -> None:
    account = Account(Ledger(), concurrency=8)
    plant(account)
    assert [sentence.split(":")[0] for sentence in account.ledger.violations] == [number]


def test_nothing_is_violated_when_all_goes_well() -> None:
    account = Account(Ledger(), concurrency=8)
    account.by_key["k"] += [account.acknowledge("a", "a"), account.acknowledge("b")]
    account.due["b"] = 100.0
    account.start("a", 1, now=50.0)
    account.start("b", 2, now=100.5)
    account.late("b", 0.5)
    account.acknowledge("c")
    account.start("c", 1)
    account.cancel("c", leased=True, attempt=1)
    account.stopped("c", 0.1, told=True, calm=True)
    account.stopped("c", 60.0, told=False, calm=False)
    account.acknowledge("d")
    account.cancel("d", leased=False, attempt=0)
    account.stale("e", "lease_ended")
    account.check_ticks("s", ["1"], ["1", "2"], pending=["2", "3"])
    account.check([("a", "k"), ("b", "k")])
    assert account.ledger.violations == []


def _turn(*events: dict[str, object], **known: object) -> Turn:
    return Turn("t", "s", "r", readers=[Seen(events=list(events), lines=[""] * len(events))], **known)  # type: ignore[arg-type]


def test_an_ending_needs_its_cause() -> None:
    """A turn may only fail by what was done to it."""
    ledger = Ledger()
    lost = _turn({"failed": {"reason": "ERROR_REASON_SANDBOX_LOST"}})
    lost.ended = lost.acknowledged + 1
    assert not ending_is_fine(lost, ledger)
    ledger.faults.append((lost.acknowledged, "kill -9 opencode"))
    assert ending_is_fine(lost, ledger)
    assert not ending_is_fine(_turn(), ledger)
    assert not ending_is_fine(_turn({"aborted": {}}), ledger)
    assert ending_is_fine(_turn({"aborted": {}}, may_abort=True), ledger)


def test_what_was_said_twice_is_heard() -> None:
    delta: dict[str, object] = {"textDelta": {"partId": "p", "text": "Hello"}}
    assert said(_turn(delta, delta, {"completed": {}})) == "HelloHello"


@pytest.mark.parametrize("sequence", ["1", "3"])
def test_a_reader_sees_a_double_or_a_gap(sequence: str) -> None:
    """I13, as readers see it."""
    ledger = Ledger()
    turn, seen = _turn(), Seen(events=[{"sequence": "1"}], lines=[""])
    line = Line(httpx.AsyncClient(), ledger, random.Random(1))
    line.see(turn, seen, f'{{"sequence": "{sequence}", "textDelta": {{}}}}')
    assert ledger.violations == [f"I13: turn t: a reader saw {sequence} after 1"]


def test_a_reader_sees_an_event_after_the_end() -> None:
    ledger = Ledger()
    turn, seen = _turn(), Seen(events=[{"sequence": "1", "completed": {}}], lines=[""])
    Line(httpx.AsyncClient(), ledger, random.Random(1)).see(turn, seen, '{"sequence": "2", "textDelta": {}}')
    assert len(ledger.violations) == 1
