"""The queue's nouns on the wire, field by field."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import groupby
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from orginabox.queue.v1 import job_pb2, queue_service_pb2, schedule_pb2, stats_pb2

from services.kit.ids import new_id
from services.queue.job import (
    DEFAULT_MAX_ATTEMPTS,
    LONGEST_RETRY_DELAY,
    Failure,
    InvalidJob,
    Job,
    JobState,
    KindStats,
    LeasedJob,
    NewJob,
    PlacedJob,
)
from services.queue.operations import LEASE_DURATION
from services.queue.pace import TenantShare
from services.queue.schedule import NOT_YET, Schedule
from services.queue.work_session import Ended, Leased, Settled, WorkSession

STATE_TO_PROTO: dict[JobState, job_pb2.JobState.ValueType] = {
    JobState.SCHEDULED: job_pb2.JOB_STATE_DELAYED,
    JobState.WAITING: job_pb2.JOB_STATE_BLOCKED,
    JobState.BLOCKED: job_pb2.JOB_STATE_BLOCKED,
    JobState.READY: job_pb2.JOB_STATE_READY,
    JobState.LEASED: job_pb2.JOB_STATE_LEASED,
    JobState.RETRYING: job_pb2.JOB_STATE_DELAYED,
    JobState.COMPLETED: job_pb2.JOB_STATE_COMPLETED,
    JobState.DEAD: job_pb2.JOB_STATE_DEAD,
    JobState.CANCELLED: job_pb2.JOB_STATE_CANCELLED,
}

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
EARLIEST = -62_135_596_800
LATEST = 253_402_300_799
"""The years 1 to 9999, which is all that a Timestamp may say."""

LARGE_MESSAGE_BYTES = 512 * 1024
SMALL_JOB_BYTES = 512
"""What a job without payload takes on the wire, about."""


def states_from_proto(state: job_pb2.JobState.ValueType) -> list[JobState]:
    """The states behind a filter; none means every state."""
    return [ours for ours, theirs in STATE_TO_PROTO.items() if theirs == state]


def job_to_proto(job: Job, *, payload: bool = True) -> job_pb2.Job:
    """A job on the wire, with its payload or without."""
    return job_pb2.Job(
        job_id=str(job.id),
        tenant_id=_tenant_text(job.tenant_id),
        kind=job.kind,
        key=job.key,
        state=STATE_TO_PROTO[job.state],
        priority=job.priority,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        payload=job.payload if payload else b"",
        idempotency_key=job.idempotency_key,
        run_time=_timestamp(job.run_time),
        create_time=_timestamp(job.create_time),
        end_time=_timestamp(job.end_time) if job.end_time else None,
        last_error=job.last_error,
        trace_parent=job.trace_parent,
        deadline=_timestamp(job.deadline) if job.deadline else None,
        depends_on=map(str, job.depends_on),
    )


def placed_to_proto(placed: PlacedJob) -> queue_service_pb2.EnqueueJobResponse:
    """The answer to an enqueue."""
    return queue_service_pb2.EnqueueJobResponse(job=job_to_proto(placed.job), position=placed.position)


def placed_without_payload(placed: PlacedJob) -> queue_service_pb2.EnqueueJobResponse:
    """The answer to one enqueue of many."""
    return queue_service_pb2.EnqueueJobResponse(job=job_to_proto(placed.job, payload=False), position=placed.position)


def new_job_from_proto(request: queue_service_pb2.EnqueueJobRequest) -> NewJob:
    """The job that a request asks for."""
    return NewJob(
        id=new_id(),
        tenant_id=_tenant(request.tenant_id),
        kind=request.kind,
        key=_text("key", request.key),
        payload=request.payload,
        idempotency_key=_text("idempotencyKey", request.idempotency_key),
        priority=request.priority,
        max_attempts=request.max_attempts or DEFAULT_MAX_ATTEMPTS,
        run_time=_time("runTime", request.run_time) if request.HasField("run_time") else None,
        trace_parent=_text("traceParent", request.trace_parent),
        deadline=_time("deadline", request.deadline) if request.HasField("deadline") else None,
        depends_on=tuple(map(UUID, request.depends_on)),
    )


def name_from_proto(name: str) -> str:
    """The name of a kind or of a schedule."""
    return _text("name", name)


def stats_to_proto(stats: KindStats) -> stats_pb2.QueueStats:
    """How the jobs of one kind stand."""
    found = stats_pb2.QueueStats(
        kind=stats.kind,
        paused=stats.paused,
        ready=stats.ready,
        blocked=stats.blocked,
        delayed=stats.delayed,
        leased=stats.leased,
        dead=stats.dead,
    )
    if stats.oldest_age is not None:
        found.oldest_age.FromTimedelta(stats.oldest_age)
    return found


def schedule_from_proto(schedule: schedule_pb2.Schedule) -> Schedule:
    """The schedule that a request asks for. Its next tick is not known yet."""
    return Schedule(
        tenant_id=UUID(schedule.tenant_id),
        name=schedule.name,
        cron=_text("schedule.cron", schedule.cron),
        time_zone=_text("schedule.timeZone", schedule.time_zone),
        kind=schedule.kind,
        key=_text("schedule.key", schedule.key),
        payload=schedule.payload,
        next_time=NOT_YET,
    )


def schedule_to_proto(schedule: Schedule) -> schedule_pb2.Schedule:
    """A schedule on the wire."""
    return schedule_pb2.Schedule(
        tenant_id=str(schedule.tenant_id),
        name=schedule.name,
        cron=schedule.cron,
        time_zone=schedule.time_zone,
        kind=schedule.kind,
        key=schedule.key,
        payload=schedule.payload,
        next_time=_timestamp(schedule.next_time),
    )


def share_from_proto(request: queue_service_pb2.SetTenantShareRequest) -> TenantShare:
    """What a tenant is to get."""
    return TenantShare(UUID(request.tenant_id), request.weight or 1, request.max_in_flight)


def session_from_proto(hello: queue_service_pb2.WorkerHello) -> WorkSession:
    """The session of a worker that says hello."""
    return WorkSession(_text("workerId", hello.worker_id), frozenset(hello.kinds))


def settlements_from_proto(settle: queue_service_pb2.Settlements) -> tuple[Sequence[str], dict[str, Failure]]:
    """The tokens of the jobs that are done, and why others failed."""
    return settle.completed, {failed.lease_token: failure_from_proto(failed) for failed in settle.failed}


def failure_from_proto(fail: queue_service_pb2.JobFailure) -> Failure:
    """What a worker says of a failed attempt."""
    delay = _delay(fail.retry_delay) if fail.HasField("retry_delay") else None
    return Failure(fail.error.replace("\0", ""), fail.permanent, delay)


def welcome_to_proto(session: WorkSession) -> queue_service_pb2.WorkResponse:
    """The first word to a worker."""
    welcome = queue_service_pb2.WorkerWelcome(worker_session_id=str(session.id))
    welcome.lease_duration.FromTimedelta(LEASE_DURATION)
    return queue_service_pb2.WorkResponse(welcome=welcome)


def messages_to_proto(messages: Sequence[Leased | Settled | Ended]) -> Iterator[queue_service_pb2.WorkResponse]:
    """Messages to a worker, in order: neighbours of one sort share one message of the stream."""
    for kind, group in groupby(messages, type):
        if kind is Leased:
            yield from _leases_to_proto(job for message in group if isinstance(message, Leased) for job in message.jobs)
        elif kind is Settled:
            tokens = [token for message in group if isinstance(message, Settled) for token in message.tokens]
            yield queue_service_pb2.WorkResponse(settled=queue_service_pb2.JobsSettled(lease_tokens=tokens))
        else:
            for ended in (_ended_to_proto(message) for message in group if isinstance(message, Ended)):
                yield queue_service_pb2.WorkResponse(lease_ended=ended)


def _leases_to_proto(jobs: Iterable[LeasedJob]) -> Iterator[queue_service_pb2.WorkResponse]:
    """Leases, as many in one message of the stream as fit well."""
    part: list[LeasedJob] = []
    size = 0
    for job in jobs:
        if size > LARGE_MESSAGE_BYTES:
            yield queue_service_pb2.WorkResponse(leases=_columns(part))
            part, size = [], 0
        part.append(job)
        size += len(job.payload) + SMALL_JOB_BYTES
    yield queue_service_pb2.WorkResponse(leases=_columns(part))


def _columns(jobs: Sequence[LeasedJob]) -> queue_service_pb2.JobLeases:
    """The same jobs, a column for each of their fields."""
    columns = dict(zip(LeasedJob._fields, zip(*jobs, strict=True), strict=True))
    return queue_service_pb2.JobLeases(
        lease_tokens=columns["token"],
        job_ids=columns["id"],
        tenant_ids=columns["tenant_id"],
        kinds=columns["kind"],
        keys=columns["key"],
        payloads=columns["payload"],
        attempts=columns["attempt"],
        max_attempts=columns["max_attempts"],
        idempotency_keys=columns["idempotency_key"],
        trace_parents=columns["trace_parent"],
    )


def _ended_to_proto(message: Ended) -> queue_service_pb2.LeaseEnded:
    return queue_service_pb2.LeaseEnded(lease_token=message.token, cancelled=message.cancelled)


def _text(name: str, value: str) -> str:
    """A text that the database can keep."""
    if "\0" in value:
        raise InvalidJob(f"{name}: must not contain the character NUL", field=name)
    return value


@lru_cache(1024)
def _tenant(text: str) -> UUID:
    return UUID(text)


@lru_cache(1024)
def _tenant_text(tenant_id: UUID) -> str:
    return str(tenant_id)


@lru_cache(1024)
def _timestamp(value: datetime) -> Timestamp:
    """Like FromDatetime, in a third of its time. Jobs of one commit share it: a message that takes it copies it."""
    micros = (value - EPOCH) // MICROSECOND
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1_000)


def _time(name: str, value: Timestamp) -> datetime:
    if not EARLIEST <= value.seconds <= LATEST or not 0 <= value.nanos < 10**9:
        raise InvalidJob(f"{name}: must be a time in the years 1 to 9999", field=name)
    return value.ToDatetime(UTC)


def _delay(value: Duration) -> timedelta:
    """A delay, cut to what the queue allows."""
    longest = LONGEST_RETRY_DELAY.total_seconds()
    return timedelta(seconds=min(max(value.seconds + value.nanos / 1e9, 0.0), longest))
