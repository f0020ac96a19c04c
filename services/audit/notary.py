"""Makes checkpoints of the log and brings them to the second places.

A checkpoint is made when records were appended since the last one: after `EVERY_RECORDS` of them, or `EVERY_SECONDS`
after the first. A push that fails is tried again with the next round; nothing waits for it. A log that is behind what
was published is not signed on: two histories under one name would be worse than none.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from services.audit import metrics
from services.audit.checkpoint import Checkpoint, NoteInvalid, SigningKey
from services.audit.damage import Damage, Kind
from services.audit.places import Place, PlaceUnreachable
from services.audit.record import now
from services.audit.store import Store, StoreTransaction
from services.kit import telemetry
from services.kit.errors import ServiceUnavailable

EVERY_RECORDS = 1_000
EVERY_SECONDS = 10.0
BATCH = 100
_PUSH_AGAIN_SECONDS = 5.0


class Notary:
    """Makes checkpoints and publishes them.

    Args:
        store: The log.
        key: What signs.
        places: Where checkpoints are published.
    """

    def __init__(self, store: Store, key: SigningKey, places: Sequence[Place]) -> None:
        self.key = key
        self.places = places
        self._store = store
        self._appended = 0
        self._enough = asyncio.Event()
        self._making = asyncio.Lock()
        self._withheld = False

    def appended(self, count: int) -> None:
        """Records were appended: perhaps a checkpoint is due."""
        self._appended += count
        if self._appended >= EVERY_RECORDS:
            self._enough.set()

    async def run(self) -> None:
        """Make and publish for ever."""
        if (damage := await self._look_back()) is not None:
            self._withheld = True
            metrics.DAMAGE.labels(damage.kind.name).set(1)
            telemetry.log().error(
                "the audit log is not signed on: " + damage.told, damage=damage.kind.name, size=damage.sequence
            )
            return
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._make_for_ever())
            for place in self.places:
                tasks.create_task(self._publish_for_ever(place))

    async def make(self) -> Checkpoint | None:
        """Make a checkpoint if anything was appended since the last, and return the newest.

        Raises:
            NoteInvalid: The last one in the database is not of this log's key.
        """
        async with self._making:
            self._appended = 0
            async with self._store.transaction() as tx:
                found = await self._make(tx)
        if found:
            metrics.CHECKPOINT_SIZE.set(found.size)
        return found

    async def _make(self, tx: StoreTransaction) -> Checkpoint | None:
        await tx.checkpoints.lock()
        stored = await tx.checkpoints.last()
        last = self.key.read(stored[1]) if stored else None
        heads = await tx.checkpoints.heads()
        if self._withheld or sum(head.sequence for head in heads) <= (last.size if last else 0):
            return last
        known = {head.tenant_id: head for head in await tx.checkpoints.heads_at(last.size)} if last else {}
        made = self.key.sign(heads, now(), last)
        moved = [head for head in heads if known.get(head.tenant_id) != head]
        await tx.checkpoints.add(made.size, made.note, made.time, moved)
        return made

    async def publish(self, place: Place) -> bool:
        """Push what a place has not yet, and tell whether there may be more."""
        if self._withheld:  # pushed again, older checkpoints would stand behind newer ones
            return False
        async with self._store.transaction() as tx:
            done = await tx.checkpoints.published(place.name)
            waiting = await tx.checkpoints.after(done, BATCH)
        metrics.UNPUBLISHED.labels(place.name).set(len(waiting))
        for size, note, _ in waiting:
            await asyncio.to_thread(place.push, size, note)
            async with self._store.transaction() as tx:
                await tx.checkpoints.mark_published(place.name, size)
        metrics.UNPUBLISHED.labels(place.name).set(0)
        return len(waiting) == BATCH

    async def newest_of(self, place: Place) -> str | None:
        """The newest note of a place; None too when it cannot be asked."""
        try:
            return await asyncio.to_thread(place.newest)
        except PlaceUnreachable as error:
            telemetry.log().warning("a place of checkpoints cannot be read", place=place.name, cause=str(error))
            return None

    async def check_published(self) -> list[Damage]:
        """What is wrong between the published checkpoints and the database."""
        newest = [(place, note) for place in self.places if (note := await self.newest_of(place))]
        return [damage for place, note in newest if (damage := await self._check_note(place, note))]

    async def _check_note(self, place: Place, note: str) -> Damage | None:
        try:
            published = self.key.read(note)
        except NoteInvalid as error:
            return Damage(Kind.CHECKPOINT_FORGED, 0, f"the newest checkpoint in {place.name}: {error}")
        async with self._store.transaction() as tx:
            stored = await tx.checkpoints.find(published.size)
        if stored and stored[1] == note:
            return None
        told = f"{place.name} has a checkpoint over {published.size} records that the database does not know"
        return Damage(Kind.ROLLED_BACK, published.size, told)

    async def _look_back(self) -> Damage | None:
        """What forbids to sign on: the last checkpoint is not ours, or others were published."""
        async with self._store.transaction() as tx:
            stored = await tx.checkpoints.last()
        if stored:
            try:
                self.key.read(stored[1])
            except NoteInvalid as error:
                return Damage(Kind.CHECKPOINT_FORGED, stored[0], f"the newest checkpoint in the database: {error}")
        damages = await self.check_published()
        return damages[0] if damages else None

    async def _make_for_ever(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._enough.wait(), EVERY_SECONDS)
            self._enough.clear()
            try:
                await self.make()
            except ServiceUnavailable as error:
                telemetry.log().warning("a checkpoint waits", cause=str(error))
            except NoteInvalid as error:
                metrics.DAMAGE.labels(Kind.CHECKPOINT_FORGED.name).set(1)
                telemetry.log().error("a checkpoint was forged", damage=Kind.CHECKPOINT_FORGED.name, cause=str(error))

    async def _publish_for_ever(self, place: Place) -> None:
        while True:
            try:
                more = await self.publish(place)
            except (PlaceUnreachable, ServiceUnavailable) as error:
                metrics.PUSH_FAILURES.labels(place.name).inc()
                telemetry.log().warning("a checkpoint is not published yet", place=place.name, cause=str(error))
                more = False
            await asyncio.sleep(0 if more else _PUSH_AGAIN_SECONDS)
