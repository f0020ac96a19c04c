"""The keyring for those who operate the box: how it stands, a new data key for a tenant, a new wrapping of all.

A rotation makes a new key the active one in one step, and then seals secret after secret anew, in batches. Until the
last one is done both keys are there, so a rotation that is cut anywhere has lost nothing; asked again, it goes on. What
was sealed by a master key itself, or came from the original product, is sealed with the data key from then on.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from services.kit import outbox, telemetry
from services.kit.errors import DomainError
from services.kit.keyring.data_key import INSTALLATION, MARK, DataKey, KeyState
from services.kit.keyring.errors import KeyringMismatch
from services.kit.keyring.keyring import Keyring
from services.kit.keyring.secret_table import SecretTable
from services.kit.postgres import Database, Row, Transaction
from services.kit.tenancy import as_system, as_tenant

BATCH = 100


@dataclass(frozen=True)
class DataKeyUse:
    """A data key, and how many secrets are sealed with it."""

    key: DataKey
    secrets: int


@dataclass(frozen=True)
class Status:
    """How the keyring of a room stands for one tenant."""

    room: str
    backend: str
    master_key_id: str
    """Empty when the place of the master key does not answer."""
    trouble: str
    """Why it does not. Empty when it does."""
    data_keys: tuple[DataKeyUse, ...]
    to_reseal: int
    """Secrets of the tenant that are not sealed with its active key."""
    to_rewrap: int
    """Data keys, of all tenants, that another master key has wrapped than the one that wraps now."""


@dataclass(frozen=True)
class Rotation:
    """What a rotation did."""

    key_id: str = ""
    """The active key."""
    resealed: int = 0
    unreadable: int = 0
    """Secrets that stayed as they were, because they cannot be opened."""
    destroyed: int = 0
    """Keys that sealed nothing any more."""
    resumed: bool = False
    """Whether it finished another one, and made no key of its own."""
    rotated: int = field(default=0, repr=False)
    """How many of the secrets had a data key before."""


@dataclass(frozen=True)
class Rewrap:
    """What a new wrapping did."""

    master_key_id: str = ""
    rewrapped: int = 0
    unreadable: int = 0
    """Data keys that stayed as they were, because their master key is not at hand or they were changed."""


class KeyringAdmin:
    """Operates the keyring of a room.

    Args:
        keyring: The keyring.
        database: Where the secrets and the audit outbox of the room are.
        tables: Which tables hold sealed secrets.
        grace: How long a retired key of the installation is kept, for what was derived from it.
        recorded: Set whenever an audit record has been committed.
    """

    def __init__(
        self,
        keyring: Keyring,
        database: Database,
        tables: Sequence[SecretTable] = (),
        *,
        grace: timedelta = timedelta(0),
        recorded: asyncio.Event | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._keyring = keyring
        self._keys = keyring.keys
        self._database = database
        self._tables = tables
        self._grace = grace
        self._recorded = recorded or asyncio.Event()
        self._now = now

    @property
    def room(self) -> str:
        """The name of the room."""
        return self._keyring.room

    async def status(self, owner: UUID) -> Status:
        """How the keyring stands for a tenant."""
        uses = await self._uses(owner)
        keys = await self._keys.of(owner)
        active = next((key.key_id for key in keys if key.state is KeyState.ACTIVE), None)
        under = await self._keys.masters()
        master_key_id, trouble = "", ""
        try:
            master_key_id = await self._keyring.master.key_id()
        except DomainError as error:
            trouble = error.message
        return Status(
            room=self._keyring.room,
            backend=self._keyring.master.backend,
            master_key_id=master_key_id,
            trouble=trouble,
            data_keys=tuple(DataKeyUse(key, uses.get(key.key_id, 0)) for key in keys),
            to_reseal=sum(count for key_id, count in uses.items() if key_id != active),
            to_rewrap=0 if trouble else sum(count for name, count in under.items() if name != master_key_id),
        )

    async def rotate(self, owner: UUID) -> Rotation:
        """Give a tenant, or `INSTALLATION`, a new data key, and seal all its secrets with it.

        When another rotation was cut, or runs, this finishes it and makes no key.
        """
        self._keyring.look_again()
        active = await self._keys.active(owner)
        done = await self._reseal(owner, active.key_id) if active else Rotation()
        if active and done.rotated:
            done = replace(done, key_id=active.key_id, resumed=True)
            await self._record(owner, "admin.keyring_rotate", key=active.key_id, resumed=True)
        else:
            key_id, made = await self._begin(owner, active)
            again = await self._reseal(owner, key_id)
            done = replace(again, key_id=key_id, resumed=not made)
        done = replace(done, destroyed=await self.sweep(owner))
        telemetry.log().info("data keys rotated", tenant=str(owner), **vars(done))
        return done

    async def rewrap(self) -> Rewrap:
        """Wrap every data key of the room with the master key that wraps now."""
        current = await self._keyring.master.key_id()
        await self._record(INSTALLATION, "admin.keyring_rewrap", master_key=current)
        done, last = Rewrap(current), None
        while batch := await self._keys.under_others(current, last, BATCH):
            for key in batch:
                done = await self._rewrap(done, key)
            last = batch[-1]
        telemetry.log().info("data keys wrapped anew", **vars(done))
        return done

    async def sweep(self, owner: UUID) -> int:
        """Destroy the keys of an owner that were retired long enough ago and seal nothing."""
        until = self._now() - (self._grace if owner == INSTALLATION else timedelta(0))
        over = [
            key
            for key in await self._keys.of(owner)
            if key.state is not KeyState.ACTIVE and key.retire_time and key.retire_time <= until
        ]
        destroyed = [key for key in over if await self._keys.destroy(key)]
        for key in destroyed:
            self._keyring.drop(owner, key.key_id)
        return len(destroyed)

    async def _begin(self, owner: UUID, old: DataKey | None) -> tuple[str, bool]:
        """Make a new key the active one, unless somebody did so since; tell which one is, and whether it is ours."""
        new = await self._keyring.new_key(owner)
        if old is None:
            await self._keys.add(new)
            key_id = await self._active(owner)
            await self._record(owner, "admin.keyring_rotate", key=key_id)
            return key_id, key_id == new.key_id
        with _scope(owner):
            async with self._database.transaction() as tx:
                if made := await self._keys.replace(tx, old.key_id, new):
                    await self._put(tx, owner, "admin.keyring_rotate", key=new.key_id)
        self._recorded.set()
        self._keyring.look_again()
        return (new.key_id, True) if made else (await self._active(owner), False)

    async def _active(self, owner: UUID) -> str:
        self._keyring.look_again()
        return await self._keyring.active(owner)

    async def _reseal(self, owner: UUID, key_id: str) -> Rotation:
        """Seal with a key what is sealed with another."""
        await self._load(owner)
        done = Rotation()
        for table in self._tables:
            after = ""
            while True:
                with as_tenant(owner):
                    async with self._database.transaction() as tx:
                        done, after = await self._batch(tx, owner, table, key_id, (done, after))
                if not after:
                    break
        return done

    async def _batch(
        self, tx: Transaction, owner: UUID, table: SecretTable, key_id: str, state: tuple[Rotation, str]
    ) -> tuple[Rotation, str]:
        done, after = state
        if table.lock:
            await tx.run(table.lock, tenant_id=owner)
        rows = await tx.many(table.stale, tenant_id=owner, key_id=key_id, after=after, size=BATCH)
        changes = []
        for row in rows:
            try:
                sealed = await self._resealed(owner, row)
            except KeyringMismatch:
                done = replace(done, unreadable=done.unreadable + 1)
                continue
            changes.append({"tenant_id": owner, "id": row["id"], "sealed": sealed, "was": row["sealed"]})
            rotated = row["sealed"].startswith(f"v2:{MARK}")
            done = replace(done, resealed=done.resealed + 1, rotated=done.rotated + rotated)
        if changes:
            await tx.each(table.save, changes)
        return done, rows[-1]["id"] if len(rows) == BATCH else ""

    async def _resealed(self, owner: UUID, row: Row) -> str:
        secret = await self._keyring.open(owner, row["sealed"], row["record"], imported=row["imported"])
        return await self._keyring.seal(owner, secret, row["record"])

    async def _load(self, owner: UUID) -> None:
        """Bring the owner's keys into memory, so that no transaction waits for the place of the master key."""
        for key in await self._keys.of(owner):
            if key.state is not KeyState.LOST:
                try:
                    await self._keyring.key(owner, key.key_id)
                except KeyringMismatch as error:
                    telemetry.log().error("a data key cannot be read", tenant=str(owner), **error.metadata)

    async def _rewrap(self, done: Rewrap, key: DataKey) -> Rewrap:
        try:
            plain = await self._keyring.unwrap(key)
        except KeyringMismatch as error:
            telemetry.log().error("a data key cannot be read", tenant=str(key.owner), **error.metadata)
            return replace(done, unreadable=done.unreadable + 1)
        wrapped = await self._keyring.master.wrap(plain, self._keyring.context(key.owner, key.key_id))
        return replace(done, rewrapped=done.rewrapped + await self._keys.rewrap(key, wrapped))

    async def _uses(self, owner: UUID) -> dict[str, int]:
        """How many secrets of an owner each data key seals. The empty name stands for master keys."""
        uses: dict[str, int] = {}
        with as_tenant(owner):
            async with self._database.transaction() as tx:
                for table in self._tables:
                    for row in await tx.many(table.count, tenant_id=owner):
                        uses[row["key_id"]] = uses.get(row["key_id"], 0) + row["secrets"]
        return uses

    async def _record(self, owner: UUID, action: str, **payload: object) -> None:
        with _scope(owner):
            async with self._database.transaction() as tx:
                await self._put(tx, owner, action, **payload)
        self._recorded.set()

    async def _put(self, tx: Transaction, owner: UUID, action: str, **payload: object) -> None:
        """Put on record what is done, in the tenant whose keys it is about, else in that of who does it."""
        tenant_id = None if owner == INSTALLATION else owner
        await outbox.record(tx, action, f"keyring:{self._keyring.room}", tenant_id=tenant_id, payload=payload)


def _scope(owner: UUID) -> AbstractContextManager[None]:
    return as_system() if owner == INSTALLATION else as_tenant(owner)
