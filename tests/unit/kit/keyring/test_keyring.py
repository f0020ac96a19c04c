"""The keyring: what it seals belongs to one tenant and one record, and it asks for its keys as seldom as it can."""

import asyncio
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4

import pytest

from services.kit.keyring import INSTALLATION, KeyringDenied, KeyringMismatch, KeyringUnavailable
from services.kit.keyring import keyring as module
from services.kit.keyring.file_master import FileMaster
from services.kit.keyring.master import Context, Wrapped
from services.kit.keyring.sealed import Sealed
from tests.keyring.memory import MASTER, MemoryKeys, memory_keyring
from tests.unit.kit.keyring.test_sealed import imported

A, B = UUID(int=1), UUID(int=2)
RECORD = "provider:t:acme"
SECRET = "sk-a-secret"


@dataclass
class Counting:
    """A master key in a place that may be away."""

    inner: FileMaster = MASTER
    trouble: Exception | None = None
    unwrapped: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    backend = "file"

    async def key_id(self) -> str:
        """Its name."""
        return await self.inner.key_id()

    async def owns(self, master_key_id: str) -> bool:
        """Whether it is this one."""
        return await self.inner.owns(master_key_id)

    async def wrap(self, key: bytes, context: Context) -> Wrapped:
        """Wrap, if it is not away."""
        if self.trouble:
            raise self.trouble
        return await self.inner.wrap(key, context)

    async def unwrap(self, wrapped: Wrapped, context: Context) -> bytes:
        """Unwrap, if it is not away."""
        self.unwrapped += 1
        await asyncio.sleep(0)
        if self.trouble:
            raise self.trouble
        return await self.inner.unwrap(wrapped, context)

    def original(self, key_id: str) -> bytes | None:
        """The file's key."""
        return self.inner.original(key_id)


async def test_a_secret_comes_back() -> None:
    keys = MemoryKeys()
    sealed = await memory_keyring(keys).seal(A, SECRET, RECORD)
    assert await memory_keyring(keys).open(A, sealed, RECORD) == SECRET
    assert sealed.startswith("v2:k")


async def test_a_secret_opens_for_no_other_tenant_or_record() -> None:
    keyring = memory_keyring()
    ours = await keyring.seal(A, SECRET, RECORD)
    theirs = await keyring.seal(B, SECRET, RECORD)
    for owner, sealed, record in ((B, ours, RECORD), (A, theirs, RECORD), (A, ours, "provider:t:other")):
        with pytest.raises(KeyringMismatch):
            await keyring.open(owner, sealed, record)


async def test_a_data_key_that_is_moved_to_another_tenant_is_of_no_use() -> None:
    keys = MemoryKeys()
    sealed = await memory_keyring(keys).seal(A, SECRET, RECORD)
    (stolen,) = await keys.of(A)
    keys.stored[B, stolen.key_id] = replace(stolen, owner=B)
    with pytest.raises(KeyringMismatch):
        await memory_keyring(keys).open(B, sealed, RECORD)


async def test_a_data_key_of_another_room_is_of_no_use() -> None:
    keys = MemoryKeys()
    sealed = await memory_keyring(keys).seal(A, SECRET, RECORD)
    other = memory_keyring(keys)
    other.room = "other"
    with pytest.raises(KeyringMismatch):
        await other.open(A, sealed, RECORD)


async def test_a_key_id_that_nobody_has_is_refused() -> None:
    keyring = memory_keyring()
    sealed = Sealed.parse(await keyring.seal(A, SECRET, RECORD))
    with pytest.raises(KeyringMismatch) as refused:
        await keyring.open(A, str(replace(sealed, key_id="k" + "0" * 16)), RECORD)
    assert refused.value.metadata["keyId"] == "k" + "0" * 16


async def test_the_form_of_the_original_product_opens_for_imported_records_only() -> None:
    keyring = memory_keyring()
    assert await keyring.open(A, imported(), RECORD, imported=True) == SECRET
    with pytest.raises(KeyringMismatch):
        await keyring.open(A, imported(), RECORD)


async def test_an_imported_record_takes_no_secret_of_ours_as_the_older_form() -> None:
    keyring = memory_keyring()
    of_a_data_key = await keyring.seal(A, SECRET, RECORD)
    of_the_master = str(Sealed.seal(MASTER.key, MASTER.fingerprint, SECRET, RECORD))
    for sealed in (of_a_data_key, of_the_master):
        downgraded = ":".join(("v1", *sealed.split(":")[2:]))
        with pytest.raises(KeyringMismatch):
            await keyring.open(A, downgraded, RECORD, imported=True)


async def test_what_the_master_key_sealed_by_itself_is_read() -> None:
    old = str(Sealed.seal(MASTER.key, MASTER.fingerprint, SECRET, RECORD))
    assert await memory_keyring().open(A, old, RECORD) == SECRET
    other = FileMaster(b"o" * 32)
    assert await memory_keyring(master=other, previous=MASTER).open(A, old, RECORD) == SECRET
    assert await memory_keyring(master=other, previous=MASTER).open(A, imported(), RECORD, imported=True) == SECRET
    with pytest.raises(KeyringMismatch, match="another master key"):
        await memory_keyring(master=other).open(A, old, RECORD)
    with pytest.raises(KeyringMismatch):
        await memory_keyring().open(A, old, "provider:t:other")


async def test_a_key_under_the_previous_master_key_opens() -> None:
    keys, other = MemoryKeys(), FileMaster(b"o" * 32)
    sealed = await memory_keyring(keys).seal(A, SECRET, RECORD)
    assert await memory_keyring(keys, other, MASTER).open(A, sealed, RECORD) == SECRET
    with pytest.raises(KeyringMismatch, match="OIAB_KEYRING_PREVIOUS"):
        await memory_keyring(keys, other).open(A, sealed, RECORD)


async def test_the_place_of_the_master_key_is_asked_once() -> None:
    keys, master = MemoryKeys(), Counting()
    sealed = await memory_keyring(keys).seal(A, SECRET, RECORD)
    keyring = memory_keyring(keys, master)
    await asyncio.gather(*(keyring.open(A, sealed, RECORD) for _ in range(50)))
    for _ in range(50):
        await keyring.open(A, sealed, RECORD)
        await keyring.seal(A, SECRET, RECORD)
    assert master.unwrapped == 1
    assert keys.asked < 8


@pytest.mark.parametrize("trouble", [KeyringUnavailable("away"), KeyringDenied("no")])
async def test_what_is_in_memory_goes_on_when_the_place_is_away(trouble: Exception) -> None:
    master = Counting()
    keyring = memory_keyring(MemoryKeys(), master)
    sealed = await keyring.seal(A, SECRET, RECORD)
    master.trouble = trouble
    assert await keyring.open(A, sealed, RECORD) == SECRET
    assert await keyring.open(A, await keyring.seal(A, SECRET, RECORD), RECORD) == SECRET
    with pytest.raises(type(trouble)):
        await keyring.seal(B, SECRET, RECORD)
    master.trouble = None
    await keyring.seal(B, SECRET, RECORD)


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_KEYS", 3)
    keyring = memory_keyring()
    for _ in range(10):
        await keyring.seal(uuid4(), SECRET, RECORD)
    assert len(keyring._plain) <= 3
    assert len(keyring._active) <= 3


async def test_what_was_looked_up_before_a_rotation_is_not_kept() -> None:
    keyring = memory_keyring(MemoryKeys(), Counting())
    sealed = await keyring.seal(A, SECRET, RECORD)
    keyring.forget()
    early = asyncio.create_task(keyring.open(A, sealed, RECORD))
    await asyncio.sleep(0)
    keyring.forget()
    assert await early == SECRET
    assert not keyring._plain


async def test_derived_keys_differ_by_owner_and_purpose_and_can_be_had_again() -> None:
    keys = MemoryKeys()
    keyring = memory_keyring(keys)
    first = await keyring.derive(INSTALLATION, "sign")
    assert first == await memory_keyring(keys).derive(INSTALLATION, "sign")
    others = [await keyring.derive(INSTALLATION, "other"), await keyring.derive(A, "sign")]
    assert len({first.key, *(other.key for other in others)}) == 3
    assert len(first.key) == 32
    assert repr(first.key) not in repr(first)

    keys.retire(INSTALLATION)
    keyring.forget()
    second = await keyring.derive(INSTALLATION, "sign")
    assert second.key_id != first.key_id
    assert await keyring.derive(INSTALLATION, "sign", first.key_id) == first
    assert await keyring.derive_all(INSTALLATION, "sign") == [second, first]
    with pytest.raises(KeyringMismatch):
        await keyring.derive(A, "sign", first.key_id)
