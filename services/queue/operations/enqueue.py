"""Jobs on their way in."""

from collections.abc import Mapping, Sequence
from itertools import islice
from uuid import UUID

from services.kit.errors import DomainError
from services.queue.job import (
    IdempotencyKeyReused,
    NewJob,
    PlacedJob,
)
from services.queue.operations.dependencies import depend, needs
from services.queue.pace import Pace
from services.queue.store import QueueTransaction, Store


async def enqueue(store: Store, pace: Pace, groups: Sequence[Sequence[NewJob]]) -> list[list[PlacedJob] | DomainError]:
    """Put groups of jobs in, all in one commit. A repeated intent gives the first job.

    Returns:
        For each group its jobs, or the refusal of a group of one.

    Raises:
        DomainError: A job of a larger group was refused. None is put in, of any group.
    """
    async with store.enqueueing.statement() if _loose(groups) else store.enqueueing.transaction() as tx:
        answers = iter(await _put(tx, pace, [job for group in groups for job in group]))
        return [_whole(list(islice(answers, len(group)))) for group in groups]


def _loose(groups: Sequence[Sequence[NewJob]]) -> bool:
    """Whether these jobs go in by one statement, which saves the way to the database and back before it and after it.

    So do those that stand in no line, depend on nothing, and do not have to go in or stay out together.
    """
    return all(len(group) == 1 and not group[0].key and not group[0].depends_on for group in groups)


def _whole(answers: list[PlacedJob | DomainError]) -> list[PlacedJob] | DomainError:
    placed = [answer for answer in answers if isinstance(answer, PlacedJob)]
    if len(placed) == len(answers):
        return placed
    refusal = next(answer for answer in answers if isinstance(answer, DomainError))
    if placed:
        raise refusal
    return refusal


async def _put(tx: QueueTransaction, pace: Pace, jobs: Sequence[NewJob]) -> list[PlacedJob | DomainError]:
    """Put jobs in, or answer with those that stand for the same intents, or refuse."""
    first: dict[tuple[UUID, str], NewJob] = {}
    for job in jobs:
        first.setdefault(job.intent, job)
    asked = list(first.values())
    await tx.lock_keys((job.tenant_id, job.key) for job in asked)
    needed = await needs(tx, [job for job in asked if job.depends_on])
    able = [job for job in asked if job.id not in needed.refused] if needed.refused else asked
    placed = await tx.enqueue(able, [pace.stamp(job) for job in able])
    if needed.states:
        placed |= await depend(tx, [job for job in able if job.depends_on and job.id in placed], needed)
    repeats = [job for job in jobs if job.id not in placed]
    if not repeats:
        return [placed[job.id] for job in jobs]
    return await _answer_repeats(tx, jobs, placed, needed.refused, repeats)


async def _answer_repeats(
    tx: QueueTransaction,
    jobs: Sequence[NewJob],
    placed: Mapping[UUID, PlacedJob],
    refused: Mapping[UUID, DomainError],
    repeats: Sequence[NewJob],
) -> list[PlacedJob | DomainError]:
    known = await tx.known_intents({job.intent for job in repeats})
    found = await tx.find_jobs({(job.tenant_id, known[job.intent][0]) for job in repeats if job.intent in known})

    def answer(job: NewJob) -> PlacedJob | DomainError:
        if job.id in placed:
            return placed[job.id]
        if job.intent not in known:
            return next(refused[twin.id] for twin in repeats if twin.intent == job.intent and twin.id in refused)
        job_id, digest = known[job.intent]
        if digest != job.digest() or job_id not in found:
            return IdempotencyKeyReused(
                "this idempotency key was used for another job; choose a new one for a new intent",
                idempotencyKey=job.idempotency_key,
            )
        return found[job_id]

    return [answer(job) for job in jobs]
