"""The keyring of a room: seals and opens secrets with the data keys of their tenants, and derives keys from them.

Unwrapped keys stay in memory, a bounded number of them, so that the place of the master key is asked once per key and
may be away for a while. What is sealed is bound to the record that it belongs to: who can write to the database moves
no secret into another record, and none to another tenant.
"""

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from psycopg.errors import ForeignKeyViolation

from services.kit.keyring.data_key import MARK, DataKey, DataKeys, KeyState, new_key_id
from services.kit.keyring.errors import KeyringMismatch
from services.kit.keyring.master import Context, MasterKey
from services.kit.keyring.sealed import KEY_BYTES, Sealed, damaged

T = TypeVar("T")

KEPT_KEYS = 4096
ACTIVE_SECONDS = 60.0
"""How long a key is believed to be the active one. After a rotation elsewhere, the database refuses the old one."""

Name = tuple[UUID, str]


@dataclass(frozen=True)
class DerivedKey:
    """A key for one purpose, and the name under which it can be had again while its data key is kept."""

    key_id: str
    key: bytes = field(repr=False)


class Keyring:
    """The secrets of a room.

    Args:
        room: The name of the room, to which its data keys are bound.
        keys: Where they are.
        master: What wraps new ones.
        previous: What wrapped older ones, while they wait to be wrapped anew.
        clock: Seconds that only go forward.
    """

    def __init__(
        self,
        room: str,
        keys: DataKeys,
        master: MasterKey,
        previous: MasterKey | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.room = room
        self.keys = keys
        self.master = master
        self.masters = (master, previous) if previous else (master,)
        self._clock = clock
        self._forgotten = 0
        self._active: dict[UUID, tuple[float, str]] = {}
        self._plain: OrderedDict[Name, bytes] = OrderedDict()
        self._locks: WeakValueDictionary[Name, asyncio.Lock] = WeakValueDictionary()

    async def seal(self, owner: UUID, secret: str, record: str) -> str:
        """Encrypt a secret of a tenant for a record, such as `provider:<tenant>:<name>`.

        Call it before the transaction that stores the secret: the first time it may ask the place of the master key.
        """
        key_id = await self.active(owner)
        return str(Sealed.seal(await self.key(owner, key_id), key_id, secret, record))

    async def open(self, owner: UUID, text: str, record: str, *, imported: bool = False) -> str:
        """Decrypt a secret of a tenant's record.

        Args:
            owner: The tenant.
            text: The stored form.
            record: The record that it was sealed for.
            imported: Whether it came from the original product, whose form is bound to no record.

        Raises:
            KeyringMismatch: It was sealed with another key or for another record, or was changed since.
            KeyringUnavailable: Its data key is not in memory, and the place of the master key does not answer.
            KeyringDenied: The same, and it refuses.
        """
        sealed = Sealed.parse(text)
        if sealed.key_id.startswith(MARK):
            return sealed.open(await self.key(owner, sealed.key_id), record)
        if not sealed.key_id and not imported:
            raise damaged()
        return self._open_original(sealed, record)

    async def derive(self, owner: UUID, purpose: str, key_id: str = "") -> DerivedKey:
        """A key of 32 bytes for a purpose, such as signing, from a data key of the owner (HKDF-SHA256).

        Args:
            owner: A tenant, or `INSTALLATION`.
            purpose: What it is for; another purpose has another key.
            key_id: From which data key. Empty means the active one; to verify, name the one that signed.

        Raises:
            KeyringMismatch: The owner has no data key of that name.
        """
        key_id = key_id or await self.active(owner)
        info = b"orginabox derive\x00" + purpose.encode()
        key = HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(await self.key(owner, key_id))
        return DerivedKey(key_id, key)

    async def derive_all(self, owner: UUID, purpose: str) -> list[DerivedKey]:
        """The key for a purpose of every data key that the owner has, that of the active one first.

        For who verifies what was signed before a rotation.
        """
        active = await self.active(owner)
        kept = [key.key_id for key in await self.keys.of(owner) if key.state is KeyState.RETIRED]
        return [await self.derive(owner, purpose, key_id) for key_id in (active, *reversed(kept))]

    async def again(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do work that seals and stores, and do it anew when a rotation has destroyed its key in between."""
        try:
            return await work()
        except ForeignKeyViolation as error:
            if not (error.diag.constraint_name or "").endswith("_data_key"):
                raise
        self.look_again()
        return await work()

    def look_again(self) -> None:
        """Look the active keys up anew: something was rotated. What is being looked up at this moment is not kept.

        The keys themselves stay, so that what they seal can be read while the place of the master key is away.
        """
        self._forgotten += 1
        self._active.clear()

    def drop(self, owner: UUID, key_id: str) -> None:
        """Drop a key from memory that was destroyed."""
        self._forgotten += 1
        self._plain.pop((owner, key_id), None)

    def forget(self) -> None:
        """Drop every key from memory."""
        self.look_again()
        self._plain.clear()

    async def active(self, owner: UUID) -> str:
        """The name of the key that the owner's secrets are sealed with now, made if there is none."""
        until, key_id = self._active.get(owner, (0.0, ""))
        if key_id and until > self._clock():
            return key_id
        forgotten = self._forgotten
        found = await self.keys.active(owner) or await self._make(owner)
        if forgotten == self._forgotten:
            if len(self._active) >= KEPT_KEYS:
                self._active.clear()
            self._active[owner] = (self._clock() + ACTIVE_SECONDS, found.key_id)
        return found.key_id

    async def key(self, owner: UUID, key_id: str) -> bytes:
        """A data key of the owner, unwrapped."""
        name = (owner, key_id)
        if key := self._kept(name):
            return key
        # Whoever wants the same key at the same time waits for the first.
        async with self._locks.setdefault(name, asyncio.Lock()):
            if key := self._kept(name):
                return key
            forgotten = self._forgotten
            found = await self.keys.find(owner, key_id)
            if found is None:
                raise KeyringMismatch(
                    "a stored secret was encrypted with a key that is not in the keyring; set the secret again",
                    keyId=key_id,
                )
            key = await self.unwrap(found)
            if forgotten == self._forgotten:
                self._keep(name, key)
            return key

    async def new_key(self, owner: UUID) -> DataKey:
        """A new data key, wrapped and not yet stored."""
        key_id = new_key_id()
        wrapped = await self.master.wrap(secrets.token_bytes(KEY_BYTES), self.context(owner, key_id))
        return DataKey(owner, key_id, wrapped)

    async def unwrap(self, found: DataKey) -> bytes:
        """The bytes of a data key."""
        for master in self.masters:
            if await master.owns(found.wrapped.master_key_id):
                return await master.unwrap(found.wrapped, self.context(found.owner, found.key_id))
        raise KeyringMismatch(
            "a data key was wrapped by another master key than the one at hand; "
            "put that one back, or name it in OIAB_KEYRING_PREVIOUS",
            keyId=found.key_id,
            masterKeyId=found.wrapped.master_key_id,
        )

    def context(self, owner: UUID, key_id: str) -> Context:
        """What a data key is bound to."""
        return {"room": self.room, "tenant": str(owner), "key": key_id}

    def original(self, key_id: str) -> list[bytes]:
        """The master keys at hand that may have sealed secrets by themselves under a key id."""
        return [key for master in self.masters if (key := master.original(key_id))]

    def _open_original(self, sealed: Sealed, record: str) -> str:
        """Open what a master key sealed by itself, before there were data keys or in the original product."""
        keys = self.original(sealed.key_id)
        if not keys:
            raise KeyringMismatch(
                "a stored secret was encrypted with another master key than the one at hand; "
                "put that key back, or set the secret again",
                keyId=sealed.key_id,
            )
        for key in keys[:-1]:
            try:
                return sealed.open(key, record)
            except KeyringMismatch:
                continue
        return sealed.open(keys[-1], record)

    async def _make(self, owner: UUID) -> DataKey:
        await self.keys.add(await self.new_key(owner))
        # Somebody else may have been first: theirs is the active one then.
        if found := await self.keys.active(owner):
            return found
        raise KeyringMismatch("the keyring was rotated at this moment; try again", owner=owner)

    def _kept(self, name: Name) -> bytes | None:
        if key := self._plain.get(name):
            self._plain.move_to_end(name)
        return key

    def _keep(self, name: Name, key: bytes) -> None:
        self._plain[name] = key
        if len(self._plain) > KEPT_KEYS:
            self._plain.popitem(last=False)
