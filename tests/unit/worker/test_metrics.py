"""What leaves a worker, and what is parked in it."""

import asyncio

import pytest
from prometheus_client import REGISTRY

from services.worker.metrics import measured


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_turn_counts_while_it_is_here_and_parked_once() -> None:
    done, parked = value("oiab_worker_turns_left_total", how="done"), value("oiab_worker_parked_turns")
    calls: list[str] = []
    with measured() as turn:
        park, unpark = turn.parking(lambda: calls.append("park")), turn.unparking(lambda: calls.append("unpark"))
        unpark()
        park()
        park()
        assert value("oiab_worker_parked_turns") == parked + 1
        turn.how = "done"
    assert value("oiab_worker_parked_turns") == parked
    assert value("oiab_worker_turns_left_total", how="done") == done + 1
    assert calls == ["unpark", "park", "park"]


@pytest.mark.parametrize(("error", "how"), [(asyncio.CancelledError(), "stopped"), (OSError(), "given_back")])
def test_a_turn_that_breaks_off_left_for_a_reason(error: BaseException, how: str) -> None:
    before = value("oiab_worker_turns_left_total", how=how)
    with pytest.raises(type(error)), measured():
        raise error
    assert value("oiab_worker_turns_left_total", how=how) == before + 1
