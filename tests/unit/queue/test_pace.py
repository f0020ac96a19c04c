"""Virtual times: who comes next."""

from typing import Any
from uuid import UUID

from services.kit.ids import new_id
from services.queue.job import NewJob
from services.queue.pace import NOBODY, STEP, Mark, Pace, TenantShare

A, B = new_id(), new_id()


def asked(tenant: UUID, **fields: Any) -> NewJob:
    return NewJob(tenant, **({"kind": "test", "key": "", "payload": b"", "idempotency_key": "i"} | fields))


def test_jobs_of_a_tenant_are_a_step_apart_and_others_come_between() -> None:
    pace = Pace()
    assert [pace.stamp(asked(A)) for _ in range(3)] == [STEP, 2 * STEP, 3 * STEP]
    assert pace.stamp(asked(B)) == STEP


def test_nobody_saves_up_for_later() -> None:
    pace = Pace()
    pace.stamp(asked(A))
    pace.served({("test", 0): 50 * STEP})
    assert pace.stamp(asked(B)) == 51 * STEP
    assert pace.stamp(asked(A)) == 51 * STEP


def test_a_weight_makes_the_steps_shorter() -> None:
    pace = Pace()
    pace.share([TenantShare(A, weight=4)])
    assert [pace.stamp(asked(A)) for _ in range(2)] == [STEP // 4, STEP // 2]


def test_kinds_and_priorities_have_times_of_their_own() -> None:
    pace = Pace()
    pace.served({("test", 0): 50 * STEP})
    assert pace.stamp(asked(A, priority=-1)) == pace.stamp(asked(A, kind="other")) == STEP


def test_what_moved_is_told_once_and_what_others_tell_never_goes_back() -> None:
    one, two = Pace(), Pace()
    one.stamp(asked(A))
    one.served({("test", 0): 7 * STEP})
    moved = one.moved()
    assert sorted(moved, key=str) == sorted([Mark("test", 0, A, STEP), Mark("test", 0, NOBODY, 7 * STEP)], key=str)
    assert one.moved() == []
    two.heard(moved)
    two.heard([Mark("test", 0, NOBODY, 3 * STEP)])
    assert two.stamp(asked(B)) == 8 * STEP


def test_lanes_are_those_of_tenants_with_a_limit() -> None:
    pace = Pace()
    pace.share([TenantShare(A, weight=2, lane=1), TenantShare(B, max_in_flight=3, lane=2)])
    assert pace.lanes == {2}
