"""What is killed comes back, and the jobs do not notice: each once, in order, none lost, none left."""

import asyncio
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.faults.queue.rig import Process, Rig, fault_rig, until

KEYS = 20
JOBS_PER_KEY = 15


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with fault_rig() as made:
        yield made


async def enqueue_in_order(rig: Rig, key: str) -> list[str]:
    """Put the jobs of one key in over some seconds, one after the other, and say which were acknowledged."""
    acknowledged = []
    for n in range(JOBS_PER_KEY):
        acknowledged.append((await rig.enqueue("0.08", key=key, idempotency_key=f"{key}-{n}")).job_id)
        await asyncio.sleep(0.35)
    return acknowledged


async def load_under(rig: Rig, fault: Callable[[], Awaitable[None]]) -> None:
    """Put jobs in and have two workers do them while faults happen; then check what became of them."""
    for name in ("a", "b"):
        rig.worker(name)
    enqueueing = [asyncio.create_task(enqueue_in_order(rig, f"key-{n}")) for n in range(KEYS)]
    await fault()
    assert len(rig.rows("SELECT FROM effect")) < KEYS * JOBS_PER_KEY, "the faults came while there was work"
    acknowledged = {f"key-{n}": ids for n, ids in enumerate(await asyncio.gather(*enqueueing))}
    await rig.drained()
    check(rig, acknowledged)


def check(rig: Rig, acknowledged: dict[str, list[str]]) -> None:
    effects: dict[str, list[str]] = defaultdict(list)
    for key, job_id in rig.rows("SELECT key, job_id FROM effect ORDER BY place"):
        effects[str(key)].append(str(job_id))
    assert effects == acknowledged, "each job once, in the order of its key"
    ended = rig.rows("SELECT state::text, count(*) FROM queue.ended_job GROUP BY state")
    assert ended == [("completed", KEYS * JOBS_PER_KEY)]
    runs = len(rig.runs())
    print(f"\n{KEYS * JOBS_PER_KEY} jobs, {runs} runs")
    assert runs < 2 * KEYS * JOBS_PER_KEY, "a fault repeats what ran, not everything"


async def test_queue_is_killed_again_and_again(rig: Rig) -> None:
    async def kills() -> None:
        queue = rig.queue()
        for _ in range(4):
            await asyncio.sleep(1.7)
            queue.kill()
            queue.start()

    await load_under(rig, kills)


async def test_postgres_crashes_and_recovers(rig: Rig) -> None:
    async def crashes() -> None:
        rig.queue()
        await asyncio.sleep(1.5)
        for _ in range(2):
            await asyncio.sleep(0.7)
            rig.server.stop(signal.SIGQUIT)
            await asyncio.sleep(0.3)
            await rig.server.start()

    await load_under(rig, crashes)


async def test_workers_are_killed_again_and_again(rig: Rig) -> None:
    async def kills() -> None:
        rig.queue()
        workers = [rig.worker(name) for name in ("c", "d")]
        for n in range(4):
            await rig.works(workers[n % 2])
            workers[n % 2].kill()
            workers[n % 2].start()

    await load_under(rig, kills)


async def test_a_killed_worker_loses_its_job_to_another_within_a_second(rig: Rig) -> None:
    rig.queue()
    workers: dict[str, Process] = {name: rig.worker(name) for name in ("a", "b")}
    job = await rig.enqueue("30", key="s")
    name = (await rig.first_run(job))[0]
    await until(lambda: len(rig.rows("SELECT FROM queue.worker_session")) == 2)
    killed = time.monotonic()
    workers[name].kill()
    again = await rig.first_run(job, attempt=2)
    assert time.monotonic() - killed < 10, "not after a lease of 15 s"
    assert again[0] != name


async def test_a_worker_that_is_killed_costs_an_attempt(rig: Rig) -> None:
    rig.queue()
    job = await rig.enqueue("30", max_attempts=2)
    for attempt in (1, 2):
        worker = rig.worker("a")
        await rig.first_run(job, attempt)
        worker.kill()
    await until(lambda: rig.rows("SELECT FROM queue.ended_job WHERE state = 'dead'"), 3)


async def test_a_queue_that_was_killed_gives_its_jobs_out_as_soon_as_it_is_back(rig: Rig) -> None:
    queue = rig.queue()
    rig.worker("a")
    job = await rig.enqueue("30", key="s")
    await rig.first_run(job)
    queue.kill()
    queue.start()
    await until(lambda: rig.queue_log().count('"serving"') == 2)
    back = time.monotonic()
    await rig.first_run(job, attempt=2)
    assert time.monotonic() - back < 10, "not after a lease of 15 s"


async def test_queue_and_worker_stop_when_told_and_leave_nothing_behind(rig: Rig) -> None:
    queue = rig.queue()
    worker = rig.worker("a")
    quick, slow = await rig.enqueue("0.5"), await rig.enqueue("30")
    await rig.first_run(quick)
    await rig.first_run(slow)
    started = time.monotonic()
    assert worker.end() == 0
    assert time.monotonic() - started < 12
    await asyncio.sleep(0.3)
    assert rig.rows("SELECT id::text, state::text FROM queue.job") == [(slow.job_id, "ready")]
    assert rig.rows("SELECT id::text, state::text FROM queue.ended_job") == [(quick.job_id, "completed")]
    rig.worker("b")
    await rig.first_run(slow, attempt=2)
    started = time.monotonic()
    assert queue.end() == 0
    assert time.monotonic() - started < 12
    assert rig.rows("SELECT state::text FROM queue.job") == [("ready",)]
    assert rig.rows("SELECT FROM queue.worker_session") == []
