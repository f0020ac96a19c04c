"""Verifies the log: every chain, every checkpoint, and what was published.

The database hashes in sets (verify_queries.sql) and returns only what is wrong; two stretches are on their way at a
time. What a full verification has found whole is kept with its checkpoint in a file beside the signing key, so that the
next one begins there; `full` begins at the first record.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from time import monotonic
from uuid import UUID

from services.audit import metrics
from services.audit.checkpoint import Checkpoint, NoteInvalid
from services.audit.checkpoint_store import Stored
from services.audit.damage import Damage, Kind, Report
from services.audit.merkle import Head, root_of
from services.audit.notary import Notary
from services.audit.record import Filter
from services.audit.seal import GENESIS
from services.audit.store import Store, StoreTransaction
from services.audit.verify_store import Suspect

STRETCH = 20_000
AT_ONCE = 2
MOST_DAMAGES = 20
_NOTES = 500

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Start:
    """Where an incremental verification begins: a checkpoint that was verified whole, and its ends of chains."""

    checkpoint: Checkpoint | None
    heads: dict[UUID, Head]

    @property
    def size(self) -> int:
        """The size of the checkpoint; 0 for the beginning."""
        return self.checkpoint.size if self.checkpoint else 0


BEGINNING = Start(None, {})


class Verifier:
    """Verifies the log of this installation.

    Args:
        store: The log.
        notary: Who signs it.
        marks: The folder of the files that remember what was verified, one for each tenant and one for all.
    """

    def __init__(self, store: Store, notary: Notary, marks: Path) -> None:
        self._store = store
        self._notary = notary
        self._marks = marks

    async def verify(self, tenant_id: UUID | None, progress: Progress, *, full: bool = False) -> Report:
        """Verify one tenant's chain or all of them, with the checkpoints.

        Args:
            tenant_id: Whose chain. None means everybody's.
            progress: Told how many records were looked at so far.
            full: Whether to begin at the first record.
        """
        began, report = monotonic(), Report()
        start = BEGINNING if full else await self._start(tenant_id, report)
        last = await self._checkpoints(start, report)
        async with self._store.transaction() as tx:
            tenants = [found for found in await tx.inspection.chains() if tenant_id in {None, found}]
        for tenant in tenants:
            report.damages += await self._chain(tenant, start, report, progress)
        report.damages += await self._notary.check_published()
        if report.whole and last:
            await asyncio.to_thread(self._remember, self._mark(tenant_id), last)
        metrics.VERIFIED.observe(monotonic() - began)
        for kind in Kind:
            metrics.DAMAGE.labels(kind.name).set(sum(damage.kind is kind for damage in report.damages))
        return report

    def _mark(self, tenant_id: UUID | None) -> Path:
        return self._marks / str(tenant_id or "all")

    async def _start(self, tenant_id: UUID | None, report: Report) -> Start:
        """The last checkpoint that was verified, if the database still has it as it was."""
        starts = [await self._start_at(mark, report) for mark in {self._mark(None), self._mark(tenant_id)}]
        return max(starts, key=lambda start: start.size)

    async def _start_at(self, mark: Path, report: Report) -> Start:
        try:
            note = await asyncio.to_thread(mark.read_text)
        except OSError:
            return BEGINNING
        try:
            verified = self._notary.key.read(note)
        except NoteInvalid as error:
            report.damages.append(Damage(Kind.CHECKPOINT_FORGED, 0, f"the mark of what was verified: {error}"))
            return BEGINNING
        async with self._store.transaction() as tx:
            stored = await tx.checkpoints.find(verified.size)
            heads = await tx.checkpoints.heads_at(verified.size)
        if stored is None or stored[1] != note:
            told = f"the checkpoint over {verified.size} records was verified before, and the database does not know it"
            report.damages.append(Damage(Kind.ROLLED_BACK, verified.size, told))
            return BEGINNING
        if root_of([head.leaf() for head in heads]) != verified.root:
            told = "the ends of chains are not the ones that were signed"
            report.damages.append(Damage(Kind.CHECKPOINT_FORGED, verified.size, told))
            return BEGINNING
        return Start(verified, {head.tenant_id: head for head in heads})

    @staticmethod
    def _remember(mark: Path, checkpoint: Checkpoint) -> None:
        mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = mark.with_name(f".{mark.name}.new")
        draft.touch(mode=0o600)
        draft.write_text(checkpoint.note)
        draft.replace(mark)

    async def _checkpoints(self, start: Start, report: Report) -> Checkpoint | None:
        """Verify the checkpoints after the start, each by its signature, its root and the one before it."""
        heads, before = dict(start.heads), start.checkpoint
        while True:
            after = before.size if before else 0
            async with self._store.transaction() as tx:
                notes = await tx.checkpoints.after(after, _NOTES)
                moved = await tx.checkpoints.moved(after, notes[-1][0]) if notes else {}
            for size, note, time in notes:
                heads |= moved.get(size, {})
                try:
                    before = self._checked((size, note, time), heads, before)
                except NoteInvalid as error:
                    report.damages.append(Damage(Kind.CHECKPOINT_FORGED, size, str(error)))
                    return None
                report.checkpoints += 1
                report.size = size
            if len(notes) < _NOTES:
                return before

    def _checked(self, stored: Stored, heads: dict[UUID, Head], before: Checkpoint | None) -> Checkpoint:
        found = self._notary.key.read(stored[1])
        if (found.size, found.time) != (stored[0], stored[2]):
            raise NoteInvalid(f"it stands under the size {stored[0]} or a time that it does not say")
        if found.previous != (before.digest if before else sha256(b"").digest()):
            raise NoteInvalid("the checkpoint before it is not the one that it names")
        if found.root != root_of([heads[tenant].leaf() for tenant in sorted(heads)]):
            raise NoteInvalid("the ends of chains are not the ones that were signed")
        return found

    async def _chain(self, tenant_id: UUID, start: Start, report: Report, progress: Progress) -> list[Damage]:
        """What is wrong with a tenant's chain, the first first."""
        known = start.heads.get(tenant_id)
        first = known.sequence + 1 if known else 1
        async with self._store.transaction() as tx:
            ends = await self._ends(tx, tenant_id, start)
            end = await tx.inspection.end(tenant_id)
        last = max(end.sequence, end.last_record) if end else 0
        suspects = await self._suspects(tenant_id, first, last, report, progress)
        async with self._store.transaction() as tx:
            found = await _name(tx, tenant_id, suspects)
        found += [damage for damage in ends if damage.sequence not in {known.sequence for known in found}]
        return sorted(found, key=lambda damage: damage.sequence)[:MOST_DAMAGES]

    async def _ends(self, tx: StoreTransaction, tenant_id: UUID, start: Start) -> list[Damage]:
        """What is wrong with the end of a chain, and with the ends that were signed."""
        found = list[Damage]()
        end = await tx.inspection.end(tenant_id)
        if end is None:
            found.append(Damage(Kind.MISSING, 1, "the chain has no end in the database", tenant_id))
        elif end.sequence > end.last_record:
            found.append(Damage(Kind.MISSING, end.last_record + 1, "the last records are gone", tenant_id))
        elif end.last_record > end.sequence:
            found.append(Damage(Kind.CHANGED, end.sequence + 1, "records stand behind the end of the chain", tenant_id))
        elif end.sequence and end.record_hash != end.hash:
            found.append(Damage(Kind.CHANGED, end.sequence, "the end of the chain has another hash", tenant_id))
        if end and end.last_body > end.last_record:
            found.append(Damage(Kind.MISSING, end.last_body, "a body has no record", tenant_id))
        if broken := await tx.inspection.broken_promise(tenant_id, start.size):
            size, sequence, missing = broken
            kind = Kind.MISSING if missing else Kind.CHANGED
            told = f"it is not the record that the checkpoint over {size} was signed over"
            found.append(Damage(kind, sequence, told, tenant_id))
        known = start.heads.get(tenant_id)
        if known and await tx.inspection.hash_of(tenant_id, known.sequence) != known.hash:
            found.append(Damage(Kind.CHANGED, known.sequence, "it is not the record that was verified", tenant_id))
        return found

    async def _suspects(
        self, tenant_id: UUID, first: int, last: int, report: Report, progress: Progress
    ) -> list[Suspect]:
        """The damaged records between two, stretch by stretch."""
        found = list[Suspect]()
        running = deque[asyncio.Task[list[Suspect]]]()
        for begin in range(first, last + 1, STRETCH):
            until = min(begin + STRETCH - 1, last)
            running.append(asyncio.create_task(self._stretch(tenant_id, begin, until)))
            report.records += until - begin + 1
            if len(running) == AT_ONCE:
                found += await running.popleft()
                progress(report.records)
        for task in running:
            found += await task
        progress(report.records)
        return found

    async def _stretch(self, tenant_id: UUID, first: int, last: int) -> list[Suspect]:
        async with self._store.transaction() as tx:
            return await tx.inspection.suspects(tenant_id, first, last)


async def _name(tx: StoreTransaction, tenant_id: UUID, suspects: Sequence[Suspect]) -> list[Damage]:
    """What exactly is wrong with records that do not fit."""
    found = list[Damage]()
    moved = await _moved(tx, tenant_id, [suspect.sequence for suspect in suspects if not suspect.sealed])
    for suspect in suspects:
        if not suspect.in_place:
            found.append(Damage(Kind.MISSING, suspect.sequence - 1, "the records before the next are gone", tenant_id))
        elif suspect.sequence in moved:
            told = f"it was sealed as record {moved[suspect.sequence]}"
            found.append(Damage(Kind.REORDERED, suspect.sequence, told, tenant_id))
        elif not suspect.sealed:
            found.append(Damage(Kind.CHANGED, suspect.sequence, "it is not as it was sealed", tenant_id))
        if not suspect.body_sealed:
            found.append(Damage(Kind.BODY_CHANGED, suspect.sequence, "its body is not as it was sealed", tenant_id))
        elif not suspect.kept and suspect.in_place and suspect.sealed:
            told = "its body is gone, and no record says that it was erased"
            found.append(Damage(Kind.MISSING, suspect.sequence, told, tenant_id))
    # A record that follows a damaged one often does not fit for that alone.
    if any(damage.kind is Kind.REORDERED for damage in found):
        found = [damage for damage in found if damage.kind is not Kind.CHANGED]
    return found


async def _moved(tx: StoreTransaction, tenant_id: UUID, places: Sequence[int]) -> dict[int, int]:
    """Which of these records were sealed in the place of another of them, and which that is."""
    hashes, skeletons = [GENESIS], {}
    for place in places:
        for skeleton, _, stored in await tx.chain(Filter(tenant_id), max(place - 2, 0), 3):
            hashes.append(stored)
            if skeleton.sequence == place:
                skeletons[place] = (skeleton, stored)
    return {
        place: other
        for place, (skeleton, stored) in skeletons.items()
        for other in {near for at in places for near in (at - 1, at, at + 1)} - {place}
        if other > 0 and any(skeleton.hash_after(before, other) == stored for before in hashes)
    }
