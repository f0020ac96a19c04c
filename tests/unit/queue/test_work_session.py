"""What a worker is told on its stream, and who gets the next job."""

from datetime import UTC, datetime

import pytest

from services.kit.ids import new_id
from services.queue.dispatcher import _slots
from services.queue.job import LeasedJob, WorkProtocolBroken
from services.queue.work_session import MAX_CREDIT, MAX_HOLDINGS, Ended, Leased, Message, Settled, WorkSession

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def session(credit: int = 0) -> WorkSession:
    found = WorkSession("worker", frozenset({"test"}))
    if credit:
        found.grant(credit)
    return found


def handed(to: WorkSession) -> LeasedJob:
    tenant_id, job_id, token = (str(new_id()) for _ in range(3))
    job = LeasedJob(1, 1, tenant_id, job_id, "test", "", token, 1, 5, b"", "i", "", 0, 0, 0, NOW)
    to.deliver([job])
    return job


def told(by: WorkSession) -> list[Message]:
    messages = list(by.outbox)
    by.outbox.clear()
    return messages


def test_a_lease_uses_up_credit() -> None:
    worker = session(credit=2)
    lease = handed(worker)
    assert worker.credit == 1
    assert told(worker) == [Leased([lease])]


def test_credit_has_a_limit() -> None:
    worker = session(credit=MAX_CREDIT)
    with pytest.raises(WorkProtocolBroken):
        worker.grant(1)


def test_a_worker_that_is_faster_than_the_disk_waits_for_it() -> None:
    worker = session(credit=MAX_CREDIT)
    first = handed(worker)
    worker.deliver([first._replace(token=str(n)) for n in range(MAX_HOLDINGS - 2)])
    worker.grant(100)
    assert _slots([worker]) == [worker]
    last = handed(worker)
    assert _slots([worker]) == []
    for token in (first.token, last.token):
        worker.begin_settling(token)
    worker.end_settling([first.token, last.token], {first.token, last.token})
    assert _slots([worker]) == [worker, worker]


def test_a_settlement_counts_once_and_only_by_its_token() -> None:
    worker = session(credit=2)
    lease = handed(worker)
    told(worker)
    assert worker.begin_settling(lease.token) == lease
    assert worker.begin_settling(lease.token) is None
    assert told(worker) == []
    assert worker.begin_settling("another") is None
    assert told(worker) == [Ended("another")]
    worker.end_settling([lease.token], {lease.token})
    assert told(worker) == [Settled([lease.token])]
    assert worker.begin_settling(lease.token) is None
    assert told(worker) == [Ended(lease.token)]


def test_a_settlement_that_came_too_late_ends_the_lease() -> None:
    worker = session(credit=1)
    late, lease = handed(worker), handed(worker)
    told(worker)
    for settled in (late, lease):
        worker.begin_settling(settled.token)
    worker.end_settling([late.token, lease.token], {lease.token})
    assert told(worker) == [Settled([lease.token]), Ended(late.token)]


def test_a_worker_is_asked_to_stop_once() -> None:
    worker = session(credit=1)
    lease = handed(worker)
    told(worker)
    worker.ask_to_stop(lease.token)
    worker.ask_to_stop(lease.token)
    worker.ask_to_stop("unknown")
    assert told(worker) == [Ended(lease.token, cancelled=True)]
    assert worker.begin_settling(lease.token) == lease, "the worker says that it stopped"


def test_leases_that_do_not_stand_are_told_but_not_those_being_settled() -> None:
    worker = session(credit=3)
    standing, gone, settling = handed(worker), handed(worker), handed(worker)
    worker.begin_settling(settling.token)
    told(worker)
    worker.drop_all_but([standing.token])
    assert told(worker) == [Ended(gone.token)]
    assert set(worker.holdings) == {standing.token, settling.token}


def test_jobs_go_to_the_workers_with_most_credit_first_and_round() -> None:
    busy, idle, closed = session(credit=1), session(credit=3), session(credit=9)
    closed.closed = True
    assert _slots([busy, idle, closed, session()]) == [idle, busy, idle, idle]


async def test_all_that_waits_is_told_at_once_and_silence_is_told_too() -> None:
    worker = session(credit=2)
    leases = [handed(worker), handed(worker)]
    told = await worker.next_messages(0)
    assert told == tuple(Leased([lease]) for lease in leases)
    assert await worker.next_messages(0.01) == ()


def test_a_worker_that_drains_has_no_credit_and_gets_none() -> None:
    worker = session(credit=2)
    worker.drain()
    assert worker.credit == 0
    assert _slots([worker]) == []
    with pytest.raises(WorkProtocolBroken):
        worker.grant(1)
