"""What becomes of a job when its lease ends, without a database."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orginabox.queue.v1 import job_pb2

from services.kit.ids import new_id
from services.queue.job import (
    DELAYED,
    ENDED,
    LONGEST_BACKOFF,
    LONGEST_RETRY_DELAY,
    Failure,
    JobState,
    Lease,
    NewJob,
    backoff,
)
from services.queue.mapping import STATE_TO_PROTO, states_from_proto

LEASE = Lease(new_id(), new_id(), "key", str(new_id()), new_id(), attempt=1, max_attempts=3)
LAST = replace(LEASE, attempt=3)
CANCELLED = replace(LEASE, cancelled=True)


def test_a_completed_job_is_completed_unless_it_was_cancelled() -> None:
    assert LEASE.completed().state is JobState.COMPLETED
    assert CANCELLED.completed().state is JobState.CANCELLED


def test_a_failure_waits_for_the_next_attempt() -> None:
    outcome = LEASE.failed(Failure("no"), 0.5)
    assert (outcome.state, outcome.error, outcome.delay) == (JobState.RETRYING, "no", timedelta(seconds=1))


@pytest.mark.parametrize(
    ("lease", "failure"),
    [(LAST, Failure("no")), (LAST, Failure("no", retry_delay=timedelta())), (LEASE, Failure("no", True))],
)
def test_the_last_attempt_and_a_permanent_failure_are_death(lease: Lease, failure: Failure) -> None:
    outcome = lease.failed(failure, 0.5)
    assert (outcome.state, outcome.error) == (JobState.DEAD, "no")


@pytest.mark.parametrize(
    ("asked", "given_"),
    [
        (timedelta(seconds=7), timedelta(seconds=7)),
        (timedelta(days=400), LONGEST_RETRY_DELAY),
    ],
)
def test_a_worker_may_choose_the_delay_within_bounds(asked: timedelta, given_: timedelta) -> None:
    outcome = LEASE.failed(Failure("no", retry_delay=asked), 0.9)
    assert (outcome.state, outcome.delay) == (JobState.RETRYING, given_)


@pytest.mark.parametrize("delay", [timedelta(), timedelta(seconds=-5)])
def test_no_delay_is_ready_at_once(delay: timedelta) -> None:
    assert LEASE.failed(Failure("no", retry_delay=delay), 0.9).state is JobState.READY


def test_a_lost_worker_costs_an_attempt() -> None:
    assert LEASE.lost().state is JobState.READY
    assert LAST.lost().state is JobState.DEAD
    assert LAST.lost().error


def test_a_lease_that_the_queue_dropped_costs_nothing() -> None:
    assert LAST.withdrawn().state is JobState.READY


def test_a_cancelled_job_ends_however_its_lease_does() -> None:
    outcomes = [CANCELLED.failed(Failure("no"), 0.5), CANCELLED.lost(), CANCELLED.withdrawn(), CANCELLED.completed()]
    assert {outcome.state for outcome in outcomes} == {JobState.CANCELLED}


def test_errors_are_cut() -> None:
    assert len(LEASE.failed(Failure("x" * 10_000), 0.5).error) == 4_000


@given(attempt=st.integers(1, 100), roll=st.floats(0, 1))
def test_back_off_grows_within_bounds(attempt: int, roll: float) -> None:
    delay = backoff(attempt, roll)
    assert timedelta(seconds=0.75) <= delay <= LONGEST_BACKOFF * 1.25
    assert backoff(attempt + 1, roll) >= delay


def test_back_off_doubles_and_spreads() -> None:
    assert [backoff(n, 0.5).total_seconds() for n in (1, 2, 3, 4, 11)] == [1, 2, 4, 8, 600]
    assert backoff(1, 0.0) < backoff(1, 1.0)


@given(st.tuples(st.text(), st.text(), st.binary()), st.tuples(st.text(), st.text(), st.binary()))
def test_the_digest_tells_jobs_apart(one: tuple[str, str, bytes], two: tuple[str, str, bytes]) -> None:
    def digest(parts: tuple[str, str, bytes]) -> bytes:
        kind, key, payload = parts
        return NewJob(new_id(), kind, key, payload, "same").digest()

    assert (digest(one) == digest(two)) == (one == two)


def test_parts_of_a_job_do_not_run_into_each_other() -> None:
    one = NewJob(new_id(), "ab", "c", b"", "same")
    assert one.digest() != replace(one, kind="a", key="bc").digest()


def test_every_state_has_its_word_on_the_wire() -> None:
    assert set(STATE_TO_PROTO) == set(JobState)
    assert set(STATE_TO_PROTO.values()) == set(job_pb2.JobState.values()) - {job_pb2.JOB_STATE_UNSPECIFIED}
    for state in JobState:
        assert job_pb2.JobState.Name(STATE_TO_PROTO[state]) == f"JOB_STATE_{state.word.upper()}"


def test_a_filter_finds_every_state_behind_its_word() -> None:
    assert set(states_from_proto(job_pb2.JOB_STATE_DELAYED)) == DELAYED
    assert states_from_proto(job_pb2.JOB_STATE_UNSPECIFIED) == []
    assert not DELAYED & ENDED
