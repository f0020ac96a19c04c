"""The queue's verbs on a real PostgreSQL, many at once."""

import asyncio
import random
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row, tuple_row

from services.kit.errors import DomainError, ServiceUnavailable
from services.kit.ids import new_id
from services.queue import operations
from services.queue.bell import Bell
from services.queue.enqueuer import Enqueuer
from services.queue.heads import FIRST, Heads, Position
from services.queue.job import Failure, IdempotencyKeyReused, Job, JobState, Lease, NewJob, PlacedJob
from services.queue.operations import Settlement
from services.queue.pace import Pace, TenantShare
from services.queue.store import QUERIES, ROW_BY_ROW, STEADY_PLANS, Store
from services.queue.store.rows import ending_columns, lease_of
from tests.postgres import as_service

pytestmark = pytest.mark.usefixtures("of_the_system")

TENANT = new_id()


@pytest.fixture
def url(database: Callable[..., str]) -> str:
    return database("queue")


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with Store(as_service(url, "queue")) as made:
        yield made


def new_job(**fields: Any) -> NewJob:
    made_up: dict[str, Any] = {
        "tenant_id": TENANT,
        "kind": "test",
        "key": "",
        "payload": b"work",
        "idempotency_key": str(uuid.uuid4()),
    }
    return NewJob(**{**made_up, **fields})


async def put_each(store: Store, jobs: Sequence[NewJob]) -> list[PlacedJob | DomainError]:
    """Put jobs in as so many callers at once do."""
    found = await operations.enqueue(store, Pace(), [[job] for job in jobs])
    return [answer[0] if isinstance(answer, list) else answer for answer in found]


async def put(store: Store, **fields: Any) -> Job:
    (placed,) = await put_each(store, [new_job(**fields)])
    assert isinstance(placed, PlacedJob)
    return placed.job


async def session(store: Store, instance: str = "here") -> uuid.UUID:
    made = new_id()
    await operations.open_session(store, made, instance, "worker", ["test"])
    return made


async def claim(
    store: Store,
    workers: Sequence[uuid.UUID],
    *,
    pace: Pace | None = None,
    heads: Heads | None = None,
    kinds: Sequence[str] = ("test",),
) -> list[Lease]:
    sessions = list(dict.fromkeys(workers))
    turns = [sessions.index(worker) + 1 for worker in workers]
    leased = await operations.claim(store, pace or Pace(), heads or Heads(), kinds, sessions, turns)
    return [
        Lease(uuid.UUID(job.tenant_id), uuid.UUID(job.id), job.key, job.token, worker, job.attempt, job.max_attempts)
        for worker, jobs in leased.items()
        for job in jobs
    ]


async def take(store: Store, worker: uuid.UUID, count: int = 1) -> list[Lease]:
    return await claim(store, [worker] * count)


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, options="-c search_path=queue") as connection:
        return connection.execute(query.encode()).fetchall()


def broken_lines(url: str) -> list[tuple[Any, ...]]:
    """Lines with jobs behind a head that is not there."""
    return rows(
        url,
        "SELECT DISTINCT key FROM job AS b WHERE state = 'blocked' AND NOT EXISTS (SELECT FROM job AS h WHERE"
        " h.tenant_id = b.tenant_id AND h.key = b.key AND h.state IN ('ready', 'leased', 'retrying'))",
    )


async def test_thirty_replicas_give_one_intent_one_job(url: str) -> None:
    async def replica() -> uuid.UUID:
        async with Store(as_service(url, "queue")) as store:
            return (await put(store, idempotency_key="one", key="s")).id

    assert len(set(await asyncio.gather(*(replica() for _ in range(30))))) == 1
    assert rows(url, "SELECT count(*) FROM job") == [(1,)]


async def test_thirty_replicas_on_one_key_leave_one_head(url: str) -> None:
    async def replica(n: int) -> JobState:
        async with Store(as_service(url, "queue")) as store:
            return (await put(store, key="s", payload=str(n).encode())).state

    states = await asyncio.gather(*(replica(n) for n in range(30)))
    assert sorted(states) == [JobState.BLOCKED] * 29 + [JobState.READY]


async def test_callers_at_once_share_commits(store: Store, url: str) -> None:
    enqueuer = Enqueuer(store, Bell(), Pace())
    loop = asyncio.create_task(enqueuer.run())
    try:
        await asyncio.gather(*(enqueuer.enqueue(new_job(key=f"k{n % 7}")) for n in range(200)))
    finally:
        loop.cancel()
    ((commits,),) = rows(url, "SELECT count(DISTINCT xmin::text) FROM job")
    assert commits <= 5
    assert rows(url, "SELECT count(*) FROM job WHERE state = 'ready'") == [(7,)]


async def test_single_jobs_go_in_by_one_statement_and_others_by_a_transaction(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise AssertionError("a transaction was begun")

    monkeypatch.setattr(store.enqueueing, "transaction", refuse)
    await put(store)
    for fields in ({"key": "s"}, {"depends_on": (new_id(),)}):
        with pytest.raises(AssertionError, match="transaction"):
            await put(store, **fields)
    with pytest.raises(AssertionError, match="transaction"):
        await operations.enqueue(store, Pace(), [[new_job(), new_job()]])


async def test_a_bad_job_of_a_batch_does_not_spoil_the_others(store: Store) -> None:
    enqueuer = Enqueuer(store, Bell(), Pace())
    loop = asyncio.create_task(enqueuer.run())
    try:
        outcomes = await asyncio.gather(
            *(enqueuer.enqueue(new_job(kind=kind)) for kind in ("test", "nul\0", "test")), return_exceptions=True
        )
    finally:
        loop.cancel()
    assert [isinstance(outcome, list) for outcome in outcomes] == [True, False, True]


async def test_a_group_goes_in_whole_or_not_at_all_and_others_do_not_suffer(store: Store, url: str) -> None:
    await put(store, idempotency_key="known", payload=b"first")
    enqueuer = Enqueuer(store, Bell(), Pace())
    loop = asyncio.create_task(enqueuer.run())
    try:
        outcomes = await asyncio.gather(
            enqueuer.enqueue(new_job(), new_job()),
            enqueuer.enqueue(new_job(), new_job(idempotency_key="known", payload=b"other")),
            enqueuer.enqueue(new_job(idempotency_key="known", payload=b"first"), new_job()),
            return_exceptions=True,
        )
    finally:
        loop.cancel()
    assert [len(outcome) if isinstance(outcome, list) else type(outcome) for outcome in outcomes] == [
        2,
        IdempotencyKeyReused,
        2,
    ]
    assert rows(url, "SELECT count(*) FROM job") == [(4,)]


async def test_positions_within_and_across_batches(store: Store) -> None:
    first = await put_each(store, [new_job(key=key) for key in ("a", "b", "a", "", "a")])
    second = await put_each(store, [new_job(key=key) for key in ("b", "a")])
    assert [placed.position for placed in (*first, *second) if isinstance(placed, PlacedJob)] == [0, 0, 1, 0, 2, 1, 3]


async def test_one_batch_may_hold_an_intent_twice(store: Store) -> None:
    job = new_job(key="s")
    first, same, other = await put_each(
        store, [job, replace(job, id=new_id()), replace(job, id=new_id(), payload=b"other")]
    )
    assert first == same
    assert isinstance(first, PlacedJob)
    assert not isinstance(other, PlacedJob)


async def test_an_expired_intent_stands_for_nothing(store: Store, url: str) -> None:
    job = await put(store, idempotency_key="one")
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE queue.intent SET expire_time = now() - interval '1 second'")
    again = await put(store, idempotency_key="one", payload=b"other")
    assert again.id != job.id
    assert (await put(store, idempotency_key="one", payload=b"other")).id == again.id


async def test_thirty_claims_at_once_lease_each_job_once(url: str, store: Store) -> None:
    await put_each(store, [new_job(priority=n % 3) for n in range(100)])

    async def replica() -> list[Lease]:
        async with Store(as_service(url, "queue")) as own:
            worker = await session(own)
            found: list[Lease] = []
            while leases := await take(own, worker, 3):
                found += leases
            return found

    leases = [lease for found in await asyncio.gather(*(replica() for _ in range(30))) for lease in found]
    assert len({lease.id for lease in leases}) == len(leases) == 100
    assert len({lease.token for lease in leases}) == 100


class Turmoil:
    """Replicas that enqueue, complete, fail, cancel and lose jobs of few keys, and what a witness saw of it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._running: set[str] = set()
        self._enqueueing = 0
        self.asked: dict[str, list[uuid.UUID]] = defaultdict(list)
        self.done: dict[str, list[uuid.UUID]] = defaultdict(list)

    async def enqueue(self, store: Store, key: str) -> None:
        self._enqueueing += 1
        for n in range(25):
            job = await put(store, key=key, max_attempts=50)
            if n % 9 == 0:
                await operations.cancel_job(store, TENANT, job.id)
            self.asked[key].append(job.id)
        self._enqueueing -= 1

    async def work(self, store: Store, roll: random.Random) -> None:
        worker = await session(store)
        while True:
            taken = await claim(store, [worker] * 2)
            if not taken and not self._enqueueing and not rows(self._url, "SELECT FROM job LIMIT 1"):
                return
            keys = {lease.key for lease in taken}
            assert len(keys) == len(taken)
            assert not keys & self._running, "two of one key at once"
            self._running |= keys
            await asyncio.sleep(0.001)
            self._running -= keys
            for lease in taken:
                worker = await self._settle_somehow(store, worker, lease, roll.random())

    async def _settle_somehow(self, store: Store, worker: uuid.UUID, lease: Lease, chance: float) -> uuid.UUID:
        if chance < 0.7:
            settled = await operations.settle(store, [Settlement(lease)], [])
            if lease.token in settled.tokens:
                self.done[lease.key].append(lease.id)
        elif chance < 0.9:
            await operations.settle(store, [Settlement(lease, Failure("no", retry_delay=timedelta()))], [])
        else:
            # The other lease of this session, if there is one, is lost with it and comes again.
            await operations.settle(store, [], [worker])
            return await session(store)
        return worker


async def test_the_lines_hold_under_everything_at_once(url: str) -> None:
    turmoil = Turmoil(url)
    async with (
        Store(as_service(url, "queue")) as one,
        Store(as_service(url, "queue")) as two,
        Store(as_service(url, "queue")) as three,
        asyncio.timeout(30),
    ):
        stores = (one, two, three)
        await asyncio.gather(
            *(turmoil.enqueue(store, f"k{n}") for n, store in enumerate(stores)),
            *(turmoil.work(store, random.Random(n)) for n, store in enumerate(stores)),
        )
    assert broken_lines(url) == []
    states = dict(rows(url, "SELECT id, state::text FROM ended_job"))
    assert len(states) == 75
    assert set(states.values()) == {"completed", "cancelled"}
    for key, ids in turmoil.asked.items():
        done = [job_id for job_id in turmoil.done[key] if states[job_id] == "completed"]
        assert done == [job_id for job_id in ids if states[job_id] == "completed"], (
            "once each, in the order of the line"
        )


async def claims_of(store: Store, pace: Pace, count: int) -> list[uuid.UUID]:
    """Claim and settle jobs one after the other, and say whose they were."""
    worker, heads = await session(store), Heads()
    tenants: list[uuid.UUID] = []
    while len(tenants) < count:
        leased = await claim(store, [worker] * 10, pace=pace, heads=heads)
        assert leased
        tenants += [lease.tenant_id for lease in leased]
        await operations.settle(store, [Settlement(lease) for lease in leased])
    return tenants


async def test_a_tenant_with_a_huge_backlog_does_not_starve_small_ones(store: Store) -> None:
    pace = Pace()
    small = [new_id() for _ in range(9)]
    await operations.enqueue(store, pace, [[new_job() for _ in range(3_000)]])
    await claims_of(store, pace, 100)
    for tenant in small:
        await operations.enqueue(store, pace, [[new_job(tenant_id=tenant) for _ in range(10)]])
    served = await claims_of(store, pace, 120)
    assert all(served.count(tenant) == 10 for tenant in small)
    assert served.count(TENANT) >= 10, "and the huge one goes on meanwhile"


async def test_weights_share_the_queue(store: Store) -> None:
    pace = Pace()
    light, heavy = new_id(), new_id()
    await operations.set_share(store, TenantShare(heavy, weight=3))
    await operations.refresh_shares(store, pace)
    for tenant in (light, heavy):
        await operations.enqueue(store, pace, [[new_job(tenant_id=tenant) for _ in range(300)]])
    served = await claims_of(store, pace, 200)
    assert 145 <= served.count(heavy) <= 155


async def test_processes_agree_how_far_the_times_have_come(store: Store) -> None:
    one, two = Pace(), Pace()
    await operations.enqueue(store, one, [[new_job() for _ in range(100)]])
    await claims_of(store, one, 50)
    for pace in (one, two):
        await operations.keep_pace(store, pace, timedelta(minutes=1))
    late = new_id()
    await operations.enqueue(store, two, [[new_job(tenant_id=late)]])
    await operations.enqueue(store, two, [[new_job(payload=b"behind") for _ in range(10)]])
    served = await claims_of(store, one, 60)
    assert late not in served[:1]
    assert late in served[:20], "it came next, not before all others and not behind all of them"


async def test_no_tenant_runs_more_at_once_than_it_may_on_any_replica(store: Store, url: str) -> None:
    pace = Pace()
    await operations.enqueue(store, pace, [[new_job(kind=kind) for kind in ("test", "also") for _ in range(50)]])
    await operations.set_share(store, TenantShare(TENANT, max_in_flight=3))
    await operations.refresh_shares(store, pace)
    other = new_id()
    await operations.enqueue(store, pace, [[new_job(tenant_id=other) for _ in range(40)]])
    leased: list[Lease] = []

    async def replica() -> None:
        async with Store(as_service(url, "queue")) as own:
            worker = await session(own)
            leased.extend(await claim(own, [worker] * 20, pace=pace, kinds=("test", "also")))

    await asyncio.gather(*(replica() for _ in range(10)))
    assert len([lease for lease in leased if lease.tenant_id == TENANT]) == 3
    assert len([lease for lease in leased if lease.tenant_id == other]) == 40
    (mine, *_) = [lease for lease in leased if lease.tenant_id == TENANT]
    await operations.settle(store, [Settlement(mine)])
    assert len(await claim(store, [await session(store)] * 20, pace=pace)) == 1
    await operations.set_share(store, TenantShare(TENANT))
    await operations.refresh_shares(store, pace)
    assert len(await claim(store, [await session(store)] * 20, pace=pace)) == 20


async def test_two_replicas_that_complete_what_a_job_needs_release_it_once(url: str, store: Store) -> None:
    """Each sees the other's half undone when it looks first."""
    async with Store(as_service(url, "queue")) as other:
        for _ in range(15):
            first, second = await put(store), await put(store)
            last = await put(store, depends_on=(first.id, second.id))
            assert last.state is JobState.WAITING
            one, two = await take(store, await session(store), 2)
            settled = await asyncio.gather(
                operations.settle(store, [Settlement(one)]), operations.settle(other, [Settlement(two)])
            )
            assert [found.delayed for found in settled].count(True) == 1
            await operations.promote_due(store)
            (lease,) = await take(store, await session(store), 2)
            assert lease.id == last.id
            await operations.settle(store, [Settlement(lease)])
    assert rows(url, "SELECT count(*) FROM dependency") == [(0,)]


async def test_a_job_cannot_slip_in_behind_the_end_of_what_it_needs(url: str, store: Store) -> None:
    """One that is enqueued while its need ends is released or ends with it, and never waits for ever."""
    async with Store(as_service(url, "queue")) as other:
        for n in range(15):
            needed = await put(store)
            (lease,) = await take(store, await session(store))
            failure = Failure("no", permanent=True) if n % 2 else None
            job, _ = await asyncio.gather(
                put(other, depends_on=(needed.id,)), operations.settle(store, [Settlement(lease, failure)])
            )
            await operations.promote_due(store)
            state = (await operations.get_job(store, TENANT, job.id)).state
            assert state is (JobState.DEAD if n % 2 else JobState.READY)
            await operations.cancel_job(store, TENANT, job.id)
    assert rows(url, "SELECT count(*) FROM dependency") == [(0,)]


async def settled_states(url: str) -> list[tuple[Any, ...]]:
    return rows(url, "SELECT state::text FROM ended_job ORDER BY id")


async def test_a_settlement_whose_answer_was_lost_may_be_sent_again(store: Store, url: str) -> None:
    jobs = [await put(store) for _ in range(3)]
    leases = sorted(await take(store, await session(store), 3), key=lambda lease: lease.id)
    settlements = [
        Settlement(leases[0]),
        Settlement(leases[1], Failure("no", permanent=True)),
        Settlement(leases[2], Failure("no")),
    ]
    first = await operations.settle(store, settlements, [])
    again = await operations.settle(store, settlements, [])
    assert first.tokens == again.tokens == {lease.token for lease in leases}
    assert await settled_states(url) == [("completed",), ("dead",)]
    assert (await operations.get_job(store, TENANT, jobs[2].id)).state is JobState.RETRYING


async def test_a_settlement_after_the_lease_was_taken_is_no_settlement(store: Store, url: str) -> None:
    """Another replica reaped the session: the job is ready again, or dead, and nobody is told that it was done."""
    again, dying = await put(store), await put(store, max_attempts=1)
    leases = await take(store, await session(store), 2)
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE queue.worker_session SET expire_time = now() - interval '1 second'")
    await operations.reap(store)
    assert (await operations.settle(store, [Settlement(lease) for lease in leases], [])).tokens == set()
    assert (await operations.get_job(store, TENANT, again.id)).state is JobState.READY
    assert (await operations.get_job(store, TENANT, dying.id)).state is JobState.DEAD


async def test_a_stale_token_settles_nothing(store: Store) -> None:
    job = await put(store, key="s")
    worker = await session(store)
    (stale,) = await take(store, worker)
    await operations.settle(store, [], [worker])
    (lease,) = await take(store, await session(store))
    for failure in (None, Failure("no"), Failure("no", permanent=True)):
        settled = await operations.settle(store, [Settlement(stale, failure)], [])
        assert settled.tokens == set()
    assert (await operations.get_job(store, TENANT, job.id)).state is JobState.LEASED
    assert (await operations.settle(store, [Settlement(lease)], [])).tokens == {lease.token}


async def test_a_closed_session_gets_no_jobs(store: Store) -> None:
    await put(store)
    worker = await session(store)
    await operations.settle(store, [], [worker])
    assert await take(store, worker) == []
    assert len(await take(store, await session(store))) == 1


async def test_jobs_that_were_given_back_are_not_blamed(store: Store) -> None:
    jobs = [await put(store, max_attempts=1) for _ in range(2)]
    broken, stopped = await session(store), await session(store)
    (one,) = await take(store, broken)
    (two,) = await take(store, stopped)
    await operations.settle(store, [], [broken], [stopped])
    states = {job.id: (await operations.get_job(store, TENANT, job.id)).state for job in jobs}
    assert states == {one.id: JobState.DEAD, two.id: JobState.READY}


async def test_an_expired_session_loses_its_jobs_and_a_renewed_one_does_not(store: Store, url: str) -> None:
    lost, kept = await put(store, key="a"), await put(store, key="b")
    gone, here = await session(store), await session(store)
    await take(store, gone)
    await take(store, here)
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE queue.worker_session SET expire_time = now() - interval '1 second'")
    assert await operations.renew_sessions(store, [here]) == {here}
    settled = await operations.reap(store)
    assert len(settled.tokens) == len(settled.freed) == 1
    assert (await operations.get_job(store, TENANT, lost.id)).state is JobState.READY
    assert (await operations.get_job(store, TENANT, kept.id)).state is JobState.LEASED
    assert await operations.renew_sessions(store, [gone, here]) == {here}


async def test_a_process_reaps_no_session_whose_stream_it_has(store: Store, url: str) -> None:
    """It may have been stopped for long itself: then nobody renewed, and nobody is to blame."""
    await put(store)
    worker = await session(store)
    (lease,) = await take(store, worker)
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE queue.worker_session SET expire_time = now() - interval '1 minute'")
    assert (await operations.reap(store, [worker])).tokens == set()
    assert await operations.renew_sessions(store, [worker]) == {worker}
    assert (await operations.settle(store, [Settlement(lease)])).tokens == {lease.token}


async def test_a_renewal_waits_for_no_caller_that_has_the_pool(store: Store) -> None:
    worker = await session(store)
    async with AsyncExitStack() as busy, asyncio.timeout(5):
        for _ in range(16):
            await busy.enter_async_context(store.transaction())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), store.transaction():
                pass
        assert await operations.renew_sessions(store, [worker]) == {worker}


async def test_leases_last_fifteen_seconds(store: Store, url: str) -> None:
    await session(store)
    ((seconds,),) = rows(url, "SELECT extract(epoch FROM expire_time - now())::float FROM worker_session")
    assert 14 < seconds <= 15


async def test_an_earlier_life_is_forgotten_without_blame_and_others_are_left_alone(store: Store) -> None:
    mine, other = await put(store, max_attempts=1, key="a"), await put(store, key="b")
    await take(store, await session(store, "me"))
    await take(store, await session(store, "you"))
    assert await operations.forget_earlier_life(store, "me")
    await operations.withdraw_orphans(store)
    assert (await operations.get_job(store, TENANT, mine.id)).state is JobState.READY, "its last attempt did not fail"
    assert (await operations.get_job(store, TENANT, other.id)).state is JobState.LEASED
    assert not await operations.forget_earlier_life(store, "me")


async def test_a_worker_that_never_stops_a_cancelled_job_does_not_hold_its_line(store: Store, url: str) -> None:
    job, behind = await put(store, key="s"), await put(store, key="s")
    (lease,) = await take(store, await session(store))
    await operations.cancel_job(store, TENANT, job.id)
    await operations.reap(store)
    assert (await operations.get_job(store, TENANT, behind.id)).state is JobState.BLOCKED
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE queue.job SET cancel_time = cancel_time - interval '31 seconds' WHERE state = 'leased'"
        )
    await operations.reap(store)
    assert (await operations.get_job(store, TENANT, job.id)).state is JobState.CANCELLED
    assert (await operations.get_job(store, TENANT, behind.id)).state is JobState.READY
    assert (await operations.settle(store, [Settlement(lease)], [])).tokens == set()


async def test_a_due_job_joins_its_line_in_the_order_of_its_coming(store: Store) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    later = await put(store, key="s", run_time=soon)
    head, tail = await put(store, key="s"), await put(store, key="s")
    ready, seconds = await operations.promote_due(store)
    assert ready == []
    assert seconds is not None
    assert 0 < seconds <= 1
    await asyncio.sleep(seconds + 0.01)
    assert await operations.promote_due(store) == ([], None)
    worker = await session(store)
    order = []
    for _ in range(3):
        (lease,) = await take(store, worker, 3)
        order.append(lease.id)
        await operations.settle(store, [Settlement(lease)], [])
    assert order == [head.id, later.id, tail.id]


async def test_a_retried_dead_job_joins_its_line_at_the_end(store: Store) -> None:
    jobs = [await put(store, key="s") for _ in range(2)]
    worker = await session(store)
    (lease,) = await take(store, worker)
    await operations.settle(store, [Settlement(lease, Failure("no", permanent=True))], [])
    revived = await operations.retry_job(store, TENANT, jobs[0].id)
    assert (revived.state, revived.attempt) == (JobState.BLOCKED, 0)
    (lease,) = await take(store, worker)
    assert lease.id == jobs[1].id
    await operations.settle(store, [Settlement(lease)], [])
    (lease,) = await take(store, worker)
    assert (lease.id, lease.attempt) == (jobs[0].id, 1)


async def test_the_table_refuses_a_second_head(store: Store, url: str) -> None:
    await put(store, key="s")
    await put(store, key="s")
    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.UniqueViolation, match="job_head"):
        connection.execute("UPDATE queue.job SET state = 'ready'")


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("state = 'completed'", "job_is_live"),
        ("state = 'leased'", "job_leased_to_a_session"),
        ("session_id = gen_random_uuid()", "job_leased_to_a_session"),
        ("state = 'leased', session_id = gen_random_uuid()", "job_leased_with_a_token"),
        ("state = 'blocked'", "job_blocked_by_a_key"),
        ("cancel_time = now()", "job_cancel_waits_for_a_worker"),
        ("attempt = -1", "job_attempts_not_negative"),
    ],
)
async def test_the_table_refuses_nonsense(store: Store, url: str, change: str, constraint: str) -> None:
    await put(store)
    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.CheckViolation, match=constraint):
        connection.execute(f"UPDATE queue.job SET {change}".encode())


async def test_history_is_kept_for_a_week_and_the_dead_for_ever(store: Store, url: str) -> None:
    for _ in range(3):
        await put(store)
    done, dead, fresh = await take(store, await session(store), 3)
    await operations.settle(store, [Settlement(done), Settlement(dead, Failure("no", True)), Settlement(fresh)], [])
    assert await operations.forget(store) == 0
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE queue.ended_job SET end_time = now() - interval '8 days' WHERE id = ANY(%s)", ([done.id, dead.id],)
        )
        connection.execute(
            "UPDATE queue.intent SET expire_time = now() - interval '1 day' WHERE job_id = %s", (done.id,)
        )
    assert await operations.forget(store) == 2
    assert {row[0] for row in rows(url, "SELECT id FROM ended_job")} == {dead.id, fresh.id}
    assert rows(url, "SELECT count(*) FROM intent") == [(2,)]


async def test_a_line_to_the_database_heals_itself(store: Store, url: str) -> None:
    await put(store)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'oiab-queue' AND datname = current_database() AND pid <> pg_backend_pid()"
        )
    with pytest.raises(ServiceUnavailable):
        await put(store)
    assert (await put(store)).state is JobState.READY


def test_the_busy_loops_touch_only_the_jobs_they_name(url: str) -> None:
    """Whatever the depth of the queue and its statistics, which are none here."""
    options = f"-c search_path=queue {STEADY_PLANS} {ROW_BY_ROW}"
    with psycopg.connect(url, options=options, autocommit=True) as connection:
        fill(connection, jobs=20_000, keys=500)
        worker = new_id()
        connection.execute("INSERT INTO worker_session VALUES (%s, 'i', 'w', '{test}', now(), now())", (worker,))
        everything: dict[str, Any] = {
            "kinds": ["test"],
            "lanes": [0],
            "rooms": [400],
            "priorities": [FIRST[0]],
            "vts": [FIRST[1]],
            "session_ids": [worker],
            "turns": "{" + ",".join(["1"] * 400) + "}",
            "count": 100,
        }
        claimed = list(connection.cursor(row_factory=tuple_row).execute(QUERIES["claim_jobs"], everything))
        leases = connection.cursor(row_factory=dict_row).execute(
            QUERIES["leases_of"], {"session_ids": [worker], "count": 20}
        )
        some = [lease_of(row) for row in leases]
        assert len(claimed) == 400
        everything |= ending_columns([(lease, lease.completed()) for lease in some])
        everything |= {"keys": [lease.key for lease in some], "delays": [timedelta()] * 20}
        for query in BUSY:
            everything["states"] = ["ready" if query == "requeue_leases" else "completed"] * 20
            with connection.transaction(force_rollback=True):
                explained = connection.execute(
                    f"EXPLAIN (ANALYZE, FORMAT JSON) {QUERIES[query]}".encode(), everything
                ).fetchone()
            assert explained
            assert most_rows(explained[0][0]["Plan"]) <= 1_000, query


BUSY = (
    "claim_jobs",
    "complete_leases",
    "lock_dependents",
    "release_jobs",
    "overdue_jobs",
    "next_deadline",
    "end_leases",
    "requeue_leases",
    "lock_leases",
    "settled_before",
    "promote_keys",
    "find_jobs",
    "leases_of",
    "cancelled_leases",
    "make_due_jobs_ready",
    "due_keyed_jobs",
    "next_due_time",
)


def index_blocks(plan: dict[str, Any], index: str) -> int:
    """How many blocks of the table and of an index were looked at on the way through that index."""
    if plan.get("Index Name") == index:
        return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])
    return sum(index_blocks(below, index) for below in plan.get("Plans", []))


def blocks_of_claim(connection: psycopg.Connection[Any], worker: uuid.UUID, begin: Position, count: int = 500) -> int:
    """How many blocks a claim looks at to find its jobs."""
    asked = {"kinds": ["test"], "lanes": [0], "rooms": [count], "priorities": [begin[0]], "vts": [begin[1]]}
    with connection.transaction(force_rollback=True):
        explained = connection.execute(
            f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {QUERIES['claim_jobs']}".encode(),
            asked | {"session_ids": [worker], "turns": "{" + ",".join(["1"] * count) + "}"},
        ).fetchone()
    assert explained
    return index_blocks(explained[0][0]["Plan"], "job_ready")


@contextmanager
def planned_as_the_claim(url: str) -> Iterator[psycopg.Connection[Any]]:
    options = f"-c search_path=queue {STEADY_PLANS} {ROW_BY_ROW}"
    with psycopg.connect(url, options=options, autocommit=True) as connection:
        yield connection


async def test_a_claim_looks_at_as_much_of_a_deep_queue_as_of_a_shallow_one(store: Store, url: str) -> None:
    worker = await session(store)
    with planned_as_the_claim(url) as connection:
        fill(connection, jobs=1_000, keys=1_000)
        shallow = blocks_of_claim(connection, worker, FIRST)
        fill(connection, jobs=200_000, keys=200_000, first_key=1_000)
        assert blocks_of_claim(connection, worker, FIRST) <= 1.3 * shallow


async def test_a_claim_walks_through_no_garbage_while_an_old_transaction_looks(store: Store, url: str) -> None:
    worker = await session(store)
    heads, pace = Heads(), Pace()
    with planned_as_the_claim(url) as connection, psycopg.connect(url) as old:
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM queue.job")
        for _ in range(5):
            await operations.enqueue(store, pace, [[new_job() for _ in range(1_000)]])
        fresh = blocks_of_claim(connection, worker, FIRST)
        for _ in range(8):
            leased = await claim(store, [worker] * 500, pace=pace, heads=heads)
            await operations.settle(store, [Settlement(lease) for lease in leased])
        (begin,) = heads.begin([("test", 0)])
        assert blocks_of_claim(connection, worker, begin) <= 1.3 * fresh
        assert blocks_of_claim(connection, worker, FIRST) > 5 * fresh, "what the position spares"


def fill(connection: psycopg.Connection[Any], jobs: int, keys: int, first_key: int = 0) -> None:
    connection.execute(
        "INSERT INTO job (tenant_id, id, kind, key, state, priority, max_attempts, run_time, idempotency_key,"
        " trace_parent, payload) SELECT %(tenant)s, uuidv7(), 'test', 'k' || n %% %(keys)s + %(first_key)s,"
        " CASE WHEN n < %(keys)s THEN 'ready' ELSE 'blocked' END::job_state, 0, 5, now(), '', '', ''"
        " FROM generate_series(0, %(jobs)s - 1) AS n",
        {"tenant": TENANT, "keys": keys, "jobs": jobs, "first_key": first_key},
    )


def most_rows(plan: dict[str, Any]) -> Any:
    """The most rows that one step of a plan read or threw away."""
    loops = plan["Actual Loops"]
    removed = plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Join Filter", 0)
    return max(plan["Actual Rows"] * loops, removed * loops, *(most_rows(below) for below in plan.get("Plans", [])), 0)
